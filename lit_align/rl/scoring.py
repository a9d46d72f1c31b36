"""Score an iteration's rollouts with reference, policy and critic, in as few forward passes as they need."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lit_align.rl.actor_critic import ActorCritic, ForwardPass
from lit_align.rl.minibatches import Minibatch
from lit_align.rl.rollouts import RolloutBatch, TokenField, TokenValues
from lit_align.types import Batch, TokenLogps

OF_POLICY: tuple[TokenField, ...] = ("old_logps", "entropy", "collision")
"""What is stored of the policy's numbers."""


def score_rollouts(
    models: ActorCritic,
    rollouts: RolloutBatch,
    first: Minibatch | None = None,
    *,
    with_critic: bool,
    needs_policy: bool,
) -> ForwardPass | None:
    """Store log-probabilities under the reference and the policy, entropy, and the critic's values.

    In the first update the policy is the one that sampled, and the critic the one that the advantages are computed
    with. So the update's own forward pass gives their numbers for its minibatch, and they read it in no other. Where
    the minibatch is one micro-batch, that pass is made here. The graphs of several would all be in memory until the
    advantages are known: those are read here without gradient, the policy's only if it is needed before the update,
    and otherwise `PolicyUpdate` stores its numbers. Each process reads its share of the minibatch and of the rest; then
    all have the numbers of all, but for those of the policy that the update stores.

    Args:
        models: policy, reference and critic.
        rollouts: of an iteration.
        first: that of the first update; None if none follows.
        with_critic: whether there is a critic.
        needs_policy: whether rewards depend on the policy's log-probabilities.

    Returns:
        The pass over the only micro-batch of the first update, with gradient; None if there are several.
    """
    batches = [] if first is None else first.step.batches
    own = [batch for batch in batches if batch.source[0] in rollouts]
    trees_of_first = [] if first is None else [id(tree) for tree in first.trees]
    rest = [tree for tree in rollouts.trees if id(tree) not in trees_of_first]
    others = list(models.pack(models.share(rest)))
    is_single = len(own) == 1
    computed = _reference_values(models, [*own, *others])
    without_gradient = others if is_single else [*own, *others]
    if with_critic:
        computed += _critic_values(models, without_gradient)
    computed += _policy_values(models, without_gradient if needs_policy else others)
    forward_pass = None
    if is_single:  # the last one, so that no other pass is made while its graph is in memory
        (batch,) = own
        with models.out_of_memory_advice(batch):
            forward_pass = models.forward(batch, with_critic, with_entropy=True)
        computed += policy_values(forward_pass.policy, batch)
        if forward_pass.values is not None:
            computed.append(TokenValues("values", batch, forward_pass.values))
    rollouts.set_tokens(computed)
    rollouts.gather_tokens(("ref_logps", "values"), models.processes)
    if needs_policy or first is None:
        rollouts.gather_tokens(OF_POLICY, models.processes)
    return forward_pass


def policy_values(tokens: TokenLogps, batch: Batch) -> list[TokenValues]:
    """What is stored of the policy's numbers for a micro-batch, `OF_POLICY`."""
    assert tokens.entropy is not None
    assert tokens.collision is not None
    return [
        TokenValues("old_logps", batch, tokens.logps),
        TokenValues("entropy", batch, tokens.entropy),
        TokenValues("collision", batch, tokens.collision),
    ]


@torch.no_grad()
def _reference_values(models: ActorCritic, batches: Sequence[Batch]) -> list[TokenValues]:
    values = []
    for batch in batches:
        logps = models.token_logps(batch, "reference").logps
        values.append(TokenValues("ref_logps", batch, logps))
    return values


@torch.no_grad()
def _policy_values(models: ActorCritic, batches: Sequence[Batch]) -> list[TokenValues]:
    values = []
    for batch in batches:
        values += policy_values(models.token_logps(batch, "policy", with_entropy=True), batch)
    return values


@torch.no_grad()
def _critic_values(models: ActorCritic, batches: Sequence[Batch]) -> list[TokenValues]:
    values = []
    for batch in batches:
        with models.out_of_memory_advice(batch):
            token_values = models.values(batch, training=False)
        values.append(TokenValues("values", batch, token_values))
    return values
