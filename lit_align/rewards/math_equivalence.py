"""Reward for an answer that equals the reference as mathematics, by the package math-verify (https://github.com/huggingface/Math-Verify)."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError, DataError
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text

SECONDS = 20
"""For one parse or comparison. Math-verify reads it off the wall clock and takes what is late for wrong: here such a
response is not scored, so that a busy machine changes no verdict."""

FORMULA = re.compile(r"[\\^_=+*/()]")
"""What no plain number or word has."""


@dataclass(frozen=True)
class MathEquivalence(Reward):
    r"""1 for a response whose answer equals the reference answer, as in 1/2 and \boxed{0.5}; 0 for another.

    The answer is the last LaTeX or plain expression of the response, a boxed one first. A response is not scored if its
    row's reference answer cannot be read as mathematics, or if a comparison takes too long. It needs
    ``pip install lit-align[maths]``.

    Args:
        column: of the data, with the reference answer; LaTeX or plain.
        after: the answer is what follows this marker in the column; all of it where the marker is missing.

    Raises:
        ConfigError: if math-verify is not installed.
        DataError: at a prompt whose row lacks the column.
    """

    column: str = "answer"
    after: str = "####"

    def __post_init__(self) -> None:
        if find_spec("math_verify") is None:
            raise ConfigError(
                "MathEquivalence needs the package math-verify, which is not installed; pip install "
                "'lit-align[maths]', or use LastNumber"
            )

    def can_split(self) -> bool:
        return True

    def __call__(self, groups: Sequence[Group]) -> Scores:
        verdicts: list[bool | None] = []
        for group in groups:
            if self.column not in group.extra:
                raise DataError(
                    f"{group.source} has no column {self.column!r}; name another for MathEquivalence"
                )
            gold = str(group.extra[self.column]).rpartition(self.after)[2].strip()
            for response in group.responses:
                verdicts.append(_is_equal(gold, response_text(response)))
        scored = torch.tensor([verdict is not None for verdict in verdicts])
        return Scores(torch.tensor([float(bool(verdict)) for verdict in verdicts]), scored=scored)


def _is_equal(gold: str, text: str) -> bool | None:
    """Whether a response gives the reference answer; None if that cannot be read, or took too long."""
    from math_verify import verify
    from math_verify.errors import TimeoutException

    seconds = _seconds()
    try:
        target = _reference(gold, seconds)
        if not target:
            return None
        answer = _parsed(text, seconds)
        try:
            return bool(verify(target, answer, timeout_seconds=seconds, raise_on_error=True))
        except Exception:  # of one of several readings
            return bool(verify(target, answer, timeout_seconds=seconds))
    except TimeoutException:
        return None


def _reference(gold: str, seconds: int | None) -> list[Any]:
    """What the reference answer can be read as; a formula without delimiters is LaTeX, of which else a part is read."""
    if FORMULA.search(gold) and "$" not in gold and "boxed" not in gold:
        return _parsed(f"${gold}$", seconds) or _parsed(gold, seconds)
    return _parsed(gold, seconds)


def _parsed(text: str, seconds: int | None) -> list[Any]:
    """What a text can be read as; empty if nothing.

    Raises:
        TimeoutException: of math-verify, if it takes too long.
    """
    from math_verify import parse

    try:
        return list(parse(text, parsing_timeout=seconds, raise_on_error=True))
    except Exception:  # no mathematics
        return []


def _seconds() -> int | None:
    """The time limit, which math-verify keeps by a signal: only the main thread can."""
    is_main = threading.current_thread() is threading.main_thread()
    return SECONDS if is_main else None


@hookimpl
def register_rewards(register: Register) -> None:
    register(MathEquivalence)
