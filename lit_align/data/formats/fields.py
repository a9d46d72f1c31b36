"""Checked access to a row's columns: every failure is a short reason that many rows can share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from lit_align.chat.turns import THOUGHTS_KEYS, is_learned, parse_tool_calls
from lit_align.data.formats.base import Row
from lit_align.data.formats.known_columns import MEDIA_PARTS, holds_something, plain_name
from lit_align.errors import Malformed, SetAside
from lit_align.types import Message, Text

ROLES = {"system", "developer", "user", "assistant", "tool"}
ROLE_ALIASES = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "model"), "assistant"),
    **dict.fromkeys(("function", "function_response", "observation", "ipython"), "tool"),
}
TURN_KEYS = (("role", "content"), ("from", "value"))
TEXT_PARTS = ("text", "input_text", "output_text")
CALL_KEYS = ("tool_calls", "function_call")
BOOLEANS = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "0", "0.0"), False),
}
NO_ALIASES: Mapping[str, str] = MappingProxyType({})


def wrong_type(subject: str, expected: str, value: Any) -> Malformed:
    """The error for a value of another type than expected."""
    return Malformed(f"{subject} is not {expected} (got {type(value).__name__})")


def required(row: Row, name: str) -> Any:
    """The column's value; null counts as missing."""
    if row.get(name) is None:
        raise Malformed(f"missing field '{name}'")
    return row[name]


def text_field(row: Row, name: str) -> str:
    """The column as text, which may be empty."""
    value = required(row, name)
    if not isinstance(value, str):
        raise wrong_type(f"'{name}'", "text", value)
    return value


def first_filled(row: Row, names: Sequence[str]) -> str:
    """The first of the columns that holds something; empty if none does."""
    return next((name for name in names if row.get(name)), "")


def bool_field(row: Row, name: str) -> bool:
    """The column as a boolean, which may be written as 1 and 0, true and false, or yes and no."""
    value = required(row, name)
    if isinstance(value, str):
        value = BOOLEANS.get(value.strip().lower(), value)
    elif value in (0, 1):
        value = bool(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        raise Malformed(f"'{name}' is not true or false (got {str(value)[:20]!r})")
    raise wrong_type(f"'{name}'", "true or false", value)


def binary_label(row: Row, name: str) -> tuple[bool, ...]:
    """The binary label of a row with one response; empty if it has no such column."""
    return () if row.get(name) is None else (bool_field(row, name),)


def number(value: Any, subject: str) -> float:
    """A finite number, which may be written as text, since CSV has only text.

    Args:
        value: of a column.
        subject: what the number is, for error messages.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise wrong_type(subject, "a number", value) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(subject, "a number", value)
    if not math.isfinite(value):
        raise Malformed(f"{subject} is not finite (got {value})")
    return float(value)


def has_numbers(values: Any) -> bool:
    """Whether a value is a list with a number in it, which may be written as text.

    Example:
        >>> has_numbers([None, "4"]), has_numbers(["good", "bad"])
        (True, False)
    """
    return isinstance(values, list) and any(map(_is_number, values))


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def list_field(row: Row, name: str) -> list[Any]:
    """The column as a list."""
    value = required(row, name)
    if not isinstance(value, list):
        raise wrong_type(f"'{name}'", "a list", value)
    return value


def are_objects(values: Any, *keys: str) -> bool:
    """Whether a value is a list of objects that have these keys, at least one of them.

    Example:
        >>> are_objects([{"text": "4", "score": 1}], "text"), are_objects([], "text")
        (True, False)
    """
    if not isinstance(values, list) or not values:
        return False
    return all(isinstance(value, dict) and value.keys() >= set(keys) for value in values)


def text_or_messages(row: Row, name: str) -> Text:
    """The column as text or, if it is a list, as messages."""
    if isinstance(row.get(name), list):
        return parse_messages(row[name], name)
    return text_field(row, name)


def parse_ratings(values: Any) -> dict[str, float]:
    """Numbers by attribute; an attribute that is null was not rated."""
    if not isinstance(values, dict):
        raise wrong_type("a rating", "numbers by attribute", values)
    ratings = {}
    for name, value in values.items():
        if value is not None and value != "":
            ratings[str(name)] = number(value, f"the rating '{name}'")
    return ratings


def check_range(ratings: Mapping[str, float], low: float, high: float) -> None:
    """Refuse ratings that are not from ``low`` to ``high``."""
    for name, rating in ratings.items():
        if not low <= rating <= high:
            raise Malformed(f"the rating '{name}' is not from {low:g} to {high:g}")


def places_by_score(scores: Sequence[float]) -> tuple[int, ...]:
    """The place of each response, 1 for the highest score; equal scores are a tie.

    Example:
        >>> places_by_score([2.0, 5.0, 2.0])
        (2, 1, 2)
    """
    return tuple(1 + sum(other > score for other in scores) for score in scores)


def parse_messages(
    value: Any, name: str, roles: Mapping[str, str] = NO_ALIASES, keys: str = "role content"
) -> list[Message]:
    """A list of turns with known roles.

    Args:
        value: the column's value.
        name: the column, for error messages.
        roles: the format's own names of roles, where they differ from the usual ones.
        keys: the keys of a turn's role and of its text, separated by a space.
    """
    if not isinstance(value, list):
        raise wrong_type(f"'{name}'", "a list of turns", value)
    return [parse_message(turn, name, roles, keys) for turn in value]


def parse_message(
    turn: Any, name: str, roles: Mapping[str, str] = NO_ALIASES, keys: str = "role content"
) -> Message:
    """One turn; arguments as for `parse_messages`."""
    role_key, content_key = keys.split()
    for pair in TURN_KEYS:
        if isinstance(turn, dict) and role_key not in turn and turn.keys() >= set(pair):
            role_key, content_key = pair
    has_content = isinstance(turn, dict) and (content_key in turn or turn.keys() & CALL_KEYS)
    if not has_content or role_key not in turn:
        raise Malformed(f"a turn of '{name}' has no '{role_key}' and '{content_key}'")
    role = _role(turn[role_key], roles, name, role_key)
    read = {role_key, content_key, "role", "content", *CALL_KEYS}
    others = {key: value for key, value in turn.items() if key not in read and value is not None}
    calls = parse_tool_calls(turn, name)
    if calls:
        others["tool_calls"] = calls
    content = _content_text(turn.get(content_key), name, content_key)
    if content is None and not calls:
        raise wrong_type(f"'{content_key}' in '{name}'", "text", content)
    return {"role": role, "content": content or "", **others}


def _role(value: Any, roles: Mapping[str, str], name: str, role_key: str) -> str:
    """The usual name of a role, in any letter case."""
    row_role = str(value)
    for spelling in (row_role, row_role.strip().lower()):
        role = roles.get(spelling) or ROLE_ALIASES.get(spelling, spelling)
        if role in ROLES:
            return role
    raise Malformed(f"a turn of '{name}' has the unknown {role_key} {row_role[:40]!r}")


def _content_text(content: Any, name: str, content_key: str) -> str | None:
    """The content of a turn as text: of a list, its text parts joined."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong_type(f"'{content_key}' in '{name}'", "text", content)
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        if kind not in TEXT_PARTS:
            raise SetAside(f"a turn of '{name}' has a part of type {str(kind)[:40]!r}, not text")
        if not isinstance(part.get("text"), str):
            raise Malformed(f"a text part of a turn of '{name}' has no 'text'")
        for key, value in part.items():
            if plain_name(key) in MEDIA_PARTS and holds_something(value):
                raise SetAside(f"a turn of '{name}' has a part with {key!r}, not only text")
        texts.append(part["text"])
    return "".join(texts)


def check_prompt(prompt: Text) -> Text:
    """The prompt, unless it is empty."""
    contents = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
    if not any(content.strip() for content in contents):
        raise Malformed("empty prompt")
    return prompt


def check_response(response: Text) -> Text:
    """The response up to its last assistant turn, unless there is nothing to train on."""
    if isinstance(response, str):
        answers = [response]
    else:
        assistants = [turn for turn in response if turn["role"] == "assistant"]
        if response and not assistants:
            raise Malformed("no assistant turn")
        answers = [_words(turn) for turn in assistants]
    if not any(words.strip() for words in answers):
        raise Malformed("empty response")
    if isinstance(response, str):
        return response
    for turn, words in zip(assistants, answers, strict=True):
        if not words.strip() and is_learned(turn):
            raise SetAside("an assistant turn without words, calls or thoughts")
    roles = [turn["role"] for turn in response]
    return response[: len(roles) - roles[::-1].index("assistant")]


def _words(turn: Message) -> str:
    """What an assistant turn says, thinks and calls."""
    thoughts = [str(turn[key]) for key in THOUGHTS_KEYS if turn.get(key)]
    calls = ["call" for _ in turn.get("tool_calls", ())]
    return " ".join([turn["content"], *thoughts, *calls])


def check_same_type(prompt: Text, response: Text, prompt_name: str, response_name: str) -> None:
    """Require that both columns are text, or both messages."""
    if isinstance(prompt, str) != isinstance(response, str):
        raise Malformed(f"one of '{prompt_name}' and '{response_name}' is text, the other messages")


def other_fields(row: Row, *names: str) -> Row:
    """The columns other than ``names``, which the format reads."""
    return {name: value for name, value in row.items() if name not in names}
