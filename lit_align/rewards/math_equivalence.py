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
from lit_align.plugin_calls import keep_time_limit
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import answer_after, column_text, response_text

SECONDS = 20
"""For one parse or comparison. Math-verify reads it off the wall clock and takes what is late for wrong: here such a
response is not scored, so that a busy machine changes no verdict."""

DELIMITED = re.compile(r"\$.+\$|\\boxed|\\\(|\\\[", re.DOTALL)
"""What math-verify reads as LaTeX without help."""

CURRENCY = re.compile(r"^\\?[$€£¥]\s*(?=[\d.])")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
MIXED = re.compile(r"^(-?\d+) +(\d+)/(\d+)$")
EXPONENT = re.compile(r"(\d)[eE]([+-]?\d+)")

UNIT = re.compile(r"(?:\\?%|°|\^\\circ|\^\{\\circ\}|\s+[A-Za-z]{3,}(?:(?:/| per )[A-Za-z]+)?)?\.?")
"""What may follow a number that is the whole answer."""

NUMERAL = re.compile(
    r"hundred|[a-z]+illion|thousand|dozen|times|squared|cubed|factorial|half|halves|third|quarter"
)
"""Words that are no unit: they make another number of it."""

WORD = re.compile(
    r"(?<![A-Za-z\\])(?!(?:sqrt|sin|cos|tan|log|exp|and)\b)[A-Za-z]{3,}|^[A-Za-z]{2}$"
)
"""What mathematics has not: LaTeX would read the letters as factors."""

TEXT_COMMAND = re.compile(r"\\[A-Za-z]*(?:text|mbox|rm)[a-z]*\s*\{[^}]*\}|\\[A-Za-z]+")


@dataclass(frozen=True)
class MathEquivalence(Reward):
    r"""1 for a response whose answer equals the reference answer, as in 1/2 and \boxed{0.5}; 0 for another.

    The answer is the last LaTeX or plain expression of the response, a boxed one first. A response is not scored if its
    row's reference answer cannot be read as mathematics, all of it but a unit, or if a comparison takes too long. It
    needs ``pip install lit-align[maths]``.

    Args:
        column: of the data, with the reference answer; LaTeX or plain.
        after: the answer is what follows this marker in the column; all of it where the marker is missing or
            empty.

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
            gold = answer_after(self.after, column_text(group, self.column))
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
            with keep_time_limit():
                return bool(verify(target, answer, timeout_seconds=seconds, raise_on_error=True))
        except Exception:  # of one of several readings
            with keep_time_limit():
                return bool(verify(target, answer, timeout_seconds=seconds))
    except TimeoutException:
        return None


def _reference(gold: str, seconds: int | None) -> list[Any]:
    """What the whole reference answer can be read as; empty if only a part of it, or nothing.

    Without delimiters math-verify reads a number or a plain expression in it, and nothing of the rest: that is the
    answer where nothing but a unit is left. Otherwise it is LaTeX.
    """
    if DELIMITED.search(gold):
        return _parsed(gold, seconds)
    gold = CURRENCY.sub("", gold)
    if MIXED.match(gold):
        gold = MIXED.sub(r"\1\\frac{\2}{\3}", gold)
    plain = _parsed(gold, seconds)
    if plain and _is_whole(str(plain[-1]), gold):
        return plain
    if WORD.search(TEXT_COMMAND.sub("", gold)):
        return []
    formula = EXPONENT.sub(r"\1 \\cdot 10^{\2}", gold)
    return _parsed(f"${formula}$", seconds)


def _is_whole(extracted: str, gold: str) -> bool:
    """Whether what was read is all of the reference answer, up to its unit.

    Example:
        >>> _is_whole("1200", "1,200 clips"), _is_whole("2", "2x"), _is_whole("5", "5 million")
        (True, False, False)
    """
    gold = THOUSANDS.sub(lambda match: match[0].replace(",", ""), gold)
    if not gold.startswith(extracted):
        return False
    rest = gold[len(extracted) :]
    return bool(UNIT.fullmatch(rest)) and not NUMERAL.search(rest.lower())


def _parsed(text: str, seconds: int | None) -> list[Any]:
    """What a text can be read as; empty if nothing.

    Raises:
        TimeoutException: of math-verify, if it takes too long.
    """
    from math_verify import parse

    try:
        with keep_time_limit():
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
