"""Stage 3a: RL from a reward, PPO and its family (Stiennon et al., 2020, https://arxiv.org/abs/2009.01325).

Its implementation details that matter are listed in `lit_align.rl`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from lit_align.advantages import Advantage
from lit_align.compat.lightning import count_global_step, step_optimizer_uncounted
from lit_align.data.loader import StepLoader
from lit_align.models.generate import check_context_length
from lit_align.models.load import disable_dropout, load_config
from lit_align.models.samplers import SampledModel
from lit_align.objectives import PolicyObjective
from lit_align.processes import Processes
from lit_align.rewards import Reward
from lit_align.rl.actor_critic import ForwardPass
from lit_align.rl.checks import check_settings, check_staleness
from lit_align.rl.critic import Critic
from lit_align.rl.diagnostics import RunDiagnostics
from lit_align.rl.entropy_bonus import EntropyBonus, EntropyControl
from lit_align.rl.experience import ExperienceBuilder
from lit_align.rl.gold_reward import gold_names
from lit_align.rl.importance import IMPORTANCE_METRICS
from lit_align.rl.kl_control import KLControl
from lit_align.rl.minibatches import Minibatch
from lit_align.rl.parts import RLParts
from lit_align.rl.policy_update import (
    LossAggregation,
    PolicyUpdate,
    loss_denominator,
    mean_update_metrics,
)
from lit_align.rl.pretraining_mix import (
    PretrainingMix,
    load_demonstrations,
)
from lit_align.rl.reward_shaping import RewardShaping
from lit_align.rl.rollouts import RESPONSE_METRICS, SAMPLE_METRICS, RolloutBatch
from lit_align.rl.sample_log import log_samples
from lit_align.rl.sampled_ahead import SampledAhead, is_last_step, next_prompts
from lit_align.rl.scoring import OF_POLICY
from lit_align.rl.seen_prompts import seen_metrics
from lit_align.rl.selection import EqualScores, Selection
from lit_align.rl.teaching import follow_policy, restore_teachers, teacher_states
from lit_align.stages.data_checks import tell_of_trained_prompts
from lit_align.stages.exact_step import MetricSums, StepSums
from lit_align.types import Batch, Step, Tree

BASELINE_ITERATIONS = 10
"""Iterations that the running mean of rewards, the baseline of Reinforce, is over."""


class RL(RLParts):
    """Sample from the policy, score, and increase the reward: PPO, RLOO, GRPO, REINFORCE.

    A training step is one iteration: responses to the step's prompts are sampled and scored, and learned from in
    ``num_iterations`` passes of ``num_minibatches`` updates each. Checkpoints fall between iterations, so a resumed run
    samples what the uninterrupted one would have.

    Several processes share sampling, the passes over the responses and the updates; all of them have all numbers of an
    iteration, so that each decides what a single process would.

    Args:
        objective: PPO, CISPO, DPPO or PolicyGradient; GKD for the whole distributions of a Teacher as reward.
        reward: scores the responses, by its name.
        advantage: GAE, RLOO, GRPO, Reinforce or GDPO; TopEntropy of one of them; ReverseKL for a Teacher as reward.
        kl: KL penalty against the reference policy.
        critic: value function; only GAE needs it.
        ptx: demonstrations to mix into every update; null mixes in none.
        entropy_bonus: keeps the policy uncertain, by a fixed or adaptive coefficient; null leaves it to the objective.
        num_generations: responses to each prompt; they share the forward pass over it.
        num_iterations: passes over an iteration's samples.
        num_minibatches: updates in a pass.
        loss_aggregation: mean over the tokens of a minibatch (``token``), mean over responses of their means
            (``sequence``), or the sum over tokens by responses times max_new_tokens (``constant``, as Dr. GRPO has it).
        missing_eos_reward: score of a response that max_new_tokens cut off, instead of the reward's; null keeps that.
        overlong_buffer: tokens before the limit over which a response loses up to 1 of its score.
        reward_clip: scores are clipped to plus and minus this; null clips nothing.
        whiten_rewards: scale token rewards to standard deviation 1 over an iteration; their mean stays.
        target_kl: end an iteration when the policy has moved this many nats a token since it sampled; null never does.
        temperature: of sampling, and of the policy and the reference when they are compared.
        importance_sampling_cap: largest importance weight of a token, for responses that were not sampled from the
            policy as it computes before an update: by another sampler than InProcess, or with staleness; null weighs
            all tokens alike.
        staleness: 1 samples the next step's responses before the policy learns from this step's, by a Served sampler
            while it learns; 0 samples from the newest policy.
        equal_scores: what becomes of a prompt whose responses all have the same score, which tells none of them apart:
            ``keep`` it, ``drop`` it, or ``refill`` the iteration with other prompts and drop what is left.
        max_refills: times that an iteration is refilled.
        mask_truncated: leave responses that max_new_tokens cut off out of the loss; their scores still count in the
            comparison with others.
        log_samples_every: iterations between two tables of samples, also in ``samples.jsonl``; 0 logs none.
        settings: settings that all stages share; max_new_tokens is the limit of a response.
    """

    validation_metrics = RESPONSE_METRICS

    def __init__(
        self,
        objective: PolicyObjective,
        reward: Reward,
        advantage: Advantage,
        kl: KLControl,
        critic: Critic,
        ptx: PretrainingMix | None = None,
        entropy_bonus: EntropyBonus | None = None,
        num_generations: int = 4,
        num_iterations: int = 1,
        num_minibatches: int = 1,
        loss_aggregation: LossAggregation = "token",
        missing_eos_reward: float | None = None,
        overlong_buffer: int = 0,
        reward_clip: float | None = None,
        whiten_rewards: bool = False,
        target_kl: float | None = None,
        temperature: float = 1.0,
        importance_sampling_cap: float | None = 2.0,
        staleness: int = 0,
        equal_scores: EqualScores = "keep",
        max_refills: int = 3,
        mask_truncated: bool = False,
        log_samples_every: int = 10,
        **settings: Any,
    ) -> None:
        self.reward, self.advantage, self.kl, self.critic = reward, advantage, kl, critic
        self.ptx = ptx
        super().__init__(objective, temperature=temperature, **settings)
        self.num_generations, self.num_iterations = num_generations, num_iterations
        self.num_minibatches, self.loss_aggregation = num_minibatches, loss_aggregation
        self.target_kl, self.log_samples_every = target_kl, log_samples_every
        self.whiten_rewards = whiten_rewards
        self.importance_sampling_cap, self.staleness = importance_sampling_cap, staleness
        self.ahead = SampledAhead(self.sampler)
        self.shaping = RewardShaping(
            self.max_new_tokens, missing_eos_reward, overlong_buffer, reward_clip
        )
        self.selection = Selection(
            advantage.min_generations, equal_scores, max_refills, mask_truncated
        )
        check_settings(self)
        self.kl_coefficient = kl.coefficient
        self.entropy_control = EntropyControl(entropy_bonus)
        self.recent_rewards: list[float] = []  # mean total reward of each recent iteration
        self.diagnostics = RunDiagnostics()
        self._trained_prompts: frozenset[str] = frozenset()  # of the reward model
        self._demonstrations: StepLoader | None = None
        self._policy_update: PolicyUpdate | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names, by the names that dashboards of RLHF use."""
        losses: tuple[str, ...] = ("loss/policy", "loss/value", "loss/kl", "loss/ptx")
        if self.objective.divergence_from is not None:
            losses = (*losses, "policy/divergence")
        names = ("policy/clipfrac", "policy/approxkl", "policy/ratio", "val/clipfrac", *losses)
        names = (*names, *self.entropy_control.update_metrics)
        return names if self.importance is None else (*names, *IMPORTANCE_METRICS)

    def training_names(self) -> list[str]:
        """With the metrics of the samples and of an iteration's updates."""
        names = [*super().training_names(), *SAMPLE_METRICS, "policy/first_ratio", "updates"]
        names += self.entropy_control.sample_metrics
        return [*names, *self.selection.metric_names(False)]

    @property
    def trained_roles(self) -> tuple[str, ...]:
        """The policy, and a critic where the advantages need one."""
        return ("policy", "critic") if self.advantage.needs_critic else ("policy",)

    @property
    def head_sizes(self) -> dict[str, int]:
        """The critic has one output: the value."""
        return {"critic": 1} if self.advantage.needs_critic else {}

    def setup(self, stage: str) -> None:
        """Check prompt lengths before any weights are loaded."""
        check_staleness(self.staleness, self.sampler)
        super().setup(stage)
        if stage != "predict":
            self.sampler.check(self.base, self.lora, self.tokenizer)
        for trees in self.datamodule.trees.values():
            self.check_prompt_lengths(trees)
        if stage == "fit":
            self._trained_prompts = tell_of_trained_prompts(
                self.reward, self.datamodule.trees["train"]
            )
        if stage == "fit" and self.ptx is not None:
            self._demonstrations = load_demonstrations(self.ptx, self.datamodule)

    def check_prompt_lengths(self, trees: Sequence[Tree]) -> None:
        """Refuse prompts that leave too few positions of the model for a response."""
        longest = max(len(tree.prompt) for tree in trees)
        check_context_length(load_config(self.base), longest, self.max_new_tokens)

    def configure_model(self) -> None:
        """Load the base with its adapters, initialize the critic, and attach the reward."""
        if self._adapters is not None:
            return
        super().configure_model()
        # the policy samples and learns in train mode, which checkpointing needs: dropout would make ratios noise
        disable_dropout(self.adapters.model)
        if self.advantage.needs_critic:
            self.critic.initialize(self.adapters, self.tokenizer)
        self.reward.attach(self.adapters, self.tokenizer)

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        """Policy and critic: the gradient of each is clipped by its own norm."""
        return self.adapters.trainable_by_role()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Policy and critic; the critic may have a learning rate of its own."""
        return self.critic.parameter_groups(self.clipping_groups())

    @property
    def updates_per_step(self) -> int:
        """Updates in an iteration."""
        return self.num_iterations * self.num_minibatches

    @property
    def lr_names(self) -> tuple[str, ...]:
        """Those of the policy and of the critic."""
        return ("lr", "lr/critic")

    def loss_denominator(self, step: Step) -> int:
        """Sampled tokens, responses, or tokens that there could be."""
        return loss_denominator(self.loss_aggregation, step, self.max_new_tokens)

    def training_step(self, step: Step, batch_idx: int) -> None:
        """One iteration: sample, score, estimate advantages, update the policy, adapt the coefficients, log."""
        experience = self.experience_builder()
        rollouts = experience.sample(step.trees, self.global_step)
        self.sample_ahead(experience, batch_idx)
        minibatches = self.minibatches(rollouts)
        first = next(minibatches, None)
        forward_pass = experience.score(rollouts, first)
        baseline = fmean(self.recent_rewards) if self.recent_rewards else 0.0
        mean_reward = experience.add_advantages(rollouts, self.kl_coefficient, baseline)
        if mean_reward is not None:
            self.recent_rewards = [*self.recent_rewards, mean_reward][-BASELINE_ITERATIONS:]
        updates = () if first is None else chain([first], minibatches)
        update_metrics = self.update_policy(rollouts, updates, forward_pass)
        rollout_metrics = rollouts.metrics(self.kl_coefficient, self.advantage.needs_critic)
        is_logged = self.log_samples_every and self.global_step % self.log_samples_every == 0
        if is_logged and self.trainer.is_global_zero:
            log_samples(rollouts, self.global_step, self.run_folder)
        count_global_step(self.trainer)

        self.kl_coefficient = self.kl.adapt(
            self.kl_coefficient, rollout_metrics["objective/kl"], len(rollouts.length)
        )
        golds = gold_names(self.reward, self.advantage.read_parts)
        rollout_metrics |= self.entropy_control.end_iteration(rollout_metrics["objective/entropy"])
        rollout_metrics |= seen_metrics(rollouts, self._trained_prompts, golds)
        self.diagnostics.observe(rollout_metrics, self.global_step, golds)
        metrics = {**rollout_metrics, **update_metrics}
        grad_norm = torch.tensor(metrics.pop("grad_norm"))
        self.log_step(
            rollouts.logged_step(step, experience.models.share(rollouts.trees)), metrics, grad_norm
        )

    def sample_ahead(self, experience: ExperienceBuilder, batch_idx: int) -> None:
        """Begin to sample the responses of the next step, if the run has one and they may be a step old."""
        number = self.global_step + 1
        is_last = is_last_step(self.trainer, self.global_step)
        begins = self.staleness and not is_last and experience.models.processes.is_first
        prompts = next_prompts(self.trainer, batch_idx) if begins else []
        if prompts:
            request = experience.sampling_request(prompts, number, range(len(prompts)))
            policy = SampledModel.of_role(self.adapters, self.tokenizer)
            self.ahead.begin(number, policy, request)

    def update_policy(
        self,
        rollouts: RolloutBatch,
        minibatches: Iterable[Minibatch],
        forward_pass: ForwardPass | None,
    ) -> dict[str, float]:
        """All updates of an iteration; their mean metrics.

        Args:
            rollouts: with advantages.
            minibatches: of each update.
            forward_pass: over the only micro-batch of the first one; None if it has several.
        """
        metrics: dict[str, list[float]] = defaultdict(list)
        # otherwise they were computed, and gathered, before the first update
        lacks_policy = self.kl.where == "loss" and not self.advantage.needs_policy
        for minibatch in minibatches:
            scores_policy = lacks_policy and forward_pass is None
            update = self.policy_update(rollouts, minibatch.ptx_weight, forward_pass, scores_policy)
            self._policy_update = update
            values, norm = self.update(minibatch.step, statistics=True)
            if lacks_policy:
                rollouts.set_tokens(update.scored)
                rollouts.gather_tokens(OF_POLICY, Processes.of(self.trainer))
            forward_pass, lacks_policy = None, False  # the policy moves with each update
            for name, value in {**values, "grad_norm": float(norm)}.items():
                metrics[name].append(value)
            if self.target_kl is not None and values["policy/approxkl"] > self.target_kl:
                break
        self._policy_update = None
        return mean_update_metrics(metrics)

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, MetricSums]:
        """Summed loss of one micro-batch of the current update, and sums of its metrics."""
        assert self._policy_update is not None
        return self._policy_update.losses(batch)

    def after_step(self, metrics: dict[str, float], sums: StepSums) -> None:
        """Move teachers that follow the policy."""
        super().after_step(metrics, sums)
        follow_policy(self.reward)

    def step_optimizer(self) -> None:
        """Run the optimizer; `training_step` counts the iteration as one global step."""
        step_optimizer_uncounted(self)

    @torch.no_grad()
    def validation_step(self, step: Step, batch_idx: int) -> None:
        """Metrics of fresh responses to held-out prompts, with the same random numbers each time."""
        experience = self.experience_builder()
        rollouts = experience.sample(step.trees, -1 - batch_idx)
        experience.score(rollouts)
        self.validation.add_values(rollouts.response_metrics(), self.device)

    def on_train_end(self) -> None:
        """Draw the reward against the KL divergence of the run."""
        if self.trainer.is_global_zero:
            self.diagnostics.draw_reward_kl(self.run_folder / "reward_kl.png")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the coefficients, the baseline, the diagnostics, and what is sampled ahead too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["rl"] = {
            "kl_coefficient": self.kl_coefficient,
            "entropy_control": self.entropy_control.state(),
            "recent_rewards": self.recent_rewards,
            "diagnostics": asdict(self.diagnostics),
            "teachers": teacher_states(self.reward),
            "ahead": self.ahead.state(self.global_step, waits=not self.trainer.received_sigterm),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["rl"]
        if not self.resumption.has_changed("model.kl"):
            self.kl_coefficient = state["kl_coefficient"]
        if not self.resumption.has_changed("model.entropy_bonus"):
            self.entropy_control.restore(state.get("entropy_control", {}))
        self.recent_rewards = state["recent_rewards"]
        if self.staleness:
            self.ahead.restore(state.get("ahead", []))
        restore_teachers(self.reward, state.get("teachers", []))
        self.diagnostics = RunDiagnostics(**state["diagnostics"])
