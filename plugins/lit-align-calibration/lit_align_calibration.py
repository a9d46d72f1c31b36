"""Temperature scaling of a judge (Guo et al., 2017, https://arxiv.org/abs/1706.04599), and the command that fits it."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.errors import DataError, RowError
from lit_align.hookspecs import RegisterCommand
from lit_align.judges import JudgeModel, Reply
from lit_align.types import Group

CERTAIN = 1e-6  # a probability of 0 or 1 has no logit
LARGEST = 100.0  # inverse temperatures beyond this are as good as certain


@dataclass(frozen=True)
class Calibrated(JudgeModel):
    """Another judge, as sure as it is right: p_i^(1/T) / Σ_j p_j^(1/T).

    It is applied to each reply, so T is fitted on replies too: label with ``swap: false``. A label of both orders is
    their mean, which is less sure than either, and T fitted on such means is not the best one.

    Args:
        model: the judge.
        temperature: T; above 1 for a judge that is too sure. ``lit-align calibrate`` finds it.

    Raises:
        ValueError: unless temperature is above 0.
    """

    model: JudgeModel
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature, "1 changes nothing")

    def wrapped(self) -> Sequence[JudgeModel]:
        return (self.model,)

    def choose_option(self, questions: Sequence[str], options: Sequence[str]) -> list[Reply]:
        replies = self.model.choose_option(questions, options)
        return [self._soften(reply) for reply in replies]

    def generate(self, questions: Sequence[str], max_tokens: int) -> list[Reply]:
        return self.model.generate(questions, max_tokens)

    def _soften(self, reply: Reply) -> Reply:
        if reply.probabilities is None:
            return reply
        powers = [p ** (1 / self.temperature) for p in reply.probabilities]
        return reply._replace(probabilities=tuple(power / sum(powers) for power in powers))


def fit_temperature(probabilities: Sequence[float]) -> float:
    """The temperature under which what is known to be right is most probable.

    It minimises -Σ log σ(z/T) for z = log(p / (1 - p)). The derivative by 1/T only grows, so bisection finds its root.

    Args:
        probabilities: that the judge gave to the response that is known to be better, one for each comparison.

    Raises:
        DataError: if no finite temperature is best.

    Example:
        A judge that is always 90 % sure and right in three of four comparisons: log 9 / log 3.

        >>> round(fit_temperature([0.9, 0.9, 0.9, 0.1]), 6)
        2.0
    """
    logits = []
    for probability in probabilities:
        p = min(max(probability, CERTAIN), 1 - CERTAIN)
        logits.append(math.log(p / (1 - p)))

    def slope(inverse: float) -> float:
        return -sum(z / (1 + math.exp(min(inverse * z, 700))) for z in logits)

    low, high = 0.0, LARGEST
    if sum(logits) <= 1e-9 * len(logits):
        raise DataError("the judge is as sure where it is wrong; no temperature helps")
    if slope(high) <= 0:
        raise DataError("the judge is never wrong here; give more comparisons")
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


def calibrate(arguments: list[str]) -> None:
    """Print the temperature for a judge from comparisons with known labels, each in one order (``swap: false``).

    Raises:
        DataError: naming a line that cannot be read.
    """
    parser = argparse.ArgumentParser(
        "lit-align calibrate",
        description="The temperature of a judge from comparisons with known labels, each judged in one order.",
    )
    parser.add_argument("labelled", type=Path, help="labelled.jsonl of lit-align judge")
    parser.add_argument("known", type=Path, help="what is known of the same pairs")
    settings = parser.parse_args(arguments)
    labelled, known = _probabilities(settings.labelled), _probabilities(settings.known)
    common = [
        labelled[key] for key, probability in known.items() if probability > 0.5 and key in labelled
    ]
    if not common:
        raise DataError(
            f"{settings.labelled} and {settings.known} have no comparison in common; give labels of the same pairs"
        )
    temperature = fit_temperature(common)
    print(f"temperature {temperature:.4g}, from {len(common)} comparisons")


def _probabilities(path: Path) -> dict[tuple[str, str, str], float]:
    """Of each comparison in both orders: the prompt, two responses, and the probability that the first is better."""
    from lit_align.data.formats.groups import Groups
    from lit_align.data.formats.preferences import Preferences

    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; name another file") from error
    probabilities = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            group: Group = (Groups() if "responses" in row else Preferences())(row)
        except (ValueError, TypeError, RowError) as error:
            raise DataError(
                f"{path}:{number} is no comparison: {error}; correct it, or leave it out of the file"
            ) from error
        prompt, responses = _plain(group.prompt), [_plain(text) for text in group.responses]
        for better, worse, probability, _ in group.pairs:
            probabilities[prompt, responses[better], responses[worse]] = probability
            probabilities[prompt, responses[worse], responses[better]] = 1 - probability
    return probabilities


def _plain(text: Any) -> str:
    return text if isinstance(text, str) else json.dumps(text, sort_keys=True)


@hookimpl
def register_judges(register: Register) -> None:
    register(Calibrated)


@hookimpl
def register_commands(register: RegisterCommand) -> None:
    register(
        "calibrate", calibrate, "the temperature of a judge from comparisons with known labels"
    )
