"""What one process computes in a step: passes over packed trees, and prompts to sample responses to."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lit_align.data.loader import balance_by_tokens
from lit_align.data.packing import pack, separate_branches
from lit_align.rl.minibatches import shuffled_minibatches
from lit_align.types import Batch, Tree

Kind = Literal["read", "read entropy", "read hidden", "update", "update hidden"]
"""A pass over a micro-batch: by the reference, by another role without gradient, or with it; with the language-model
head, which may also give the entropy, or up to the hidden states."""


class Pass(NamedTuple):
    """One pass over a micro-batch.

    Args:
        phase: that it belongs to.
        kind: of pass.
        batch: the micro-batch.
        times: how often; -1 takes off what another phase has done already.
    """

    phase: str
    kind: Kind
    batch: Batch
    times: int = 1


@dataclass(frozen=True)
class Sampling:
    """How the responses of an iteration are sampled.

    Args:
        num_generations: responses to each prompt.
        response_tokens: tokens of a response.
        prompts_at_once: prompts whose responses are decoded together.
    """

    num_generations: int
    response_tokens: int
    prompts_at_once: int


@dataclass(frozen=True)
class StepWork:
    """What all processes compute in a step; in RL, in an iteration.

    Args:
        trees: of the step; of RL with as many tokens as responses will have.
        token_budget: tokens of a micro-batch.
        dense: whether micro-batches are laid out in several rows.
        has_reference: whether log-probabilities under a reference are computed.
        kinds: the pass with gradient of each trained role.
        optimizer_steps: updates in a step.
        sampling: how responses are sampled; None if they are given.
        num_iterations: passes over the samples.
        num_minibatches: updates in a pass.
        needs_policy: whether rewards depend on the policy's log-probabilities.
        reward_budget: tokens that pass through a reward model on the same base at once; 0 without one.
    """

    trees: Sequence[Tree]
    token_budget: int
    dense: bool = True
    has_reference: bool = False
    kinds: Sequence[Kind] = ("update",)
    optimizer_steps: int = 1
    sampling: Sampling | None = None
    num_iterations: int = 1
    num_minibatches: int = 1
    needs_policy: bool = False
    reward_budget: int = 0

    @property
    def groups_per_update(self) -> int:
        """Groups that the processes share in the smallest update."""
        return max(len(self.trees) // self.num_minibatches, 1)

    @property
    def sampled_tokens(self) -> int:
        """Tokens of all responses that are sampled."""
        return sum(tree.num_scored for tree in self.trees) if self.sampling else 0

    def prompts(self, processes: int) -> list[Tree]:
        """The prompts that the first of so many processes samples responses to; no other has more."""
        return list(self.trees[::processes])

    def passes(self, processes: int) -> Iterator[Pass]:
        """The passes of the first of so many processes, as training makes them."""
        if self.sampling is None:
            own = self._batches(separate_branches(self.trees), processes)
            for batch in own:
                if self.has_reference:
                    yield Pass("score", "read", batch)
                yield from self._updates(batch)
            return
        trees = list(self.trees)
        minibatches = list(
            shuffled_minibatches(trees, self.num_iterations, self.num_minibatches, 0)
        )
        yield from self._scoring_passes(minibatches[0], processes)
        for minibatch in minibatches:
            for batch in self._batches(minibatch, processes):
                yield from self._updates(batch)

    def _scoring_passes(self, first: Sequence[Tree], processes: int) -> Iterator[Pass]:
        """Those before the first update, which gives the numbers of its own minibatch: see `rl.scoring`."""
        if self.reward_budget:
            for batch in self._batches(self.trees, processes, self.reward_budget):
                yield Pass("reward", "read hidden", batch)
        chosen = {id(tree) for tree in first}
        rest = [tree for tree in self.trees if id(tree) not in chosen]
        own, others = self._batches(first, processes), self._batches(rest, processes)
        for batch in [*own, *others]:
            yield Pass("score", "read", batch)  # the reference
        is_single = len(own) == 1
        if is_single:  # its forward pass, with gradient, is made here instead of in the update
            for kind in self.kinds:
                forward: Kind = "read entropy" if kind == "update" else "read hidden"
                yield Pass("score", forward, own[0])
                yield Pass("update", forward, own[0], -1)
        without_gradient = others if is_single else [*own, *others]
        for batch in without_gradient:
            if "update hidden" in self.kinds:
                yield Pass("score", "read hidden", batch)  # the critic
        for batch in without_gradient if self.needs_policy else others:
            yield Pass("score", "read entropy", batch)

    def _updates(self, batch: Batch) -> Iterator[Pass]:
        for kind in self.kinds:
            yield Pass("update", kind, batch)

    def _batches(self, trees: Sequence[Tree], processes: int, budget: int = 0) -> list[Batch]:
        share = balance_by_tokens(trees, processes)[0]
        most = max([budget or self.token_budget, *(tree.tokens for tree in share)])
        return pack(share, most, dense=self.dense) if share else []


def with_responses(
    prompts: Sequence[Tree], count: int, tokens: int, vocabulary: int, seed: int = 0
) -> list[Tree]:
    """Prompts with responses of random tokens.

    Args:
        prompts: to answer.
        count: responses of each.
        tokens: of a response.
        vocabulary: number of tokens there are.
        seed: of the random numbers.
    """
    draw = random.Random(seed)
    trees = []
    for tree in prompts:
        responses = [[draw.randrange(vocabulary) for _ in range(tokens)] for _ in range(count)]
        scored = [[True] * tokens for _ in range(count)]
        group = tree.group._replace(responses=[""] * count)
        trees.append(tree._replace(responses=responses, scored=scored, group=group))
    return trees


def typical_step(
    trees: Sequence[Tree], batch_size: int, draws: int = 9, seed: int = 0
) -> list[Tree]:
    """The groups of a step: of several random draws, that whose number of tokens is the median.

    Args:
        trees: all of the training data.
        batch_size: groups in a step.
        draws: odd, how many are drawn.
        seed: of the random numbers.
    """
    draw = random.Random(seed)
    size = min(batch_size, len(trees))
    steps = []
    for _ in range(draws):
        steps.append([trees[place] for place in draw.sample(range(len(trees)), size)])
    return sorted(steps, key=lambda step: sum(tree.tokens for tree in step))[draws // 2]
