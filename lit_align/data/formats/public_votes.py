"""Public sets with two responses and a vote between them, by a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import bool_field, number, other_fields, required
from lit_align.data.formats.preferences import Preferences
from lit_align.errors import Malformed, SetAside
from lit_align.jsonl import parse_json
from lit_align.types import Group, LabelKind, Message

STRONGEST = 3  # of HelpSteer's preferences
FIRST_WINS = {"model_a", "response_a", "a", "assistant_a"}
SECOND_WINS = {"model_b", "response_b", "b", "assistant_b"}
TIES = {"tie", "both_bad", "tie (bothbad)", "tie (both bad)", "both_good"}


class Vote(NamedTuple):
    """Which response is better, and by how much in the annotator's units; ``first_wins`` is None for a tie."""

    first_wins: bool | None
    margin: float = 0.0


class VoteColumns(NamedTuple):
    """How to read a set: its columns, its vote, and where it is published.

    Args:
        prompt: the column with the prompt; empty where both responses are whole conversations.
        responses: the columns with the two responses.
        labels: the columns that the vote is read from; the first one must be there.
        vote: reads it.
        source: address of the set; empty for a general layout.
    """

    prompt: str
    responses: tuple[str, str]
    labels: tuple[str, ...]
    vote: Callable[[Row], Vote]
    source: str

    def columns_by_role(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns with the prompt, the responses and the vote."""
        prompt = (self.prompt,) if self.prompt else ()
        return {"prompt": prompt, "responses": self.responses, "label": self.labels}

    @property
    def columns(self) -> set[str]:
        """The columns by which a row is recognised."""
        return {self.prompt, *self.responses, self.labels[0]} - {""}


def signed_vote(column: str) -> Callable[[Row], Vote]:
    """Reads a number from -3 to 3 that is below 0 where the first response is better; its size is the margin."""

    def vote(row: Row) -> Vote:
        strength = number(required(row, column), f"'{column}'")
        if abs(strength) > STRONGEST:
            raise Malformed(f"'{column}' is not from -{STRONGEST} to {STRONGEST}")
        return Vote(strength < 0 if strength else None, abs(strength))

    return vote


def named_vote(row: Row) -> Vote:
    """Reads the name of the winner in the column ``winner``: ``model_a``, or what stands in the column ``model_a``."""
    winner = str(required(row, "winner")).strip().lower()
    if winner in TIES:
        return Vote(None)
    models = [str(row.get(name)).strip().lower() for name in ("model_a", "model_b")]
    if models.count(winner) == 1:
        return Vote(winner == models[0])
    if winner not in FIRST_WINS | SECOND_WINS:
        raise Malformed(f"'winner' is none of model_a, model_b and tie (got {winner[:40]!r})")
    return Vote(winner in FIRST_WINS)


def flagged_vote(row: Row) -> Vote:
    """Reads 1 and 0 in ``winner_model_a``, ``winner_model_b`` and ``winner_tie``."""
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    flags = [bool_field(row, name) for name in names]
    if sum(flags) != 1:
        raise Malformed("not exactly one of winner_model_a, winner_model_b and winner_tie is 1")
    return Vote(None if flags[2] else flags[0])


def upvotes(row: Row) -> Vote:
    """Reads SHP's ``labels`` (1: the first is better); the margin is the log of ``score_ratio``."""
    ratio = number(row.get("score_ratio") or 1.0, "'score_ratio'")
    if ratio < 1:
        raise Malformed("'score_ratio' is below 1")
    first_wins = bool_field(row, "labels")
    if row.get("score_A") is not None and row.get("score_B") is not None:
        difference = number(row["score_A"], "'score_A'") - number(row["score_B"], "'score_B'")
        if difference and (difference > 0) != first_wins:
            raise Malformed("'labels' contradicts 'score_A' and 'score_B'")
    return Vote(first_wins, math.log(ratio))


def scored_vote(row: Row) -> Vote:
    """Reads ``score_0`` and ``score_1``; the margin is their difference."""
    difference = number(required(row, "score_0"), "'score_0'")
    difference -= number(required(row, "score_1"), "'score_1'")
    return Vote(difference > 0 if difference else None, abs(difference))


LAYOUTS = (
    VoteColumns(
        "context",
        ("response1", "response2"),
        ("overall_preference",),
        signed_vote("overall_preference"),
        "https://huggingface.co/datasets/nvidia/HelpSteer3",
    ),
    VoteColumns(
        "prompt",
        ("response_1", "response_2"),
        ("preference_strength",),
        signed_vote("preference_strength"),
        "https://huggingface.co/datasets/nvidia/HelpSteer2",
    ),
    VoteColumns(
        "",
        ("conversation_a", "conversation_b"),
        ("winner",),
        named_vote,
        "https://huggingface.co/datasets/lmsys/chatbot_arena_conversations",
    ),
    VoteColumns(
        "prompt",
        ("response_a", "response_b"),
        ("winner_model_a", "winner_model_b", "winner_tie"),
        flagged_vote,
        "https://huggingface.co/datasets/lmsys/lmsys-arena-human-preference-55k",
    ),
    VoteColumns(
        "prompt",
        ("response_a", "response_b"),
        ("winner",),
        named_vote,
        "",
    ),
    VoteColumns(
        "history",
        ("human_ref_A", "human_ref_B"),
        ("labels", "score_ratio", "score_A", "score_B"),
        upvotes,
        "https://huggingface.co/datasets/stanfordnlp/SHP",
    ),
    VoteColumns(
        "question",
        ("answer_0", "answer_1"),
        ("score_0", "score_1"),
        scored_vote,
        "https://huggingface.co/datasets/openai/webgpt_comparisons",
    ),
)


@dataclass(frozen=True)
class PublicVotes(Format):
    """Two responses and a vote, as HelpSteer2 and 3, Chatbot Arena, SHP and WebGPT have them; ties are set aside.

    The table ``LAYOUTS`` has the names. The margin is the size of HelpSteer's preference, the difference of WebGPT's
    scores, and the log of SHP's ratio of scores.

    Example:
        >>> row = {"context": "2 + 2?", "response1": "5", "response2": "4", "overall_preference": 2}
        >>> PublicVotes()(row)[1:3]
        (['4', '5'], (Pair(better=0, worse=1, probability=1.0, margin=2.0),))
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """The columns of one of the sets."""
        return _layout_of(row) is not None

    def __call__(self, row: Row) -> Group:
        """A group of two responses, the better one first."""
        layout = _layout_of(row) or LAYOUTS[0]
        vote = layout.vote(row)
        if vote.first_wins is None:
            raise SetAside("a tie")
        names = layout.responses if vote.first_wins else layout.responses[::-1]
        questions = _json_texts(row.get(layout.prompt))
        pair: Row = {"margin": vote.margin}
        is_cut = False
        for side, name in zip(("chosen", "rejected"), names, strict=True):
            response = required(row, name)
            pair[side] = _interleave(questions, response, name) if questions else response
            if not layout.prompt:
                pair[side] = _judged_turns(response, row.get("turn"))
                is_cut |= pair[side] != response
        if layout.prompt and not questions:
            pair["prompt"] = _prompt(required(row, layout.prompt))
        group = Preferences()(pair)
        read = [layout.prompt, *layout.responses, *layout.labels]
        if is_cut:
            read.append("turn")
        return group._replace(extra=other_fields(row, *read))


def _layout_of(row: Row) -> VoteColumns | None:
    for layout in LAYOUTS:
        if layout.columns <= row.keys():
            return layout
    return None


def _judged_turns(conversation: Any, turn: Any) -> Any:
    """The conversation up to the answer that was judged, which MT-bench's judgements name in ``turn``."""
    if not isinstance(conversation, list) or type(turn) is not int:
        return conversation  # of another type: `Preferences` says so
    questions = 0
    for position, message in enumerate(conversation):
        questions += isinstance(message, dict) and message.get("role") == "user"
        if questions > turn > 0:
            return conversation[:position]
    return conversation


def _prompt(value: Any) -> Any:
    """The prompt, which WebGPT has in ``full_text``."""
    return required(value, "full_text") if isinstance(value, dict) else value


def _interleave(questions: list[str], response: Any, name: str) -> list[Message]:
    """The conversation of a response whose answers are a JSON list, as the questions are."""
    answers = _json_texts(response)
    if answers is None or len(answers) != len(questions):
        raise Malformed(f"'{name}' is not a JSON list of an answer to each question")
    turns: list[Message] = []
    for question, answer in zip(questions, answers, strict=True):
        turns.append({"role": "user", "content": question})
        turns.append({"role": "assistant", "content": answer})
    return turns


def _json_texts(value: Any) -> list[str] | None:
    """The texts of a JSON list, as the 55k set writes its turns; None for anything else."""
    if not isinstance(value, str) or not value.startswith("["):
        return None
    try:
        texts = parse_json(value)
    except ValueError:
        return None
    if not isinstance(texts, list) or not any(isinstance(text, str) for text in texts):
        return None
    if not all(isinstance(text, str) for text in texts):
        raise Malformed("a turn of a JSON list is not text")
    return texts


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(PublicVotes)
