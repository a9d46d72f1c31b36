"""Check of what every judge model must satisfy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import partial
from typing import Any, NamedTuple

from lit_align.judges import JudgeModel, Reply
from lit_align.plugin_contracts import replies_fault
from lit_align.plugin_signatures import signature_fault
from lit_align.plugin_wrapping import wrapping_fault
from lit_align.testing.objective_checks import call, hold, require
from lit_align.testing.refusals import require_refusals

QUESTIONS = (
    "Which is a bird, an owl (A) or a stone (B)?",
    "Which is shorter?\n\nA: 🦉 بومة\n\nB: <b>owl</b>",
    "Is a bat a bird? " * 20,
)
OPTIONS = ("A", "B", "C")
MAX_TOKENS = 8
TOLERANCE = 1e-3
"""Of a probability, in float32: a model that reads questions side by side adds numbers in another order."""


class _Checked(NamedTuple):
    """A judge, of which each answer is looked at.

    Args:
        judge: to ask.
        tolerance: of a probability.
    """

    judge: JudgeModel
    tolerance: float

    def choose(self, questions: Sequence[str], options: Sequence[str]) -> list[Reply]:
        """Replies that choose among options."""
        return self._ask(self.judge.choose_option, questions, options, num_options=len(options))

    def write(self, questions: Sequence[str]) -> list[Reply]:
        """Replies that are texts."""
        return self._ask(self.judge.generate, questions, MAX_TOKENS)

    def _ask(
        self,
        method: Callable[..., list[Reply]],
        questions: Sequence[str],
        argument: object,
        num_options: int = 0,
    ) -> list[Reply]:
        before = list(questions)
        replies = call(self.judge, method, questions, argument)
        hold(replies_fault(self.judge, replies, len(before), num_options))
        name = type(self.judge).__name__
        require(list(questions) == before, f"{name} changes the list of questions that it is given")
        return replies


def check_judge(
    judge: JudgeModel,
    questions: Sequence[str] = QUESTIONS,
    options: Sequence[str] = OPTIONS,
    refused: Sequence[Callable[[], object]] = (),
    tolerance: float = TOLERANCE,
) -> None:
    """Fail unless ``judge`` replies to each question with probabilities of its options, or a reason, and with a text.

    A reply may depend on its question alone: it must be the same in a second call, when questions come in another order
    and when one comes alone, and a probability must stay with its option when the options are listed the other way
    round. To no questions there are no replies, which is tried too. What a reply took must be JSON. A judge that asks
    another one must name it in ``wrapped``.

    Args:
        judge: with the settings to check it at, and a model if it needs one.
        questions: to ask.
        options: that it chooses from.
        refused: calls that make the judge with settings that it must refuse.
        tolerance: of a probability between two calls, and of the sum of a reply's; a model in bfloat16, whose numbers
            have 8 bits, needs more than the default, such as 0.05.

    Raises:
        AssertionError: if a property does not hold.

    Example:
        >>> from dataclasses import dataclass
        >>> from lit_align.judges import JudgeModel, Reply
        >>> @dataclass(frozen=True)
        ... class Undecided(JudgeModel):
        ...     def choose_option(self, questions, options):
        ...         share = 1 / len(options)
        ...         return [Reply((share,) * len(options), "", {}) for _ in questions]
        ...
        ...     def generate(self, questions, max_tokens):
        ...         return [Reply(None, "I cannot tell.", {}) for _ in questions]
        >>> check_judge(Undecided())
    """
    name = type(judge).__name__
    hold(signature_fault(judge))
    require(is_dataclass(judge), f"{name} is no dataclass, whose fields are its settings")
    hold(call(judge, wrapping_fault, judge))
    require_refusals(name, refused)
    checked = _Checked(judge, tolerance)
    _check_choices(checked, list(questions), options)
    _check_texts(checked, list(questions))


def _check_choices(checked: _Checked, questions: list[str], options: Sequence[str]) -> None:
    name, tolerance = type(checked.judge).__name__, checked.tolerance
    choose = partial(checked.choose, options=options)
    replies = choose(questions)
    for reply in replies:
        _check_choice(name, reply, tolerance)
    _check_repetitions(f"{name}.choose_option", choose, questions, replies, tolerance)
    reversed_options = [_backwards(reply) for reply in checked.choose(questions, options[::-1])]
    _require_same(
        f"{name}.choose_option gives options other probabilities when they are listed the other way round; a "
        "probability is that of its option, not of its place",
        reversed_options,
        replies,
        tolerance,
    )


def _check_texts(checked: _Checked, questions: list[str]) -> None:
    name = type(checked.judge).__name__
    replies = checked.write(questions)
    for reply in replies:
        _check_text(name, reply)
    _check_repetitions(f"{name}.generate", checked.write, questions, replies, checked.tolerance)


def _check_repetitions(
    method: str,
    ask: Callable[[Sequence[str]], list[Reply]],
    questions: list[str],
    replies: list[Reply],
    tolerance: float,
) -> None:
    repetitions = {
        "in a second call": ask(questions),
        "in another order": ask(questions[::-1])[::-1],
        "one by one": [ask([question])[0] for question in questions],
    }
    for condition, repeated in repetitions.items():
        _require_same(f"{method} replies otherwise {condition}", repeated, replies, tolerance)
    ask([])


def _check_choice(name: str, reply: Reply, tolerance: float) -> None:
    _check_record(name, reply)
    probabilities = reply.probabilities
    if probabilities is None:
        require(
            bool(reply.reason), f"{name} gives no probabilities, and no reason; say why in reason"
        )
        return
    is_share = all(math.isfinite(p) and 0 <= p <= 1 for p in probabilities)
    require(
        is_share and abs(sum(probabilities) - 1) < tolerance,
        f"{name} gives the probabilities {probabilities}; each is from 0 to 1, and they sum to 1",
    )


def _check_text(name: str, reply: Reply) -> None:
    _check_record(name, reply)
    require(
        reply.probabilities is None,
        f"{name}.generate gives the probabilities {reply.probabilities}, and there are no options; give None",
    )
    require(
        bool(reply.text or reply.reason),
        f"{name}.generate gives no text, and no reason; say why in reason",
    )


def _check_record(name: str, reply: Reply) -> None:
    require(
        isinstance(reply.text, str) and isinstance(reply.reason, str),
        f"{name} gives the text {reply.text!r} for the reason {reply.reason!r}; both are texts, empty if there is none",
    )
    require(
        isinstance(reply.record, dict), f"{name} gives the record {reply.record!r}; give a dict"
    )
    try:
        json.dumps(reply.record)
    except TypeError as error:
        raise AssertionError(f"{name} gives a record that is not JSON: {error}") from error


def _backwards(reply: Reply) -> Reply:
    if reply.probabilities is None:
        return reply
    return reply._replace(probabilities=reply.probabilities[::-1])


def _require_same(fault: str, actual: list[Reply], expected: list[Reply], tolerance: float) -> None:
    for reply, other in zip(actual, expected, strict=True):
        require(
            _is_same(reply, other, tolerance),
            f"{fault}: {_shown(reply)}, and {_shown(other)} before",
        )


def _is_same(reply: Reply, other: Reply, tolerance: float) -> bool:
    """Whether a verdict and a text are the same; what it took may differ."""
    left, right = reply.probabilities, other.probabilities
    if left is None or right is None:
        return left == right and reply.text == other.text
    return all(abs(p - q) < tolerance for p, q in zip(left, right, strict=True))


def _shown(reply: Reply) -> Any:
    return reply.text if reply.probabilities is None else reply.probabilities
