"""Cells whose text stands for something else: a list of messages, or a missing value."""

from __future__ import annotations

import re
from types import UnionType
from typing import Any

from lit_align.data.formats import Row
from lit_align.data.formats.fields import TURN_KEYS
from lit_align.data.formats.known_columns import STRUCTURED, plain_name
from lit_align.errors import Malformed, SetAside
from lit_align.literals import parse_literal
from lit_align.types import Group, Text

TURNS = re.compile(
    r"""\s*\[\s*\{\s*(['"](content|value)['"]\s*:|[^{}\[\]]{0,200}?['"](role|from)['"]\s*:)"""
)
WHITE_SPACE = re.compile(r"\s+")
LONG_TEXT = 1_000_000  # characters; a list of its words would take ten times its memory
MISSING = {"nan", "n/a", "null", "none", "<na>"}


def looks_like_messages(text: str) -> bool:
    """Whether a text begins as a list of messages does, in JSON or in Python.

    Example:
        >>> looks_like_messages("[{'role': 'user', 'content': 'Hi.'}]"), looks_like_messages("[1]")
        (True, False)
    """
    return bool(TURNS.match(text))


def parse_cells(row: Row) -> Row:
    """The row with lists and objects that were written as text, as spreadsheets and CSV do, in place of the texts.

    Such are lists of messages in any column, and columns that hold a list or an object wherever they are known. A text
    that cannot be parsed stays as it is; see `check_texts`. An object of lists of roles and contents becomes turns.

    Example:
        >>> parse_cells({"ratings": "[4, None]", "prompt": "[4, None]"})
        {'ratings': [4, None], 'prompt': '[4, None]'}
    """
    parsed = dict(row)
    for name, value in row.items():
        if isinstance(value, dict):
            parsed[name] = _turns_of_lists(value)
        if not isinstance(value, str):
            continue
        if looks_like_messages(value):
            parsed[name] = _parse(value, list)
        elif value.lstrip()[:1] in ("[", "{") and plain_name(name) in STRUCTURED:
            parsed[name] = _parse(value, list | dict)
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


def squeeze(text: str) -> str:
    """The text with one blank for all white space between words."""
    if len(text) < LONG_TEXT:
        return " ".join(text.split())
    return WHITE_SPACE.sub(" ", text).strip()


def _turns_of_lists(value: dict[str, Any]) -> Any:
    """A list of turns of an object with a list of roles and a list of contents, as Arrow has some; or the object."""
    if not any(value.keys() >= set(keys) for keys in TURN_KEYS):
        return value
    columns = list(value.values())
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return value
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _parse(text: str, expected: type | UnionType) -> object:
    """The value of a text; the text itself if it has no value of an expected type."""
    try:
        value = parse_literal(text)
    except ValueError:
        return text
    return value if isinstance(value, expected) else text
