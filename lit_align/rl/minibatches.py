"""Minibatches of an iteration: cut in the order of all its prompts, then dealt to the processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from lit_align.types import Step, Tree


class Minibatch(NamedTuple):
    """What one update learns from.

    Args:
        step: this process's share of the rollouts, and of the demonstrations; its counts are those of all processes.
        ptx_weight: weight of a demonstration's token.
        trees: the rollouts of all processes.
    """

    step: Step
    ptx_weight: float
    trees: list[Tree]


def shuffled_minibatches(
    trees: list[Tree], num_iterations: int, num_minibatches: int, seed: int
) -> Iterator[list[Tree]]:
    """Minibatches of whole prompts, ``num_minibatches`` in each of ``num_iterations`` shuffled passes."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(trees), generator=generator) for _ in range(num_iterations)]
    for order in orders:
        for indices in order.tensor_split(min(num_minibatches, max(len(trees), 1))):
            if not len(indices):
                continue
            yield [trees[index] for index in indices.tolist()]
