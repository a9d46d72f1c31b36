"""Comparisons as TRL documents them: https://huggingface.co/docs/trl/dataset_formats#preference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.cell_text import contents, squeeze
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_response,
    check_same_type,
    number,
    other_fields,
    text_or_messages,
)
from lit_align.data.formats.known_columns import may_be_prompt
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, LabelKind, Message, Pair, Text

SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)
"""Columns of public sets with the scores that the better and the worse response were chosen by."""
SPEAKERS = ("Human:", "Assistant:", "System:")
PAIR = ("prompt", "chosen", "rejected")
OTHER_FORMATS = {"conversations", "responses"}
OTHER_PROMPTS = {"question", "input"}
REWARD_BENCH = {"prompt", "chosen_model", "rejected_model", "subset"}


@dataclass(frozen=True)
class Preferences(Format):
    """Columns ``chosen`` and ``rejected``, with ``prompt`` or with the prompt at the start of both.

    All three are text or messages. Without ``prompt``, the prompt is what both responses begin with: whole turns, or
    whole words. A number in ``margin`` says by how much the chosen one is better.

    Example:
        >>> Preferences()({"chosen": "The sky is blue.", "rejected": "The sky is green."})[:2]
        ('The sky is', [' blue.', ' green.'])
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """``chosen`` and ``rejected``, unless a more specific format has these columns."""
        if not {"chosen", "rejected"} <= row.keys():
            return False
        if row.keys() & OTHER_FORMATS or row.keys() >= REWARD_BENCH:
            return False
        if "instruction" in row and isinstance(row["chosen"], str):
            return False
        if "prompt" not in row and row.keys() & OTHER_PROMPTS:
            return False
        is_pair = all(isinstance(row[name], str | list) for name in ("chosen", "rejected"))
        is_list = any(map(is_list_of_texts, (row["chosen"], row["rejected"])))
        return is_pair and not is_list and ("prompt" in row or not is_dialogue(row["chosen"]))

    def __call__(self, row: Row) -> Group:
        """A group of two responses."""
        chosen = text_or_messages(row, "chosen")
        rejected = text_or_messages(row, "rejected")
        continues = row.get("prompt") is None and isinstance(chosen, str)
        if row.get("prompt") is None:
            if continues:
                _check_no_question(row)
            prompt, chosen, rejected = split_prompt(chosen, rejected)
        else:
            prompt = text_or_messages(row, "prompt")
            prompt, chosen, rejected = _unify(prompt, chosen, rejected)
        margin = number(row.get("margin") or 0.0, "'margin'")
        extra = other_fields(row, "prompt", "chosen", "rejected", "margin")
        group = pair_group(prompt, chosen, rejected, extra, margin)
        return group._replace(continues=continues)

    def note(self, row: Row) -> str:
        """Whether scores beside the responses say that they tie, or that the rejected one is better."""
        if number(row.get("margin") or 0.0, "'margin'") < 0:
            return "'margin' is below 0"
        for chosen, rejected in SCORES:
            if row.get(chosen) is None or row.get(rejected) is None:
                continue
            try:
                difference = number(row[chosen], "a score") - number(row[rejected], "a score")
            except Malformed:
                continue
            if difference <= 0:
                relation = "is below" if difference else "equals"
                return f"'{chosen}' {relation} '{rejected}'"
        return ""


def is_list_of_texts(value: Any) -> bool:
    """Whether the value is a list of texts, which are no turns."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def is_dialogue(value: Any) -> bool:
    """Whether the value is a dialogue as text, in the format of HH-RLHF."""
    return isinstance(value, str) and value.lstrip().startswith(SPEAKERS)


def pair_group(
    prompt: Text, chosen: Text, rejected: Text, extra: Row, margin: float = 0.0
) -> Group:
    """A group of two responses of which the first is better.

    Raises:
        Malformed: if prompt or a response is empty, or both responses are the same.
    """
    responses = [check_response(chosen), check_response(rejected)]
    if responses[0] == responses[1]:
        raise Malformed("chosen equals rejected")
    return Group(check_prompt(prompt), responses, (Pair(0, 1, margin=margin),), extra=extra)


def split_prompt(chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """The turns or words that both begin with, and what follows them in each; none of the three is empty.

    Example:
        >>> split_prompt("Ask the great", "Ask the green one")
        ('Ask the', ' great', ' green one')
    """
    if chosen == rejected:
        raise Malformed("chosen equals rejected")
    check_same_type(chosen, rejected, "chosen", "rejected")
    end = _common_length(chosen, rejected)
    if isinstance(chosen, str):
        end = _word_start(chosen, end)
    if not end:
        raise Malformed("chosen and rejected have no prompt in common")
    return chosen[:end], chosen[end:], rejected[end:]


def _common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Length of the common beginning, leaving at least one item of each."""
    longest = max(min(len(first), len(second)) - 1, 0)
    for i in range(longest):
        if first[i] != second[i]:
            return i
    return longest


def _word_start(text: str, position: int) -> int:
    """Start of the word at ``position``, with its space: tokenizers keep a space with the word after it."""
    while position and not text[position - 1].isspace():
        position -= 1
    return position - 1 if position and text[position - 1] == " " else position


def _check_no_question(row: Row) -> None:
    """Refuse to take the prompt from the responses of a row that may have it in another column."""
    for name, value in row.items():
        if name not in PAIR and may_be_prompt(name, value):
            raise SetAside(
                f"there is no column 'prompt', and '{name}' may be it; set data.columns: {{prompt: {name}}}, or list "
                "it in data.ignore_columns"
            )


def _unify(prompt: Text, chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """Prompt and responses all as text or all as messages, the prompt not repeated in the responses."""
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        if is_dialogue(chosen) and chosen.startswith(prompt) and rejected.startswith(prompt):
            return prompt, chosen[len(prompt) :], rejected[len(prompt) :]
        return prompt, chosen, rejected
    chosen_turns, rejected_turns = _as_turns(chosen), _as_turns(rejected)
    if isinstance(prompt, str):
        if _starts_with_question(chosen_turns) and _starts_with_question(rejected_turns):
            # both are whole conversations, and the prompt repeats a turn that they begin with
            split = split_prompt(chosen_turns, rejected_turns)
            _check_repeats(prompt, split[0])
            return split
        prompt = [{"role": "user", "content": prompt}]
    length = len(prompt)
    if chosen_turns[:length] == prompt and rejected_turns[:length] == prompt:
        return prompt, chosen_turns[length:], rejected_turns[length:]
    return prompt, chosen_turns, rejected_turns


def _check_repeats(prompt: str, turns: Text) -> None:
    """Refuse a prompt that is none of the turns before the responses: which of the two is meant, nobody can know."""
    texts = contents(turns)
    if any(content in prompt for content in texts if content.strip()):  # most often, and fast
        return
    text = squeeze(prompt)
    for content in texts:
        turn = squeeze(content)
        if turn and (turn in text or text in turn):
            return
    raise SetAside("'prompt' is no part of the conversations in 'chosen' and 'rejected'")


def _as_turns(response: Text) -> list[Message]:
    return [{"role": "assistant", "content": response}] if isinstance(response, str) else response


def _starts_with_question(turns: list[Message]) -> bool:
    return bool(turns) and turns[0]["role"] != "assistant"


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Preferences)
