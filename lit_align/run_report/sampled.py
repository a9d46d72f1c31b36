"""What a run sampled while it trained: how its model answered the same prompts, or scored them, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lit_align.jsonl import read_jsonl_so_far

SAMPLE_ANSWERS, SAMPLE_SCORES = "sample_answers.jsonl", "sample_scores.jsonl"


class Sampled(NamedTuple):
    """First and last samples of a run.

    Args:
        first_step: at which the first were taken.
        last_step: at which the last were taken; the same if there are no others.
        rows: prompt, response, whether it is a preferred one, and the answer or score at the first and the last step.
            The response is empty where the model answered itself.
    """

    first_step: int
    last_step: int
    rows: list[tuple[str, str, bool, Any, Any]]


def read_sampled(folder: Path) -> Sampled | None:
    """The samples in the folder of a run; None if it took none."""
    for name in (SAMPLE_ANSWERS, SAMPLE_SCORES):
        rows = read_jsonl_so_far(folder / name)
        if rows:
            return first_and_last(rows)
    return None


def first_and_last(rows: list[dict[str, Any]]) -> Sampled:
    """The samples of the first step beside those of the last one, for prompts that are in the last."""
    first_step, last_step = rows[0]["step"], rows[-1]["step"]
    before: dict[tuple[str, str], Any] = {}
    pairs: list[tuple[str, str, bool, Any, Any]] = []
    for row in rows:
        for response, is_preferred, value in _values(row):
            key = (row["source"], response)
            if row["step"] == first_step:
                before[key] = value
            if row["step"] == last_step:
                prompt = last_message(row["prompt"])
                pairs.append((prompt, response, is_preferred, before.get(key), value))
    return Sampled(first_step, last_step, pairs)


def last_message(prompt: str | list[dict[str, Any]]) -> str:
    """A prompt, or its last message."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def scored_responses(row: Mapping[str, Any]) -> Iterator[tuple[str, float, bool]]:
    """Text, score and whether it is preferred, of each response in a row of scores."""
    flags = row["preferred"]
    for text, score, is_preferred in zip(row["responses"], row["scores"], flags, strict=True):
        yield text, score, is_preferred and not all(flags)


def _values(row: Mapping[str, Any]) -> Iterator[tuple[str, bool, Any]]:
    """Response, whether it is preferred, and its score; or no response, and the answer."""
    if "scores" not in row:
        answer = row["response"] if row["ended"] else f"{row['response']} (cut off)"
        yield "", False, answer
        return
    for text, score, is_preferred in scored_responses(row):
        yield text, is_preferred, score
