"""Policy, reference and critic on one base model, evaluated on packed trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_align.data.datamodules import to_device
from lit_align.data.loader import balance_by_tokens
from lit_align.data.packing import pack
from lit_align.functional.divergence import token_entropy
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.tree_forward import TreeForward
from lit_align.processes import Processes
from lit_align.rl.teaching import Lecture
from lit_align.types import Batch, Step, TokenLogps, Tree


class ForwardPass(NamedTuple):
    """What policy and critic give for the response tokens of a micro-batch, with gradient.

    Args:
        policy: log-probabilities of the tokens, and their entropy where it was asked for.
        values: the critic's value before each token, ``[n]``; None without a critic.
        entropy: of the policy, ``[n]``, with gradient; None without an entropy bonus.
    """

    policy: TokenLogps
    values: Tensor | None
    entropy: Tensor | None = None


@dataclass(frozen=True)
class ActorCritic:
    """Policy, reference and critic on one base model.

    Args:
        adapters: the base model with the adapters ``policy`` and, for GAE, ``critic``.
        tree_forward: forward pass over packed trees.
        temperature: of the policy and the reference; log-probabilities are taken at it.
        token_budget: tokens of a micro-batch.
        block_sparse: whether attention is block-sparse; micro-batches are then packed into one row.
        device: of the model.
        out_of_memory_advice: context manager that explains which settings to lower when memory runs out.
        processes: that share the passes over the responses.
        lecture: whose distributions the policy's are compared with; None if none are.
        has_entropy_bonus: whether updates read the gradient of the policy's entropy.
    """

    adapters: AdapterSet
    tree_forward: TreeForward
    temperature: float
    token_budget: int
    block_sparse: bool
    device: torch.device
    out_of_memory_advice: Callable[[Batch], AbstractContextManager[None]]
    processes: Processes
    lecture: Lecture | None = None
    has_entropy_bonus: bool = False

    def share(self, trees: list[Tree]) -> list[Tree]:
        """The trees that this process reads, of all that are read at once."""
        return balance_by_tokens(trees, self.processes.world)[self.processes.rank]

    def pack(self, trees: list[Tree]) -> Iterator[Batch]:
        """Micro-batches of at most ``token_budget`` tokens, or of one larger tree, on the device."""
        budget = max([self.token_budget, *(tree.tokens for tree in trees)])
        for batch in pack(trees, budget, dense=not self.block_sparse):
            yield to_device(batch, self.device)

    def pack_step(self, trees: list[Tree]) -> Step:
        """One step of the responses of ``trees``, of which this process reads its share; its items are responses."""
        return Step(
            tuple(self.pack(self.share(trees))),
            tokens=sum(tree.num_scored for tree in trees),
            items=sum(len(tree.responses) for tree in trees),
            groups=len(trees),
        )

    def token_logps(
        self, batch: Batch, role: Literal["policy", "reference"], with_entropy: bool = False
    ) -> TokenLogps:
        """Log-probabilities of the response tokens of a micro-batch, ``[n]``, outside of training."""
        with self.out_of_memory_advice(batch), self.adapters.activate(role, training=False):
            return self.tree_forward(batch.trees, with_entropy, self.temperature)

    def forward(self, batch: Batch, with_critic: bool, with_entropy: bool = False) -> ForwardPass:
        """Policy and critic that are being trained on a micro-batch, with gradient."""
        lesson = None
        if self.lecture is not None:
            settings = self.adapters, self.tree_forward, self.temperature
            lesson = self.lecture.lesson(batch, *settings)
        predictions = self.tree_forward.predictions(batch.trees, self.temperature)
        policy = self.tree_forward.score(predictions, batch.trees.target, with_entropy)
        if lesson is not None:
            policy = policy._replace(divergence=lesson.divergence(predictions))
        entropy = token_entropy(predictions) if self.has_entropy_bonus else None
        values = None
        if with_critic:
            values = self.values(batch, training=self.adapters.peft.training)
        return ForwardPass(policy, values, entropy)

    def values(self, batch: Batch, training: bool) -> Tensor:
        """The critic's value before each response token of a micro-batch, ``[n]``."""
        with self.adapters.activate("critic", training):
            hidden = self.tree_forward.hidden(batch.trees)
            values: Tensor = self.adapters.head("critic")(hidden)[:, 0]
        return values
