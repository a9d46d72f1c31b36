"""One policy update: the minibatches of an iteration, and the losses of policy, critic and demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from lit_align.functional.kl import kl_estimates
from lit_align.functional.logps import sum_by_response
from lit_align.objectives import PolicyObjective
from lit_align.plugin_calls import call_plugin
from lit_align.plugin_contracts import require_losses
from lit_align.rl.actor_critic import ActorCritic, ForwardPass
from lit_align.rl.critic import Critic
from lit_align.rl.entropy_bonus import POLICY_ENTROPY
from lit_align.rl.importance import ImportanceWeights, sum_and_count
from lit_align.rl.kl_control import KLControl
from lit_align.rl.rollouts import RolloutBatch, TokenField, TokenValues
from lit_align.rl.scoring import policy_values
from lit_align.stages.exact_step import MetricSums
from lit_align.types import Batch, PolicyTokens, Step

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


def mean_update_metrics(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean of each metric over the updates of an iteration, the ratio of the first, and the number of updates."""
    if not values:  # nothing was learned from
        return {"loss": 0.0, "grad_norm": 0.0, "updates": 0.0}
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
        forward_pass: over its only micro-batch of rollouts, if `score_rollouts` has made it.
        scores_policy: whether old log-probabilities are those of its own pass: the policy is still the one that
            sampled, and was not evaluated before.
        importance: weights for what another distribution than the policy's has sampled; None weighs all tokens alike.
        entropy_coefficient: α of this iteration's entropy bonus.

    Attributes:
        scored: old log-probabilities and entropy of its own pass.
    """

    models: ActorCritic
    rollouts: RolloutBatch
    objective: PolicyObjective
    kl: KLControl
    kl_coefficient: float
    critic: Critic | None
    loss_aggregation: LossAggregation
    ptx_weight: float = 0.0
    forward_pass: ForwardPass | None = None
    scores_policy: bool = False
    importance: ImportanceWeights | None = None
    entropy_coefficient: float = 0.0
    scored: list[TokenValues] = field(default_factory=list, init=False)

    def losses(self, batch: Batch) -> tuple[Tensor, MetricSums]:
        """Summed loss of a micro-batch of rollouts or of demonstrations, and sums of its metrics."""
        if batch.source[0] in self.rollouts:
            return self._rollout_losses(batch)
        return self._ptx_losses(batch)

    def _rollout_losses(self, batch: Batch) -> tuple[Tensor, MetricSums]:
        forward_pass = self.forward_pass or self.models.forward(
            batch, with_critic=self.critic is not None, with_entropy=self.scores_policy
        )
        stored = self.rollouts.get_tokens(self._stored_names, batch, self.models.device)
        if self.scores_policy:
            self.scored.extend(policy_values(forward_pass.policy, batch))
            stored["old_logps"] = forward_pass.policy.logps.detach()
            assert forward_pass.policy.entropy is not None
            stored["entropy"] = forward_pass.policy.entropy
        weight = self._token_weights(batch, stored["ref_logps"])
        loss, sums = self._policy_loss(batch, forward_pass, stored, weight)
        if self.critic is not None and forward_pass.values is not None:
            old_values, returns = stored["values"], stored["returns"]
            value_losses, value_clipped = self.critic.losses(
                forward_pass.values, old_values, returns
            )
            value_loss = (value_losses * weight).sum()
            loss = loss + self.critic.vf_coef * value_loss
            sums["loss/value"] = (value_loss, weight.sum())
            sums["val/clipfrac"] = sum_and_count(value_clipped.float())
        return loss, sums

    def _policy_loss(
        self,
        batch: Batch,
        forward_pass: ForwardPass,
        stored: Mapping[TokenField, Tensor],
        weight: Tensor,
    ) -> tuple[Tensor, MetricSums]:
        """The objective's loss, the KL penalty and the entropy bonus, with their metrics."""
        new, new_logps = forward_pass.policy, forward_pass.policy.logps
        old_logps, ref_logps = stored["old_logps"], stored["ref_logps"]
        tokens = PolicyTokens(
            new_logps,
            old_logps,
            ref_logps,
            batch.trees.owner,
            entropy=stored["entropy"],
            sampler=stored["sampler_logps"],
            divergence=new.divergence,
        )
        token_losses = call_plugin(self.objective, self.objective, tokens, stored["advantages"])
        require_losses(self.objective, token_losses, new_logps, len(new_logps), "tokens")
        importance, sums = weight, MetricSums()
        if self.importance is not None:
            factors = self.importance.of_tokens(old_logps, stored["sampler_logps"])
            importance, sums = weight * factors, self.importance.metrics(factors)
        policy_loss = (token_losses * importance).sum()
        kl = kl_estimates(new_logps, ref_logps)[self.kl.estimator]
        kl_loss = (kl * importance).sum()
        loss = policy_loss
        if self.kl.where == "loss":
            loss = loss + self.kl_coefficient * kl_loss
        with torch.no_grad():
            ratio = (new_logps - old_logps).exp()
            approx_kl = kl_estimates(old_logps, new_logps)["k3"]
            clipped = self.objective.clip_mask(tokens).float()
        total_weight = weight.sum()
        if forward_pass.entropy is not None:
            loss = loss - self.entropy_coefficient * (forward_pass.entropy * importance).sum()
            sums[POLICY_ENTROPY] = ((forward_pass.entropy.detach() * weight).sum(), total_weight)
        if new.divergence is not None:
            sums["policy/divergence"] = ((new.divergence.detach() * weight).sum(), total_weight)
        sums |= {
            "loss/policy": (policy_loss, total_weight),
            "loss/kl": (kl_loss, total_weight),
            "policy/ratio": sum_and_count(ratio),
            "policy/approxkl": sum_and_count(approx_kl),
            "policy/clipfrac": sum_and_count(clipped),
        }
        return loss, sums

    def _ptx_losses(self, batch: Batch) -> tuple[Tensor, MetricSums]:
        """Cross-entropy of demonstrations, at temperature 1: they were not sampled at the policy's temperature."""
        losses = -self.models.tree_forward(batch.trees).logps
        return self.ptx_weight * losses.sum(), {"loss/ptx": sum_and_count(losses)}

    @property
    def _stored_names(self) -> list[TokenField]:
        """What it reads of the rollouts."""
        names: list[TokenField] = ["ref_logps", "advantages", "sampler_logps"]
        if not self.scores_policy:
            names += ["old_logps", "entropy"]
        if self.critic is not None:
            names += ["values", "returns"]
        return names

    def _token_weights(self, batch: Batch, like: Tensor) -> Tensor:
        """Weight of each token, ``[n]``; the tokens of a sequence share a weight of 1 under ``sequence``.

        Those of a response that is not learned from weigh nothing.
        """
        weight = torch.ones_like(like)
        if self.loss_aggregation == "sequence":
            owner = batch.trees.owner
            weight = 1 / sum_by_response(weight, owner, batch.trees.responses)[owner]
        learned = self.rollouts.learned_tokens(batch)
        return weight if learned is None else weight * learned.to(weight)
