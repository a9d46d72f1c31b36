"""One policy update: the minibatches of an iteration, and the losses of policy, critic and demonstrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from lit_align.functional.kl import kl_estimates
from lit_align.objectives import PolicyObjective
from lit_align.plugin_calls import call_plugin
from lit_align.plugin_contracts import require_losses
from lit_align.rl.actor_critic import ActorCritic
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.rollouts import RolloutBatch, TokenField
from lit_align.stages.exact_step import MetricSums
from lit_align.types import Batch, PolicyTokens, Step, Tree

LossAggregation = Literal["token", "sequence", "constant"]


def loss_denominator(aggregation: LossAggregation, step: Step, max_new_tokens: int) -> int:
    """What the summed loss of a minibatch is divided by.

    * ``token``: its tokens, so that all weigh the same (Yu et al., 2025, https://arxiv.org/abs/2503.14476).
    * ``sequence``: its responses, whose tokens share a weight of 1 (Shao et al., 2024, https://arxiv.org/abs/2402.03300).
    * ``constant``: its responses times their longest possible length, so that a token's weight depends on nothing that
      was sampled (Dr. GRPO: Liu et al., 2025, https://arxiv.org/abs/2503.20783).

    Example:
        >>> step = Step((), tokens=30, items=4, groups=1)
        >>> [loss_denominator(name, step, 16) for name in ("token", "sequence", "constant")]
        [30, 4, 64]
    """
    if aggregation == "token":
        return step.tokens
    return step.items if aggregation == "sequence" else step.items * max_new_tokens


def shuffled_minibatches(
    trees: list[Tree], num_iterations: int, num_minibatches: int, seed: int
) -> Iterator[list[Tree]]:
    """Minibatches of whole prompts, ``num_minibatches`` in each of ``num_iterations`` shuffled passes."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(trees), generator=generator) for _ in range(num_iterations)]
    for order in orders:
        for indices in order.tensor_split(min(num_minibatches, len(trees))):
            yield [trees[index] for index in indices.tolist()]


def mean_update_metrics(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean of each metric over the updates of an iteration, the ratio of the first, and the number of updates."""
    means = {name: fmean(numbers) for name, numbers in values.items()}
    means["policy/first_ratio"] = values["policy/ratio"][0]
    means["updates"] = float(len(values["loss"]))
    return means


@dataclass(frozen=True)
class PolicyUpdate:
    """Losses of one policy update.

    Args:
        models: policy, reference and critic.
        rollouts: the iteration's samples with old log-probabilities, values, returns and advantages.
        objective: loss of a token, given its ratio and advantage.
        kl: KL penalty against the reference.
        kl_coefficient: β of this iteration.
        critic: value loss; None without a critic.
        loss_aggregation: whether each token has the same weight, or each sequence.
        ptx_weight: weight of each token of demonstrations.
    """

    models: ActorCritic
    rollouts: RolloutBatch
    objective: PolicyObjective
    kl: KLControl
    kl_coefficient: float
    critic: Critic | None
    loss_aggregation: LossAggregation
    ptx_weight: float = 0.0

    def losses(self, batch: Batch) -> tuple[Tensor, MetricSums]:
        """Summed loss of a micro-batch of rollouts or of demonstrations, and sums of its metrics."""
        if batch.source[0] in self.rollouts:
            return self._rollout_losses(batch)
        return self._ptx_losses(batch)

    def _rollout_losses(self, batch: Batch) -> tuple[Tensor, MetricSums]:
        training = self.models.adapters.peft.training
        old_logps = self._stored("old_logps", batch)
        ref_logps = self._stored("ref_logps", batch)
        weight = self._token_weights(batch, old_logps)
        new_logps = self.models.new_logps(batch)
        tokens = PolicyTokens(new_logps, old_logps, ref_logps, batch.trees.owner)
        token_losses = call_plugin(
            self.objective, self.objective, tokens, self._stored("advantages", batch)
        )
        require_losses(self.objective, token_losses, new_logps, len(new_logps), "tokens")
        policy_loss = (token_losses * weight).sum()
        kl = kl_estimates(new_logps, ref_logps)[self.kl.estimator]
        kl_loss = (kl * weight).sum()
        loss = policy_loss
        if self.kl.where == "loss":
            loss = loss + self.kl_coefficient * kl_loss
        num_tokens = weight.new_tensor(float(len(weight)))
        total_weight = weight.sum()
        sums: MetricSums = {
            "loss/policy": (policy_loss, total_weight),
            "loss/kl": (kl_loss, total_weight),
        }
        if self.critic is not None:
            old_values, returns = self._stored("values", batch), self._stored("returns", batch)
            values = self.models.values(batch, training)
            value_losses, value_clipped = self.critic.losses(values, old_values, returns)
            value_loss = (value_losses * weight).sum()
            loss = loss + self.critic.vf_coef * value_loss
            sums["loss/value"] = (value_loss, total_weight)
            sums["val/clipfrac"] = (value_clipped.float().sum(), num_tokens)
        with torch.no_grad():
            ratio = (new_logps - old_logps).exp()
            approx_kl = kl_estimates(old_logps, new_logps)["k3"]
            clipped = self.objective.clip_mask(tokens).float()
        sums["policy/ratio"] = (ratio.sum(), num_tokens)
        sums["policy/approxkl"] = (approx_kl.sum(), num_tokens)
        sums["policy/clipfrac"] = (clipped.sum(), num_tokens)
        return loss, sums

    def _ptx_losses(self, batch: Batch) -> tuple[Tensor, MetricSums]:
        """Cross-entropy of demonstrations, at temperature 1: they were not sampled at the policy's temperature."""
        losses = -self.models.tree_forward(batch.trees).logps
        num_tokens = losses.new_tensor(float(len(losses)))
        return self.ptx_weight * losses.sum(), {"loss/ptx": (losses.sum(), num_tokens)}

    def _stored(self, name: TokenField, batch: Batch) -> Tensor:
        return self.rollouts.get_tokens(name, batch, self.models.device)

    def _token_weights(self, batch: Batch, old_logps: Tensor) -> Tensor:
        """Weight of each token, ``[n]``; the tokens of a sequence share a weight of 1 under ``sequence``."""
        if self.loss_aggregation != "sequence":
            return torch.ones_like(old_logps)
        owner = batch.trees.owner
        return 1 / torch.bincount(owner)[owner].float()
