"""Checked access to a row's columns: every failure is a short reason that many rows can share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lit_align.data.formats.base import Row
from lit_align.errors import Malformed
from lit_align.types import Message, Text

ROLES = {"system", "developer", "user", "assistant", "tool"}
SAME: Mapping[str, str] = MappingProxyType({})


def found(row: Row, name: str) -> Any:
    """The column's value; a null is as good as missing."""
    if row.get(name) is None:
        raise Malformed(f"missing field '{name}'")
    return row[name]


def text(row: Row, name: str) -> str:
    """The column as text, which may be empty."""
    value = found(row, name)
    if not isinstance(value, str):
        raise Malformed(f"'{name}' is not text (got {type(value).__name__})")
    return value


def flag(row: Row, name: str) -> bool:
    """The column as a yes or no; CSV can only spell it out."""
    value = found(row, name)
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if not isinstance(value, bool):
        raise Malformed(f"'{name}' is not true or false (got {type(value).__name__})")
    return value


def rating(values: Any) -> dict[str, float]:
    """Numbers by attribute; a null is one that was not measured."""
    if not isinstance(values, dict):
        raise Malformed(f"a rating is not numbers by attribute (got {type(values).__name__})")
    measured = {str(name): value for name, value in values.items() if value is not None}
    for name, value in measured.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise Malformed(f"the rating '{name}' is not a number (got {type(value).__name__})")
    return {name: float(value) for name, value in measured.items()}


def text_or_messages(row: Row, name: str) -> Text:
    """The column as text or, if it is a list, as messages."""
    return messages(row[name], name) if isinstance(row.get(name), list) else text(row, name)


def messages(
    value: Any, name: str, roles: Mapping[str, str] = SAME, keys: str = "role content"
) -> list[Message]:
    """A list of turns with known roles.

    Args:
        value: what the column holds.
        name: of the column.
        roles: the layout's own words for who speaks, where they are not the usual ones.
        keys: what the layout calls the speaker and what he says.
    """
    if not isinstance(value, list):
        raise Malformed(f"'{name}' is not a list of turns (got {type(value).__name__})")
    return [message(turn, name, roles, keys) for turn in value]


def message(
    turn: Any, name: str, roles: Mapping[str, str] = SAME, keys: str = "role content"
) -> Message:
    """One turn; arguments as for ``messages``."""
    speaker, says = keys.split()
    if not isinstance(turn, dict) or not {speaker, says} <= turn.keys():
        raise Malformed(f"a turn of '{name}' has no '{speaker}' and '{says}'")
    who = str(turn[speaker])
    role = roles.get(who, who)
    if role not in ROLES:
        raise Malformed(f"a turn of '{name}' has the unknown {speaker} {who[:40]!r}")
    if turn.get("tool_calls"):
        raise Malformed(f"a turn of '{name}' has tool calls, which are not text")
    if not isinstance(turn[says], str):
        raise Malformed(f"'{says}' in '{name}' is not text (got {type(turn[says]).__name__})")
    return {"role": role, "content": turn[says]}


def checked_prompt(prompt: Text) -> Text:
    """The prompt, if it says anything."""
    if not (
        prompt.strip()
        if isinstance(prompt, str)
        else any(turn["content"].strip() for turn in prompt)
    ):
        raise Malformed("empty prompt")
    return prompt


def checked_response(response: Text) -> Text:
    """The response, if there is something in it to learn from."""
    if isinstance(response, str):
        said = [response]
    else:
        said = [turn["content"] for turn in response if turn["role"] == "assistant"]
        if response and not said:
            raise Malformed("no assistant turn")
    if not any(content.strip() for content in said):
        raise Malformed("empty response")
    return response


def unused(row: Row, *used: str) -> Row:
    """The columns that the layout does not read."""
    return {name: value for name, value in row.items() if name not in used}
