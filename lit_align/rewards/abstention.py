"""Knowing what one does not know (Cheng et al., 2024, https://arxiv.org/abs/2401.13275)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.errors import DataError
from lit_align.functional.text_metrics import abstains
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class Abstention(Reward):
    r"""1 for a right answer, -1 for a wrong one, and something in between for saying that one does not know.

    Who maximises it abstains exactly where the chance of being right is below (1 + m) / 2. A question without known
    answers cannot be answered: there, abstaining earns 1.

    Args:
        abstain_reward: m: what abstaining earns where there is an answer.
        column: of the data, where the known answers stand: a list of texts, one of which a right response holds.

    Raises:
        ValueError: unless middle is from -1 to 1.
        DataError: at a prompt whose row lacks the column.

    Example:
        >>> said = ["Paris, of course.", "I don't know.", "Rome."]
        >>> Abstention()([Group("Capital of France?", said, extra={"answers": ["Paris"]})]).total
        tensor([ 1.,  0., -1.])
    """

    abstain_reward: float = 0.0
    column: str = "answers"

    def __post_init__(self) -> None:
        if not -1 <= self.abstain_reward <= 1:
            raise ValueError(f"middle must be from -1 to 1, got {self.abstain_reward}")

    def __call__(self, groups: Sequence[Group]) -> Scores:
        said = [
            (group, response_text(response)) for group in groups for response in group.responses
        ]
        parts = {"abstains": torch.tensor([float(abstains(one)) for _, one in said])}
        return Scores(torch.tensor([self._score(group, one) for group, one in said]), parts)

    def _score(self, group: Group, said: str) -> float:
        known = group.extra.get(self.column)
        if not isinstance(known, list):
            raise DataError(
                f"{group.source} has no list of answers in its column {self.column!r}; name another"
            )
        if abstains(said):
            return self.abstain_reward if known else 1.0
        return 1.0 if any(str(one).lower() in said.lower() for one in known) else -1.0


@hookimpl
def register_rewards(register: Register) -> None:
    register(Abstention)
