"""A baseline of least variance for each token (optimal token baseline, 2026, https://arxiv.org/abs/2602.07078)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts


@dataclass(frozen=True)
class OptimalTokenBaseline(Advantage):
    r"""Reward still to come less a mean over the prompt's responses that weighs them by their gradients so far.

    .. math:: A_{i,t} = G_{i,t} - \frac{\sum_j G_{j,t} W_{j,t}}{\sum_j W_{j,t}}, \quad
        W_{i,t} = \sum_{s \le t} \Big(1 - 2\pi(y_{i,s}) + \sum_v \pi(v)^2\Big)

    The summand is the squared norm of the gradient of :math:`\log\pi(y_s)` by the logits. The sums over j are over the
    responses that have a token t.

    Example:
        One token each, with probabilities 0.5 of two and 0.9 of two: weights 0.5 and 0.02.

        >>> import torch
        >>> mask, one = torch.ones(2, 1, dtype=torch.bool), torch.tensor([[1.0], [0.0]])
        >>> policy = {"old_logps": torch.tensor([[0.5], [0.9]]).log(), "collision": torch.tensor([[0.5], [0.82]]).log()}
        >>> rollouts = Rollouts(one, mask, torch.zeros(2).long(), torch.zeros(2, 1), torch.tensor(0.0), **policy)
        >>> OptimalTokenBaseline()(rollouts).T  # 1 and 0 less 0.5 / 0.52
        tensor([[ 0.0385, -0.9615]])
    """

    min_generations: ClassVar[int] = 2
    needs_policy: ClassVar[bool] = True

    def __call__(self, rollouts: Rollouts) -> Tensor:
        assert rollouts.old_logps is not None
        assert rollouts.collision is not None
        mask = rollouts.mask.to(rollouts.rewards)
        to_come = rollouts.rewards.flip(1).cumsum(1).flip(1)
        squared_norm = 1 - 2 * rollouts.old_logps.exp() + rollouts.collision.exp()
        weight = (squared_norm * mask).cumsum(1) * mask
        weighted = self._sum_by_prompt(rollouts, to_come * weight)
        total_weight = self._sum_by_prompt(rollouts, weight)
        baseline = weighted / total_weight.clamp(min=1e-8)
        return (to_come - baseline) * mask

    @staticmethod
    def _sum_by_prompt(rollouts: Rollouts, values: Tensor) -> Tensor:
        """Sum over the responses to the same prompt, ``[responses, longest]``."""
        sums = values.new_zeros(int(rollouts.prompt.max()) + 1, values.shape[1])
        return sums.index_add(0, rollouts.prompt, values)[rollouts.prompt]


@hookimpl
def register_advantages(register: Register) -> None:
    register(OptimalTokenBaseline)
