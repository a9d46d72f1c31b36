"""Reward shaping: from the scores of responses to the rewards of their tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.checks import check_positive
from lit_align.types import Scores


@dataclass(frozen=True)
class RewardShaping:
    """How the score of a response is adjusted and paid out to its tokens.

    Args:
        max_new_tokens: limit of a response, in tokens.
        missing_eos_reward: replaces the score of a response that the limit cut off; None keeps the score.
        overlong_buffer: tokens before the limit over which a response loses up to 1 (Yu et al., 2025,
            https://arxiv.org/abs/2503.14476, eq. 13); 0 subtracts nothing.
        reward_clip: scores are clipped to plus and minus this; None clips nothing.
    """

    max_new_tokens: int
    missing_eos_reward: float | None = None
    overlong_buffer: int = 0
    reward_clip: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that are not over 0."""
        if self.reward_clip is not None:
            check_positive("reward_clip", self.reward_clip)
        if self.overlong_buffer:
            check_positive("overlong_buffer", self.overlong_buffer)

    def shape_scores(self, scores: Tensor, ended: Tensor, length: Tensor) -> Tensor:
        """Scores as they are paid: clipped, replaced where EOS is missing, less the overlong penalty.

        Args:
            scores: score of each response, ``[responses]``.
            ended: whether it ended with EOS, ``[responses]``.
            length: its tokens, ``[responses]``.

        Example:
            Of 10 tokens at most, the last 4 cost a quarter each; the second response was cut off.

            >>> shaping = RewardShaping(max_new_tokens=10, missing_eos_reward=-1.0, overlong_buffer=4)
            >>> scores, ended = torch.tensor([3.0, 3.0]), torch.tensor([True, False])
            >>> shaping.shape_scores(scores, ended, torch.tensor([8, 10]))
            tensor([ 2.5000, -2.0000])
        """
        if self.reward_clip is not None:
            scores = scores.clamp(-self.reward_clip, self.reward_clip)
        if self.missing_eos_reward is not None:
            scores = torch.where(ended, scores, self.missing_eos_reward)
        if self.overlong_buffer:
            overlong = 1 + (length - self.max_new_tokens) / self.overlong_buffer
            scores = scores - overlong.clamp(min=0)
        return scores

    def response_rewards(self, scores: Scores, ended: Tensor, mask: Tensor) -> Tensor:
        """What a response is paid in all, without a KL penalty, ``[responses]``; arguments as in `token_rewards`."""
        return self.token_rewards(scores, ended, mask, torch.zeros(mask.shape)).sum(1)

    def token_rewards(
        self, scores: Scores, ended: Tensor, mask: Tensor, kl_rewards: Tensor
    ) -> Tensor:
        """Reward of each token, ``[responses, longest]``: KL penalty, token scores, and the score at the last token.

        Args:
            scores: what the reward gave.
            ended: whether a response ended with EOS, ``[responses]``.
            mask: true at tokens, false at padding, ``[responses, longest]``.
            kl_rewards: -β times the KL divergence of each token, or zero, ``[responses, longest]``.
        """
        rewards, length = kl_rewards.clone(), mask.sum(1)
        if scores.tokens is not None:
            rewards[mask] += scores.tokens
        rewards[torch.arange(len(rewards)), length - 1] += self.shape_scores(
            scores.total, ended, length
        )
        return rewards
