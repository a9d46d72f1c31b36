"""Dynamic sampling: other prompts for those whose responses all score the same (Yu et al., 2025, https://arxiv.org/abs/2503.14476)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lit_align.errors import ModelError
from lit_align.rewards import Reward
from lit_align.rl.response_scores import kinds_fault
from lit_align.rl.rollouts import RolloutBatch, SampledPrompt
from lit_align.seeding import step_seed
from lit_align.types import Tree

ATTEMPT_STRIDE = 100_000
"""Counters between two attempts of an iteration: random numbers of iterations below this are not drawn again."""

REFILLED = (
    "an iteration that is refilled cannot join that; give it to all responses, with 0 where it does not apply, or set "
    "equal_scores to drop"
)
"""Why scores of one kind are needed here, and the remedy."""


@dataclass(frozen=True)
class Refill:
    """Other prompts for an iteration.

    Which prompts and which random numbers follow from the seed, the iteration and the attempt alone, so that a resumed
    run and one of several processes draw the same.

    Args:
        prompts: to draw from.
        attempts: how often others are sampled.
        seed: of the run.
        sample: samples, scores and selects responses to prompts, for an attempt.
        select: selects again among rollouts that were put together.
        reward: names what is wrong with its scores.
    """

    prompts: Sequence[Tree]
    attempts: int
    seed: int
    sample: Callable[[list[Tree], int], RolloutBatch]
    select: Callable[[RolloutBatch], None]
    reward: Reward

    def __call__(self, rollouts: RolloutBatch, number: int) -> tuple[RolloutBatch, int]:
        """Sample until each prompt's responses differ in score, or the attempts are spent.

        Args:
            rollouts: of an iteration, selected.
            number: of the iteration.

        Returns:
            The rollouts with what was sampled in the place of prompts without a difference, and how many these are.
        """
        sampled, count = rollouts.prompts(), 0
        used = {tuple(tree.prompt) for tree in rollouts.trees}
        for attempt in range(1, self.attempts + 1):
            missing = _places_without_difference(rollouts)
            seed = step_seed(self.seed, number + attempt * ATTEMPT_STRIDE)
            spare = draw_prompts(self.prompts, len(missing), used, seed)
            if not spare:
                break
            used |= {tuple(tree.prompt) for tree in spare}
            useful = _with_difference(self.sample(spare, attempt))
            count += len(useful)
            for place, prompt in zip(missing, useful, strict=False):
                sampled[place] = prompt
            rollouts = self._joined(sampled)
        return rollouts, count

    def _joined(self, sampled: Sequence[SampledPrompt]) -> RolloutBatch:
        """Rollouts of several calls of the reward."""
        trees = [prompt.tree for prompt in sampled]
        scores = [prompt.scores for prompt in sampled]
        fault = kinds_fault(self.reward, scores, trees, REFILLED)
        if fault:
            raise ModelError(fault)
        rollouts = RolloutBatch.of_prompts(sampled)
        self.select(rollouts)
        return rollouts


def draw_prompts(
    trees: Sequence[Tree], count: int, used: set[tuple[int, ...]], seed: int
) -> list[Tree]:
    """A random draw of prompts, without those that are used; fewer than ``count`` if there are no more.

    Args:
        trees: to draw from.
        count: how many.
        used: ids of prompts that are not drawn.
        seed: of the draw.

    Example:
        >>> from lit_align.types import Group
        >>> trees = [Tree([k], [], [], Group("", [])) for k in range(4)]
        >>> sorted(tree.prompt for tree in draw_prompts(trees, 3, {(0,), (2,)}, seed=0))
        [[1], [3]]
    """
    drawn: list[Tree] = []
    order = torch.randperm(len(trees), generator=torch.Generator().manual_seed(seed)).tolist()
    for index in order:
        if len(drawn) == count:
            break
        tree = trees[index]
        if tuple(tree.prompt) not in used:
            drawn.append(tree)
    return drawn


def _places_without_difference(rollouts: RolloutBatch) -> list[int]:
    """Prompts of which no response is compared: all have the same score, or too few have one."""
    compared = set(rollouts.prompt[rollouts.selected.compared].tolist())
    return [place for place in range(len(rollouts.trees)) if place not in compared]


def _with_difference(rollouts: RolloutBatch) -> list[SampledPrompt]:
    """The prompts whose responses differ in score."""
    equal = set(_places_without_difference(rollouts))
    sampled = enumerate(rollouts.prompts())
    return [prompt for place, prompt in sampled if place not in equal]
