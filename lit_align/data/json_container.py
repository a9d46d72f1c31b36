"""Rows inside one JSON object, as some sets are published that have them under a key: ``{"example": [{...}]}``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from lit_align.errors import DataError

BLANKS = re.compile(r"\s*")

OF_A_ROW = frozenset({"prompt", "question", "instruction", "input"})
"""Keys of an object that is itself a row, whatever lists it has."""

OF_A_TURN = ({"role", "content"}, {"from", "value"})
"""Keys of the turns of a conversation, whose list is a cell and no rows."""


class Member(NamedTuple):
    """A key of an object, its value, and where in the text the value begins."""

    key: str
    start: int
    value: Any


def object_members(text: str) -> list[Member] | None:
    """The members of the object that a text is; None if it is not one object, such as JSON Lines.

    Example:
        >>> object_members('{"data": [1]}')
        [Member(key='data', start=9, value=[1])]
        >>> object_members('{"a": 1} {"a": 2}') is None
        True
    """
    decoder = json.JSONDecoder()
    members = []
    position = skip_blanks(text, text.index("{") + 1)
    try:
        while text[position] != "}":
            key, position = decoder.raw_decode(text, position)
            colon = skip_blanks(text, position)
            start = skip_blanks(text, colon + 1)
            value, position = decoder.raw_decode(text, start)
            members.append(Member(key, start, value))
            position = skip_blanks(text, position)
            if text[colon] != ":" or text[position] not in ",}":
                return None
            if text[position] == ",":
                position = skip_blanks(text, position + 1)
    except (ValueError, IndexError, RecursionError):
        return None
    return members if skip_blanks(text, position + 1) == len(text) else None


def rows_member(path: str, members: Sequence[Member]) -> Member:
    """The only member whose value is a list of rows.

    Raises:
        DataError: naming the keys, if there is no such member or several.
    """
    keys = [member.key for member in members]
    lists = [member for member in members if _is_rows(member.value)]
    names = ", ".join(member.key for member in lists)
    if len(lists) > 1:
        raise DataError(
            f"{path} is one object with several lists of rows: {names}; save the one that is meant as a file of its "
            f"own, as in: jq .{lists[0].key} {path} > rows.json"
        )
    if not lists or OF_A_ROW.intersection(keys) or len(set(keys)) < len(keys):
        raise DataError(
            f"{path} is one object, not rows (its keys: {', '.join(keys) or 'none'}); save the array of rows in it as "
            "a file of its own, or one row as one line of a .jsonl file"
        )
    return lists[0]


def is_only_rows(members: Sequence[Member]) -> bool:
    """Whether an object has nothing but a list of rows: on one line, others are rows themselves.

    Example:
        >>> turns = [{"role": "user", "content": "Hi"}]
        >>> is_only_rows([Member("data", 9, [{"a": 1}])]), is_only_rows([Member("messages", 13, turns)])
        (True, False)
    """
    return len(members) == 1 and _is_rows(members[0].value)


def skip_blanks(text: str, position: int) -> int:
    """The position of the next character that is not white space."""
    return cast(re.Match[str], BLANKS.match(text, position)).end()


def _is_rows(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    if not all(isinstance(element, dict) for element in value):
        return False
    return not any(keys <= value[0].keys() for keys in OF_A_TURN)
