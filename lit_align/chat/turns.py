"""The keys of a turn: its words, its thoughts, its tool calls, and whether it is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_align.errors import Malformed, SetAside
from lit_align.literals import parse_literal
from lit_align.types import Message

THOUGHTS_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names of the key with an assistant's thoughts: aliases of each other."""

LEARNED_KEYS = ("weight", "train", "training", "trainable", "loss", "loss_mask")
"""Names of the key that says whether an assistant turn is learned: false or 0 means that it is only read."""

THOUGHTS_END = "</think>"


def split_thoughts(turn: Message) -> tuple[str, str]:
    """Thoughts and answer of an assistant turn; thoughts may also stand in the content, before ``</think>``.

    Raises:
        Malformed: if two keys hold different thoughts.

    Example:
        >>> split_thoughts({"role": "assistant", "content": "<think>Two pairs.</think>Four."})
        ('Two pairs.', 'Four.')
    """
    thoughts = {str(turn[key]) for key in THOUGHTS_KEYS if turn.get(key)}
    if len(thoughts) > 1:
        raise Malformed("a turn has different thoughts under two keys")
    content = turn["content"]
    if thoughts:
        return thoughts.pop(), content
    inline, mark, answer = content.rpartition(THOUGHTS_END)
    if not mark:
        return "", content
    return inline.strip().removeprefix("<think>").strip(), answer.strip()


def is_learned(turn: Message) -> bool:
    """Whether a turn of the assistant is learned, by its own keys.

    Raises:
        SetAside: if a weight is neither 0 nor 1.

    Example:
        >>> is_learned({"role": "assistant", "content": "Pluto.", "weight": 0})
        False
    """
    if turn["role"] != "assistant":
        return False
    learned = True
    for key in LEARNED_KEYS:
        value = turn.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            raise SetAside(
                f"a turn has the {key} {value!r}; a turn is learned (1) or only read (0)"
            )
        learned &= bool(value)
    return learned


def parse_tool_calls(turn: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The tool calls of a turn, each as ``{"type": "function", "function": {"name": ..., "arguments": ...}}``.

    Calls without ``function`` around them, text in JSON or Python, and the older ``function_call`` are accepted too.

    Args:
        turn: as read.
        name: its column, for error messages.

    Raises:
        Malformed: if they are no list of calls, or a call has no name.

    Example:
        >>> parse_tool_calls({"tool_calls": [{"name": "look", "arguments": "{}"}]}, "messages")
        [{'type': 'function', 'function': {'name': 'look', 'arguments': '{}'}}]
    """
    calls = turn.get("tool_calls") or turn.get("function_call") or []
    if isinstance(calls, str):
        calls = _parse_calls(calls, name)
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list):
        raise Malformed(f"the tool calls of '{name}' are no list (got {type(calls).__name__})")
    parsed = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Malformed(f"a tool call of '{name}' has no function name")
        outer = {
            key: value for key, value in call.items() if "function" in call and value is not None
        }
        arguments = function.get("arguments")
        if arguments is None:
            arguments = function.get("parameters") or {}
        function = {"name": function["name"], "arguments": arguments}
        parsed.append({**outer, "type": "function", "function": function})
    return parsed


def _parse_calls(text: str, name: str) -> Any:
    try:
        return parse_literal(text)
    except ValueError as error:
        raise Malformed(
            f"the tool calls of '{name}' are text that is neither JSON nor a Python literal"
        ) from error
