"""Reward for abstaining on unanswerable questions (Cheng et al., 2024, https://arxiv.org/abs/2401.13275)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from lit_align import Register, hookimpl
from lit_align.checks import check_between
from lit_align.errors import DataError
from lit_align.functional.text_metrics import abstains, contains_answer
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import column_list, response_text


@dataclass(frozen=True)
class Abstention(Reward):
    r"""1 for a right answer, -1 for a wrong one, and a value in between for abstaining.

    The policy that maximises it abstains exactly where its probability of being right is below (1 + m) / 2. A question
    without known answers cannot be answered: there, abstaining earns 1.

    A response is right if it contains one of the known answers as whole words, or for a number as an equal number: "15"
    does not contain "5", and "1,000.0" is 1000.

    Args:
        abstain_reward: m: reward for abstaining where there is an answer.
        column: of the data, with the known answers: a list of texts or numbers, one of which a right response contains.
        patterns: regular expressions, ignoring case; a response in which one is found abstains. Empty: usual English
            phrases, such as "I don't know".

    Raises:
        ValueError: unless abstain_reward is from -1 to 1 and each pattern is a regular expression.
        DataError: at a prompt whose row lacks the column.

    Example:
        >>> responses = ["Paris, of course.", "I don't know.", "Rome."]
        >>> Abstention()([Group("Capital of France?", responses, extra={"answers": ["Paris"]})]).total
        tensor([ 1.,  0., -1.])
        >>> german = Abstention(0.5, patterns=["keine ahnung"])
        >>> german([Group("2 + 3?", ["5", "Keine Ahnung.", "15"], extra={"answers": [5]})]).total
        tensor([ 1.0000,  0.5000, -1.0000])
    """

    abstain_reward: float = 0.0
    column: str = "answers"
    patterns: list[str] = field(default_factory=list)

    depends_on = ("lit_align.functional.text_metrics",)

    def __post_init__(self) -> None:
        check_between("abstain_reward", self.abstain_reward, -1, 1)
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"pattern {pattern!r} is no regular expression: {error}"
                ) from error

    def __call__(self, groups: Sequence[Group]) -> Scores:
        abstentions, scores = [], []
        for group in groups:
            for response in group.responses:
                text = response_text(response)
                is_abstention = self._abstains(text)
                abstentions.append(float(is_abstention))
                scores.append(self._score(group, text, is_abstention))
        return Scores(torch.tensor(scores), {"abstains": torch.tensor(abstentions)})

    def _abstains(self, text: str) -> bool:
        if not self.patterns:
            return abstains(text)
        return any(re.search(pattern, text, re.IGNORECASE) for pattern in self.patterns)

    def _score(self, group: Group, text: str, is_abstention: bool) -> float:
        answers = column_list(group, self.column)
        if answers is None:
            raise DataError(
                f"{group.source} has no list of answers in its column {self.column!r}; name another column"
            )
        if is_abstention:
            return self.abstain_reward if answers else 1.0
        is_right = any(contains_answer(text, str(answer)) for answer in answers)
        return 1.0 if is_right else -1.0


@hookimpl
def register_rewards(register: Register) -> None:
    register(Abstention)
