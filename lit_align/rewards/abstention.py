"""Reward for abstaining on unanswerable questions (Cheng et al., 2024, https://arxiv.org/abs/2401.13275)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.checks import check_between
from lit_align.errors import DataError
from lit_align.functional.text_metrics import abstains
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class Abstention(Reward):
    r"""1 for a right answer, -1 for a wrong one, and a value in between for abstaining.

    The policy that maximises it abstains exactly where its probability of being right is below (1 + m) / 2. A question
    without known answers cannot be answered: there, abstaining earns 1.

    Args:
        abstain_reward: m: reward for abstaining where there is an answer.
        column: of the data, with the known answers: a list of texts, one of which a right response contains.

    Raises:
        ValueError: unless abstain_reward is from -1 to 1.
        DataError: at a prompt whose row lacks the column.

    Example:
        >>> responses = ["Paris, of course.", "I don't know.", "Rome."]
        >>> Abstention()([Group("Capital of France?", responses, extra={"answers": ["Paris"]})]).total
        tensor([ 1.,  0., -1.])
    """

    abstain_reward: float = 0.0
    column: str = "answers"

    def __post_init__(self) -> None:
        check_between("abstain_reward", self.abstain_reward, -1, 1)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        abstentions, scores = [], []
        for group in groups:
            for response in group.responses:
                text = response_text(response)
                abstentions.append(float(abstains(text)))
                scores.append(self._score(group, text))
        return Scores(torch.tensor(scores), {"abstains": torch.tensor(abstentions)})

    def _score(self, group: Group, text: str) -> float:
        answers = group.extra.get(self.column)
        if not isinstance(answers, list):
            raise DataError(
                f"{group.source} has no list of answers in its column {self.column!r}; name another column"
            )
        if abstains(text):
            return self.abstain_reward if answers else 1.0
        is_right = any(str(answer).lower() in text.lower() for answer in answers)
        return 1.0 if is_right else -1.0


@hookimpl
def register_rewards(register: Register) -> None:
    register(Abstention)
