"""Base class of advantage estimators, and the rollouts they see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor


class Rollouts(NamedTuple):
    """Rewards and values of sampled responses; every matrix is ``[responses, longest]``, zero at padding.

    Args:
        rewards: of each token: the KL penalty, and at the last token also the score of the response.
        mask: true at tokens, false at padding.
        prompt: index of the prompt of each response, ``[responses]``.
        values: the critic's value before each token; zero without a critic.
        baseline: mean total reward of earlier iterations, ``[]``; 0 in the first.
        parts: what the reward gave as the parts of its scores, by name, ``[responses]`` each; without weights, and
            before any shaping.
        ended: whether a response ended by itself, ``[responses]``; otherwise the limit cut it off.
        old_logps: log-probability of each token under the policy before the update; None unless ``needs_policy``.
        entropy: of the distribution that each token is from, in nats; likewise.
        collision: log of the probability that two draws from that distribution agree; likewise.
    """

    rewards: Tensor
    mask: Tensor
    prompt: Tensor
    values: Tensor
    baseline: Tensor
    parts: Mapping[str, Tensor] = {}
    ended: Tensor | None = None
    old_logps: Tensor | None = None
    entropy: Tensor | None = None
    collision: Tensor | None = None

    @property
    def totals(self) -> Tensor:
        """Total reward of each response, ``[responses]``."""
        return self.rewards.sum(1)

    def prompt_mean(self, values: Tensor) -> Tensor:
        """Mean of ``values``, ``[responses]``, over the responses to the same prompt, ``[responses]``.

        Sums are in double, so that equal numbers have an exact mean: what is left of them is 0, and no rounding that a
        division by their deviation would make large.
        """
        num_prompts = int(self.prompt.max()) + 1
        count = torch.bincount(self.prompt, minlength=num_prompts)
        sums = torch.zeros(num_prompts, dtype=torch.double, device=values.device)
        means = sums.index_add(0, self.prompt, values.double()) / count
        return means[self.prompt].to(torch.promote_types(values.dtype, torch.float32))


def masked_whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scale values of tokens, ``[responses, longest]``, to standard deviation 1 over the mask.

    Args:
        values: a number for each token.
        mask: true at tokens, false at padding.
        shift_mean: also move the mean to 0; otherwise it stays.

    Example:
        >>> masked_whiten(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[True, True, False]]))
        tensor([[-0.7071,  0.7071,  0.0000]])
    """
    flat = values[mask]
    # epsilon is larger than what rounding leaves where all values are equal; a single value has no deviation
    variance = flat.var(correction=min(1, len(flat) - 1))
    whitened = (values - flat.mean()) * (variance + 1e-8).rsqrt()
    if not shift_mean:
        whitened = whitened + flat.mean()
    return whitened.where(mask, 0.0)


class Advantage(ABC):
    """Advantage of each token, how much better it did than expected: a frozen dataclass whose fields are its settings.

    Class attributes:
        needs_critic: whether it reads ``values``; otherwise the stage trains no critic.
        needs_policy: whether it reads ``old_logps``, ``entropy`` or ``collision``; the policy is then evaluated before
            the first update.
        reads_rewards: whether it reads ``rewards``, into which shaping and a KL penalty go; otherwise both are refused,
            and so is a choice of prompts by their rewards.
        needs_teacher: whether ``rewards`` must be the log-probabilities that a `Teacher` gives, which nothing scales.
        min_generations: fewest responses to a prompt that it can compare.
        whiten: whether advantages are scaled to mean 0 and standard deviation 1 over an iteration's tokens.
    """

    needs_critic: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False
    reads_rewards: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = False
    min_generations: ClassVar[int] = 1
    whiten: bool = False

    @property
    def read_parts(self) -> tuple[str, ...]:
        """Names of the parts of the score that it learns from by themselves, whatever they weigh in the total."""
        return ()

    @abstractmethod
    def __call__(self, rollouts: Rollouts) -> Tensor:
        """Advantage of each token, ``[responses, longest]``."""
