"""Learning from the most uncertain tokens alone (Wang et al., 2025, https://arxiv.org/abs/2506.01939)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts, masked_whiten
from lit_align.errors import ConfigError


@dataclass(frozen=True)
class TopEntropy(Advantage):
    r"""Another estimator's advantages at the tokens where the policy was most uncertain, and 0 at all others.

    .. math:: A_t [\,H_t \ge h\,], \quad h \text{ the quantile } 1 - q \text{ of the entropies of an iteration's tokens}

    The others stay in what the loss is divided by.

    Args:
        advantage: the other estimator.
        share: q: of the tokens that are learned from; the paper uses 0.2.

    Raises:
        ConfigError: unless share is over 0 and at most 1; or for an estimator with a critic, whose targets would be
            cut too.

    Example:
        >>> from lit_align.advantages.grpo import GRPO
        >>> mask, rewards = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> entropy = torch.tensor([[0.1, 2.0], [1.0, 0.3]])
        >>> rollouts = Rollouts(rewards, mask, torch.zeros(2).long(), 0 * rewards, torch.tensor(0.0), entropy=entropy)
        >>> TopEntropy(GRPO(std=False), share=0.5)(rollouts)
        tensor([[ 0.0000,  0.5000],
                [-0.5000, -0.0000]])
    """

    advantage: Advantage
    share: float = 0.2
    needs_policy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share must be over 0 and at most 1, got {self.share}; 0.2 is usual")
        if self.advantage.needs_critic:
            name = type(self.advantage).__name__
            raise ConfigError(
                f"TopEntropy would cut the critic's targets, which {name} makes of its advantages; use GRPO or RLOO"
            )

    @property
    def min_generations(self) -> int:  # type: ignore[override]  # that of the other estimator
        """Fewest responses to a prompt that the other estimator can compare."""
        return self.advantage.min_generations

    @property
    def reads_rewards(self) -> bool:  # type: ignore[override]  # likewise
        """Whether the other estimator reads rewards."""
        return self.advantage.reads_rewards

    @property
    def needs_teacher(self) -> bool:  # type: ignore[override]  # likewise
        """Whether the other estimator needs the rewards of a teacher."""
        return self.advantage.needs_teacher

    @property
    def read_parts(self) -> tuple[str, ...]:
        """Parts of the score that the other estimator learns from."""
        return self.advantage.read_parts

    def __call__(self, rollouts: Rollouts) -> Tensor:
        assert rollouts.entropy is not None
        advantages = self.advantage(rollouts)
        if self.advantage.whiten:
            advantages = masked_whiten(advantages, rollouts.mask)
        threshold = torch.quantile(rollouts.entropy[rollouts.mask], 1 - self.share)
        return advantages * (rollouts.entropy >= threshold)


@hookimpl
def register_advantages(register: Register) -> None:
    register(TopEntropy)
