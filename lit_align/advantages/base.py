"""What an estimator of advantages sees and what it must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor


class Rollouts(NamedTuple):
    """Sampled responses and what their tokens earned; every matrix is ``[responses, longest]``, zero behind the end.

    Args:
        rewards: what each token earned: the score of a response at its last token, and the price of its KL before.
        mask: whether there is a token.
        prompt: ``[responses]``, which prompt it answers.
        values: what the critic expected to come, before each token; zero without a critic.
        baseline: mean total of earlier iterations, ``[]``; 0 in the first.
    """

    rewards: Tensor
    mask: Tensor
    prompt: Tensor
    values: Tensor
    baseline: Tensor

    @property
    def totals(self) -> Tensor:
        """What each response earned in all, ``[responses]``."""
        return self.rewards.sum(1)

    def among(self, values: Tensor) -> Tensor:
        """Means of ``values``, ``[responses]``, over the responses to the same prompt, ``[responses]``."""
        prompts = int(self.prompt.max()) + 1
        count = torch.bincount(self.prompt, minlength=prompts)
        return (values.new_zeros(prompts).index_add(0, self.prompt, values) / count)[self.prompt]


def whitened(values: Tensor, mask: Tensor, centre: bool = True) -> Tensor:
    """Values of tokens, ``[responses, longest]``, at deviation 1 over the tokens that ``mask`` says are there.

    Args:
        values: to be scaled about their mean.
        mask: whether there is a token.
        centre: move the mean to 0; otherwise it stays where it was.

    Example:
        >>> whitened(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([[True, True, False]]))
        tensor([[-0.7071,  0.7071,  0.0000]])
    """
    each = values[mask]
    # the small number is larger than what rounding leaves where all are alike; a single one has no deviation
    scaled = (values - each.mean()) * (each.var(correction=min(1, len(each) - 1)) + 1e-8).rsqrt()
    return (scaled if centre else scaled + each.mean()).where(mask, 0.0)


class Advantage(ABC):
    """How much better each token did than was to be expected: a frozen dataclass whose fields are its settings.

    Class attributes:
        needs_critic: True if it reads ``values``; False lets the stage do without a critic.
        min_generations: responses to a prompt that it needs at least.
        whiten: True if advantages are to have mean 0 and deviation 1 over an iteration's tokens.
    """

    needs_critic: ClassVar[bool] = False
    min_generations: ClassVar[int] = 1
    whiten: bool = False

    @abstractmethod
    def __call__(self, rollouts: Rollouts) -> Tensor:
        """The advantage of each token, ``[responses, longest]``."""
