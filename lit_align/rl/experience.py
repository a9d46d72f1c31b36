"""Experience of one iteration: sampled responses with scores, log-probabilities, values, rewards and advantages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_align.advantages import Advantage, Rollouts, masked_whiten
from lit_align.errors import ConfigError, OtherProcessFailed, TrainingError
from lit_align.jsonl import write_jsonl
from lit_align.models.generate import Completion
from lit_align.models.sample_responses import sample_responses, share_sampling
from lit_align.models.samplers import Sampler, SamplingRequest
from lit_align.models.samplers.base import sampling_to_learn
from lit_align.plugin_calls import call_plugin, describe_failure
from lit_align.plugin_contracts import advantages_fault, require_contract
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import as_response
from lit_align.rl.actor_critic import ActorCritic, ForwardPass
from lit_align.rl.kl_control import KLControl
from lit_align.rl.minibatches import Minibatch
from lit_align.rl.refill import ATTEMPT_STRIDE, Refill
from lit_align.rl.response_scores import shared_scores
from lit_align.rl.reward_shaping import RewardShaping
from lit_align.rl.rollouts import RolloutBatch
from lit_align.rl.scoring import OF_POLICY, score_rollouts
from lit_align.rl.selection import Selection
from lit_align.seeding import step_seed
from lit_align.types import Group, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ExperienceBuilder:
    """Samples responses and computes what an iteration learns from, in the order of its methods.

    Args:
        models: policy, reference and critic.
        tokenizer: of the base model.
        reward: scores the responses.
        advantage: estimator of advantages.
        kl: KL penalty against the reference.
        shaping: from scores to token rewards.
        whiten_rewards: scale token rewards to standard deviation 1; their mean stays.
        num_generations: responses to each prompt.
        prompts_at_once: prompts whose responses are decoded together.
        seed: seed of the run.
        folder: run folder, for the record of a reward that failed.
        sampler: what samples.
        selection: which responses are learned from.
        spare_prompts: what iterations are refilled from, where the selection asks for it.
    """

    models: ActorCritic
    tokenizer: PreTrainedTokenizerBase
    reward: Reward
    advantage: Advantage
    kl: KLControl
    shaping: RewardShaping
    whiten_rewards: bool
    num_generations: int
    prompts_at_once: int
    seed: int
    folder: Path
    sampler: Sampler
    selection: Selection = Selection()  # noqa: RUF009 - frozen
    spare_prompts: Sequence[Tree] = ()

    def sample(self, prompts: list[Tree], number: int) -> RolloutBatch:
        """Sample and score responses, and select what is learned from; validation has negative numbers.

        The random numbers depend on the seed, ``number`` and the prompts' places alone.

        Raises:
            TrainingError: if the reward fails or does not give each response one number. The prompts and responses are
                then in ``bad_reward.jsonl`` in the run folder.
        """
        rollouts = self.sample_once(prompts, number)
        self.select(rollouts)
        if self.selection.equal_scores == "refill" and number >= 0:
            rollouts, count = self._refill(number)(rollouts, number)
            self.select(rollouts, count)
        return rollouts

    def _refill(self, number: int) -> Refill:
        """What samples other prompts for an iteration."""

        def sample(prompts: list[Tree], attempt: int) -> RolloutBatch:
            rollouts = self.sample_once(prompts, number, attempt)
            self.select(rollouts)
            return rollouts

        return Refill(
            prompts=self.spare_prompts,
            attempts=self.selection.max_refills,
            seed=self.seed,
            sample=sample,
            select=self.select,
            reward=self.reward,
        )

    def select(self, rollouts: RolloutBatch, refilled: int = 0) -> None:
        """Decide which of the responses are compared and learned from.

        Args:
            rollouts: with scores.
            refilled: prompts that were sampled in the place of others.
        """
        rollouts.selected = self.selection.select(
            self.shaping.response_rewards(rollouts.scores, rollouts.ended, rollouts.mask),
            rollouts.scores.scored,
            rollouts.ended,
            rollouts.prompt,
        )
        rollouts.selection_metrics = self.selection.metrics(
            rollouts.selected, rollouts.scores.scored is not None, refilled
        )

    def sample_once(self, prompts: list[Tree], number: int, attempt: int = 0) -> RolloutBatch:
        """Sample and score responses to these prompts; all of them are selected.

        Args:
            prompts: of an iteration.
            number: of the iteration.
            attempt: how often it was refilled before.
        """
        processes = self.models.processes
        sample_some = partial(self._sample_some, prompts, number, attempt)
        sampled = share_sampling(self.sampler, processes, len(prompts), sample_some)
        trees, groups = [], []
        for tree, (generations, answers) in zip(prompts, sampled, strict=True):
            responses = [as_response(tree.group, answer) for answer in answers]
            ids = [completion.ids for completion in generations]
            group = tree.group._replace(
                responses=responses, prompt_ids=tree.prompt, response_ids=ids
            )
            scored = [[True] * len(response) for response in ids]
            trees.append(tree._replace(responses=ids, scored=scored, group=group))
            groups.append(group)
        flat = [completion for generations, _ in sampled for completion in generations]
        return RolloutBatch(
            trees=trees,
            groups=groups,
            ended=torch.tensor([completion.ended for completion in flat]),
            sampler_logps=pad_sequence([torch.tensor(c.logps) for c in flat], batch_first=True),
            scores=self._score_responses(trees),
        )

    def sampling_request(
        self, prompts: Sequence[Tree], number: int, places: Sequence[int], attempt: int = 0
    ) -> SamplingRequest:
        """How responses to the prompts at some places of an iteration are sampled."""
        drawn = number + attempt * ATTEMPT_STRIDE
        return SamplingRequest(
            [prompts[place].prompt for place in places],
            max_new_tokens=self.shaping.max_new_tokens,
            temperature=self.models.temperature,
            num_generations=self.num_generations,
            seed=step_seed(self.seed, drawn),
            prompt_indices=places,
            batch_size=min(self.prompts_at_once, len(places)) * self.num_generations,
            token_budget=self.models.token_budget,
            step=max(number, 0),
        )

    def _sample_some(
        self, prompts: Sequence[Tree], number: int, attempt: int, places: list[int]
    ) -> list[tuple[list[Completion], list[str]]]:
        """Responses to the prompts at some places, as completions and as texts."""
        request = self.sampling_request(prompts, number, places, attempt)
        with sampling_to_learn() if number >= 0 else nullcontext():
            completions, texts = sample_responses(
                self.sampler, self.models.adapters, self.tokenizer, request
            )
        return list(zip(completions, texts, strict=True))

    def _score_responses(self, trees: Sequence[Tree]) -> Scores:
        """Scores of all responses on the CPU, checked before anything is learned from them."""
        try:
            return shared_scores(self.reward, trees, self.models.processes)
        except OtherProcessFailed:  # that one keeps the record
            raise
        except Exception as error:  # the reward may be a plugin's
            groups = [tree.group for tree in trees]
            path = _write_bad_reward(groups, self.folder)
            reason = describe_failure(self.reward, error)
            raise TrainingError(
                f"{reason}; the prompts and responses, from {groups[0].source} on, are in {path}"
            ) from error

    def score(self, rollouts: RolloutBatch, first: Minibatch | None = None) -> ForwardPass | None:
        """Compute log-probabilities and values, as far as they are needed before the first update (`score_rollouts`).

        Args:
            rollouts: of an iteration.
            first: that of its first update; None if none follows.
        """
        rollouts.tokens["values"] = torch.zeros(rollouts.mask.shape)
        return score_rollouts(
            self.models,
            rollouts,
            first,
            with_critic=self.advantage.needs_critic,
            needs_policy=self.kl.where == "reward" or self.advantage.needs_policy,
        )

    def add_advantages(
        self, rollouts: RolloutBatch, kl_coefficient: float, baseline: float
    ) -> float | None:
        """Compute rewards, returns and advantages of all tokens.

        Args:
            rollouts: with values, and with log-probabilities where the KL penalty is part of the reward.
            kl_coefficient: β of this iteration.
            baseline: mean total reward of earlier iterations.

        Returns:
            The mean total reward of a response; None if none is compared.
        """
        kl_rewards = torch.zeros(rollouts.mask.shape)
        if self.kl.where == "reward":
            kl_rewards = -kl_coefficient * rollouts.kl[self.kl.estimator]
        rewards = self.shaping.token_rewards(
            rollouts.scores, rollouts.ended, rollouts.mask, kl_rewards
        )
        rollouts.tokens["rewards"] = rewards
        compared = rollouts.selected.compared
        rollouts.tokens["advantages"] = torch.zeros_like(rewards)
        rollouts.tokens["returns"] = rollouts.tokens["values"].clone()
        if not bool(compared.any()):
            return None
        self._check_tokens_read(rollouts)
        inputs = self._inputs(rollouts, rewards, baseline)
        advantages = call_plugin(self.advantage, self.advantage, inputs)
        require_contract(advantages_fault(self.advantage, advantages, inputs.rewards.shape))
        rollouts.tokens["returns"][compared] = (advantages + inputs.values).to(rewards)
        if self.advantage.whiten:
            advantages = masked_whiten(advantages, inputs.mask)
        rollouts.tokens["advantages"][compared] = advantages.to(rewards)
        return inputs.totals.mean().item()

    def _check_tokens_read(self, rollouts: RolloutBatch) -> None:
        """Refuse scores by token that the advantage would ignore.

        Raises:
            ConfigError: naming reward and advantage.
        """
        tokens = rollouts.scores.tokens
        if not self.advantage.reads_rewards and tokens is not None and bool(tokens.any()):
            raise ConfigError(
                f"{self.reward} gives scores by token, and {type(self.advantage).__name__} reads the parts of the "
                "scores alone; leave out the reward that gives them, or use GRPO"
            )

    def _inputs(self, rollouts: RolloutBatch, rewards: Tensor, baseline: float) -> Rollouts:
        """What the advantage sees: the responses that are compared, and no other."""
        compared = rollouts.selected.compared
        mask = rollouts.mask[compared]
        rewards = rewards[compared]
        if self.whiten_rewards:
            rewards = masked_whiten(rewards, mask, shift_mean=False)
        policy: dict[str, Tensor] = {}
        if self.advantage.needs_policy:
            policy = {name: rollouts.tokens[name][compared] for name in OF_POLICY}
        return Rollouts(
            rewards,
            mask,
            torch.unique(rollouts.prompt[compared], return_inverse=True)[1],
            rollouts.tokens["values"][compared],
            baseline=torch.tensor(baseline),
            parts={name: part[compared] for name, part in rollouts.scores.parts.items()},
            ended=rollouts.ended[compared],
            **policy,
        )


def _write_bad_reward(groups: Sequence[Group], folder: Path) -> Path:
    """Write prompts and responses to ``bad_reward.jsonl``, to call the reward on them outside of training."""
    rows = []
    for group in groups:
        columns = {"source": group.source, "prompt": group.prompt, "responses": group.responses}
        rows.append({**group.extra, **columns})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bad_reward.jsonl"
    write_jsonl(path, rows)
    return path
