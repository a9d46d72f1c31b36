"""Comparisons as TRL documents them: https://huggingface.co/docs/trl/dataset_formats#preference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import checked_prompt, checked_response, text_or_messages, unused
from lit_align.errors import Malformed
from lit_align.types import Group, Message, Pair, Text


@dataclass(frozen=True)
class Preferences(Format):
    """Columns ``chosen`` and ``rejected``, with ``prompt`` or with the prompt at the start of both.

    All three are text or messages. A prompt that is not given is what both responses begin with: whole turns, or whole
    words. A number in ``margin`` says by how much the chosen one is better.

    Example:
        >>> Preferences()({"chosen": "The sky is blue.", "rejected": "The sky is green."})[:2]
        ('The sky is', [' blue.', ' green.'])
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"pairs", "demonstrations"})

    def recognises(self, row: Row) -> bool:
        """``chosen`` and ``rejected`` that no more specific layout would claim."""
        dialogue = isinstance(row.get("chosen"), str) and row["chosen"].lstrip().startswith(
            "Human:"
        )
        specific = row.keys() & {"conversations", "instruction", "responses"}
        bench = row.keys() >= {"prompt", "chosen_model", "rejected_model", "subset"}
        sides = {"chosen", "rejected"} <= row.keys()
        return sides and not (specific or bench) and not ("prompt" not in row and dialogue)

    def __call__(self, row: Row) -> Group:
        """The row as a group of two."""
        chosen, rejected = text_or_messages(row, "chosen"), text_or_messages(row, "rejected")
        if row.get("prompt") is None:
            prompt, chosen, rejected = split(chosen, rejected)
        else:
            prompt, chosen, rejected = _with_prompt(
                text_or_messages(row, "prompt"), chosen, rejected
            )
        margin = row.get("margin") or 0.0
        if not isinstance(margin, int | float):
            raise Malformed(f"'margin' is not a number (got {type(margin).__name__})")
        return compared(
            prompt,
            chosen,
            rejected,
            unused(row, "prompt", "chosen", "rejected", "margin"),
            float(margin),
        )


def compared(prompt: Text, chosen: Text, rejected: Text, extra: Row, margin: float = 0.0) -> Group:
    """A group of two whose first is better, once it is known to say something."""
    responses = [checked_response(chosen), checked_response(rejected)]
    if chosen == rejected:
        raise Malformed("chosen equals rejected")
    return Group(checked_prompt(prompt), responses, (Pair(0, 1, margin=margin),), extra=extra)


def split(chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """The turns or words that both begin with, and what follows them in each; neither is left empty.

    Example:
        >>> split("Ask the great", "Ask the green one")
        ('Ask the', ' great', ' green one')
    """
    if chosen == rejected:
        raise Malformed("chosen equals rejected")
    if isinstance(chosen, list) and isinstance(rejected, list):
        at = _common(chosen, rejected, lambda at: at)
    elif isinstance(chosen, str) and isinstance(rejected, str):
        text = chosen
        at = _common(chosen, rejected, lambda at: _word(text, at))
    else:
        raise Malformed("one of 'chosen' and 'rejected' is text, the other messages")
    if not at:
        raise Malformed("chosen and rejected have no prompt in common")
    return chosen[:at], chosen[at:], rejected[at:]


def _common(one: Sequence[Any], other: Sequence[Any], boundary: Callable[[int], int]) -> int:
    """Where a response may begin, at or before the first difference and before the end of both."""
    last = min(len(one), len(other)) - 1
    differs = next((i for i in range(max(last, 0)) if one[i] != other[i]), max(last, 0))
    return boundary(differs)


def _word(text: str, at: int) -> int:
    """Start of the word at ``at``, with its space: tokenizers keep a space with the word after it."""
    while at and not text[at - 1].isspace():
        at -= 1
    return at - 1 if at and text[at - 1] == " " else at


def _with_prompt(prompt: Text, chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """Prompt and responses all as text or all as messages, the prompt not repeated in the responses."""
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return prompt, chosen, rejected
    turns = [_turns(chosen), _turns(rejected)]
    if isinstance(prompt, str):
        if all(turn[:1] and turn[0]["role"] != "assistant" for turn in turns):
            return split(
                *turns
            )  # the whole conversation, its first user turn once more as the prompt
        prompt = [{"role": "user", "content": prompt}]
    shared = len(prompt)
    if all(turn[:shared] == prompt for turn in turns):
        turns = [turn[shared:] for turn in turns]
    return prompt, turns[0], turns[1]


def _turns(response: Text) -> list[Message]:
    """A response as messages."""
    return [{"role": "assistant", "content": response}] if isinstance(response, str) else response


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(Preferences)
