"""What an iteration of RL is made with: the builder of experience, the models, the minibatches and the updates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from lit_align.advantages import Advantage
from lit_align.data.loader import StepLoader
from lit_align.objectives import PolicyObjective
from lit_align.processes import Processes
from lit_align.rewards import Reward
from lit_align.rl.actor_critic import ActorCritic, ForwardPass
from lit_align.rl.critic import Critic
from lit_align.rl.entropy_bonus import EntropyControl
from lit_align.rl.experience import ExperienceBuilder
from lit_align.rl.importance import ImportanceWeights
from lit_align.rl.kl_control import KLControl
from lit_align.rl.minibatches import Minibatch, shuffled_minibatches
from lit_align.rl.policy_update import LossAggregation, PolicyUpdate
from lit_align.rl.pretraining_mix import (
    PretrainingMix,
    add_demonstrations,
    demonstrations_of_update,
)
from lit_align.rl.reward_shaping import RewardShaping
from lit_align.rl.rollouts import RolloutBatch
from lit_align.rl.sampled_ahead import SampledAhead
from lit_align.rl.selection import Selection
from lit_align.rl.teaching import lecture_of
from lit_align.seeding import step_seed
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.types import Tree


class RLParts(LanguageModelStage):
    """Makes the parts of an iteration from the settings of `RL`, as they are when it asks for them."""

    reward: Reward
    advantage: Advantage
    kl: KLControl
    critic: Critic
    ptx: PretrainingMix | None
    shaping: RewardShaping
    selection: Selection
    ahead: SampledAhead
    num_generations: int
    num_iterations: int
    num_minibatches: int
    loss_aggregation: LossAggregation
    whiten_rewards: bool
    kl_coefficient: float
    entropy_control: EntropyControl
    importance_sampling_cap: float | None
    staleness: int
    _demonstrations: StepLoader | None

    @property
    def importance(self) -> ImportanceWeights | None:
        """Weights of tokens; None where the policy itself samples, or without a cap."""
        is_exact = self.sampler.is_exact and not self.staleness
        if is_exact or self.importance_sampling_cap is None:
            return None
        return ImportanceWeights(self.importance_sampling_cap)

    def experience_builder(self) -> ExperienceBuilder:
        """Samples and scores with the current settings and models."""
        return ExperienceBuilder(
            models=self.actor_critic(),
            tokenizer=self.tokenizer,
            reward=self.reward,
            advantage=self.advantage,
            kl=self.kl,
            shaping=self.shaping,
            whiten_rewards=self.whiten_rewards,
            num_generations=self.num_generations,
            prompts_at_once=self.datamodule.batch_size,
            seed=self.seed,
            folder=self.run_folder,
            sampler=self.ahead,
            selection=self.selection,
            spare_prompts=self.spare_prompts(),
        )

    def spare_prompts(self) -> Sequence[Tree]:
        """All training prompts, where iterations are refilled from them."""
        if self.selection.equal_scores != "refill":
            return []
        loader: Any = self.trainer.train_dataloader
        return loader.trees if isinstance(loader, StepLoader) else []

    def actor_critic(self) -> ActorCritic:
        """Policy, reference and critic, as experience and updates use them."""
        return ActorCritic(
            adapters=self.adapters,
            tree_forward=self.tree_forward,
            temperature=self.temperature,
            token_budget=self.datamodule.token_budget,
            block_sparse=self.block_sparse,
            device=self.device,
            out_of_memory_advice=self.out_of_memory_advice,
            processes=Processes.of(self.trainer),
            lecture=lecture_of(cast(PolicyObjective, self.objective), self.reward),
            has_entropy_bonus=self.entropy_control.bonus is not None,
        )

    def minibatches(self, rollouts: RolloutBatch) -> Iterator[Minibatch]:
        """Rollouts and demonstrations of each update, seeded by the iteration; none if no response is learned from."""
        seed = step_seed(self.seed, self.global_step)
        first_number = self.global_step * self.num_iterations * self.num_minibatches
        shuffled = shuffled_minibatches(
            rollouts.learned_trees(), self.num_iterations, self.num_minibatches, seed
        )
        for number, trees in enumerate(shuffled, first_number):
            step = rollouts.count_learned(self.actor_critic().pack_step(trees), trees)
            ptx_weight = 0.0
            if self.ptx is not None and self._demonstrations is not None:
                demonstrations = demonstrations_of_update(self._demonstrations, number)
                ptx_weight = self.ptx.token_weight(self.loss_denominator(step), demonstrations)
                step = add_demonstrations(step, demonstrations, self.device)
            yield Minibatch(step, ptx_weight, trees)

    def policy_update(
        self,
        rollouts: RolloutBatch,
        ptx_weight: float = 0.0,
        forward_pass: ForwardPass | None = None,
        scores_policy: bool = False,
    ) -> PolicyUpdate:
        """Losses of an update with the current settings and models."""
        return PolicyUpdate(
            models=self.actor_critic(),
            rollouts=rollouts,
            objective=cast(PolicyObjective, self.objective),
            kl=self.kl,
            kl_coefficient=self.kl_coefficient,
            critic=self.critic if self.advantage.needs_critic else None,
            loss_aggregation=self.loss_aggregation,
            ptx_weight=ptx_weight,
            forward_pass=forward_pass,
            scores_policy=scores_policy,
            importance=self.importance,
            entropy_coefficient=self.entropy_control.applied,
        )
