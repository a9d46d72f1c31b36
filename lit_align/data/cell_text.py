"""Cells whose text stands for something else: a list of messages, or a missing value."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from lit_align.data.formats import Row
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, Text

TURNS = re.compile(
    r"""\s*\[\s*\{\s*(['"](content|value)['"]\s*:|[^{}\[\]]{0,200}?['"](role|from)['"]\s*:)"""
)
ARRAY_BREAK = re.compile(r"\}\s*\n\s*\{")  # numpy prints an array of turns without commas
MAX_LITERAL = 1_000_000  # characters; Python's parser needs some hundred bytes for each
MISSING = {"nan", "n/a", "null", "none", "<na>"}


def looks_like_messages(text: str) -> bool:
    """Whether a text begins as a list of messages does, in JSON or in Python.

    Example:
        >>> looks_like_messages("[{'role': 'user', 'content': 'Hi.'}]"), looks_like_messages("[1]")
        (True, False)
    """
    return bool(TURNS.match(text))


def parse_cells(row: Row) -> Row:
    """The row with lists of messages that were written as text, as spreadsheets and CSV do, in place of the texts.

    A text that looks like such a list and cannot be parsed stays as it is; see `check_texts`.
    """
    parsed = dict(row)
    for name, value in row.items():
        if isinstance(value, str) and looks_like_messages(value):
            messages = _parse_list(value)
            parsed[name] = value if messages is None else messages
    return parsed


def check_texts(group: Group, from_table: bool) -> None:
    """Refuse texts that stand for something else.

    Args:
        group: as read.
        from_table: whether it comes from a CSV file, which has no other way to write a missing value.

    Raises:
        Malformed: if a prompt or response looks like a list of messages.
        SetAside: if one is the word for a missing value.
    """
    texts = [("prompt", text) for text in contents(group.prompt)]
    for response in group.responses:
        texts += [("response", text) for text in contents(response)]
    for part, text in texts:
        if looks_like_messages(text):
            raise unparsed_messages(part)
        if from_table and text.strip().lower() in MISSING:
            raise SetAside(f"the {part} is {text.strip()!r}, a word for a missing value")


def unparsed_messages(name: str) -> Malformed:
    """The error for a text that looks like a list of messages but is not one."""
    return Malformed(f"'{name}' looks like a list of messages written as text, but is not complete")


def contents(text: Text) -> list[str]:
    """The text, or the contents of its turns that are text."""
    if isinstance(text, str):
        return [text]
    return [turn["content"] for turn in text if isinstance(turn.get("content"), str)]


def _parse_list(text: str) -> list[Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _parse_literal(text)
    return value if isinstance(value, list) else None


def _parse_literal(text: str) -> Any:
    """The value of a Python literal, as pandas writes lists; None if it is not one."""
    if len(text) > MAX_LITERAL:
        return None
    try:
        return ast.literal_eval(ARRAY_BREAK.sub("}, {", text.strip()))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
