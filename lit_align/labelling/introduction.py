"""What annotators read and try before their first task: the guidelines, and examples with their answers."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_align.errors import ConfigError
from lit_align.labelling.campaign import gold_answer, task_members
from lit_align.labelling.votes import answer_values
from lit_align.types import Group, Text

EXPLANATION = "explanation"
"""Column of an example that says why its answer is right."""


class Example(NamedTuple):
    """A task to practise on; answers to it are no votes.

    Args:
        kind: how it is answered.
        prompt: the prompt.
        responses: the responses as shown.
        order: index in the group of each response.
        answer: the right answer, about the responses as shown.
        explanation: why it is right; empty if the row does not say.
    """

    kind: str
    prompt: Text
    responses: list[Text]
    order: tuple[int, ...]
    answer: dict[str, Any]
    explanation: str

    def is_right(self, answer: Mapping[str, Any]) -> bool:
        """Whether an answer is as good as the right one: the strength does not matter, nor a rating one off."""
        max_error = 1 if self.kind == "rate" else 0
        values = answer_values(self.kind, dict(answer), self.order)
        right_values = answer_values(self.kind, self.answer, self.order)
        return all(abs(values[item] - right_values[item]) <= max_error for item in values)


class Introduction(NamedTuple):
    """What comes before the first task, and stays reachable from each.

    Args:
        guidelines: Markdown; empty if there are none.
        examples: tasks to practise on.
    """

    guidelines: str = ""
    examples: tuple[Example, ...] = ()

    @property
    def digest(self) -> str:
        """Changes with the content, so that everybody reads it again; empty if there is nothing to read."""
        if not self.guidelines and not self.examples:
            return ""
        content = json.dumps([self.guidelines, self.examples])
        return hashlib.sha256(content.encode(errors="replace")).hexdigest()


NO_INTRODUCTION = Introduction()


def read_guidelines(path: str) -> str:
    """The Markdown of the file; empty for no file.

    Raises:
        ConfigError: if it cannot be read, or says nothing.
    """
    if not path:
        return ""
    try:
        guidelines = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"guidelines is {path!r}, which cannot be read: {error}; name a Markdown file in UTF-8"
        ) from error
    if not guidelines.strip():
        raise ConfigError(f"guidelines is {path!r}, which is empty; write into it, or leave it out")
    return guidelines


def make_examples(groups: Sequence[Group], kind: str) -> tuple[Example, ...]:
    """An example of each task that the labels of the groups answer.

    Raises:
        ConfigError: if there is none.
    """
    examples: list[Example] = []
    for group in groups:
        for members in task_members(group, kind):
            answer = gold_answer(group, kind, members, with_ties=True)
            if answer is not None:
                examples.append(_make_example(group, kind, members, answer, len(examples)))
    if not examples:
        raise ConfigError(f"examples have no row with an answer to {kind}; give rows with labels")
    return tuple(examples)


def _make_example(
    group: Group, kind: str, members: tuple[int, ...], answer: dict[str, Any], number: int
) -> Example:
    """The example with its responses in an order that says nothing about their labels."""
    generator = random.Random(f"example {number}")
    order = tuple(generator.sample(members, len(members)))
    if kind == "compare":
        sign = 1 if order == members else -1
        answer = {"preference": sign * answer["preference"], "graded": False}
    if kind == "rank":
        place_of = dict(zip(members, answer["places"], strict=True))
        answer = {"places": [place_of[index] for index in order]}
    return Example(
        kind=kind,
        prompt=group.prompt,
        responses=[group.responses[index] for index in order],
        order=order,
        answer=answer,
        explanation=str(group.extra.get(EXPLANATION) or ""),
    )
