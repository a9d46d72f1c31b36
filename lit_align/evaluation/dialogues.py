"""Questions of several turns, as MT-bench has them (Zheng et al., 2023, https://arxiv.org/abs/2306.05685)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lit_align.checks import check_at_least
from lit_align.errors import Malformed
from lit_align.evaluation.suite.base import AskedModel, FileTask, Row, first_samples
from lit_align.types import Message, Text


@dataclass(frozen=True)
class DialogueTask(FileTask):
    """Asks the turns of each row, each after the answers before it.

    Args:
        max_new_tokens: longest answer to one turn.
    """

    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("max_new_tokens", self.max_new_tokens, 1)

    def parse(self, row: Row) -> Row:
        """The user's turns."""
        turns = parse_turns(row)
        return {"prompt": turns[0], "turns": turns}

    def respond(self, model: AskedModel, rows: Sequence[Row], places: Sequence[int]) -> list[Any]:
        """The answers to all turns."""
        return answer_dialogues(model, rows, places, max_new_tokens=self.max_new_tokens)


def parse_turns(row: Row) -> list[str]:
    """The user's turns of a row: its ``turns`` (MT-bench's own file) or ``prompt``, a list of texts or one text.

    Raises:
        Malformed: if it has neither, or other things in them.

    Example:
        >>> parse_turns({"turns": ["Name a bird.", "And a fish."]}), parse_turns({"prompt": "Name a bird."})
        (['Name a bird.', 'And a fish.'], ['Name a bird.'])
    """
    for name in ("turns", "prompt", "question"):
        value = row.get(name)
        if value is None:
            continue
        turns = [value] if isinstance(value, str) else value
        if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
            turns = [turn.get("content") for turn in turns if turn.get("role") == "user"]
        if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
            raise Malformed(f"its {name} is {value!r}, not the text of one turn or of several")
        return list(turns)
    raise Malformed(f"it has no turns, prompt or question, only {', '.join(row)}")


def answer_dialogues(
    model: AskedModel, rows: Sequence[Row], places: Sequence[int], **overrides: Any
) -> list[list[str]]:
    """The answers to all turns of each row, ``[row][turn]``; each turn is asked after the answers before it.

    Args:
        model: that answers.
        rows: with ``turns``.
        places: of the rows among all.
        overrides: settings of a `SamplingRequest`.
    """
    answers: list[list[str]] = [[] for _ in rows]
    for turn in range(max(len(row["turns"]) for row in rows)):
        numbers = [number for number, row in enumerate(rows) if len(row["turns"]) > turn]
        prompts: list[Text] = []
        for number in numbers:
            prompts.append(conversation(rows[number]["turns"][: turn + 1], answers[number]))
        places_of_turn = [places[number] for number in numbers]
        texts = first_samples(model.answer(prompts, places_of_turn, **overrides))
        for number, text in zip(numbers, texts, strict=True):
            answers[number].append(text)
    return answers


def conversation(turns: Sequence[str], answers: Sequence[str]) -> list[Message]:
    """The user's turns with the answers between them."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        messages.append({"role": "user", "content": turn})
        if number < len(answers):
            messages.append({"role": "assistant", "content": answers[number]})
    return messages


def transcript(turns: Sequence[str], answers: Sequence[str]) -> str:
    r"""What a judge reads as the response to the first turn: the answers, with the later turns between them.

    Example:
        >>> transcript(["Name a bird.", "And a fish."], ["An owl.", "A cod."])
        'An owl.\n\n[user] And a fish.\n\n[assistant] A cod.'
    """
    parts = [answers[0]]
    for turn, answer in zip(turns[1:], answers[1:], strict=False):
        parts += [f"[user] {turn}", f"[assistant] {answer}"]
    return "\n\n".join(parts)
