"""Stage 3a: improve the policy against a reward (Stiennon et al., 2020, https://arxiv.org/abs/2009.01325).

What such a stage must get right (after Huang et al., 2024, https://arxiv.org/abs/2403.17031), where, and what shows it:

====================================================  ==========================  ====================================
no dropout while learning                             ``models.load``             test_dropout_of_the_base_is_off
prompts padded left, positions given                  ``models.generate``         test_sampled_logps_are_those_of_the
one temperature for sampling and log-probabilities    ``RL.temperature``          test_the_first_iteration_starts_at
nothing cut off by rank or mass                       ``generate.sample``         test_tokens_come_as_often_as_they
ends at the first end, which counts as a token        ``models.generate``         test_sampled_logps_are_those_of_the
a score for what has no end, or nearly none           ``RL.missing_eos_reward, overlong``     test_a_missing_end_and_a_far_score
reward model read at the last token                   ``rewards.trained``         test_the_folder_scores_as_the_run_did
reward model normalised                               ``RewardModel.normalise``   test_zero_is_an_ordinary_preferred
critic begins with the reward model, or at zero       ``Critic.begin``            test_a_critic_begins_with_what_the
KL by token before advantages, score at the last      ``RL.score``                test_what_tokens_earn
k1, k2 and k3 logged, one of them paid                ``functional.kl``           test_what_is_logged
KL at a fixed price or held at a target               ``KL.adapted``              test_the_price_of_kl_moves_towards
rewards whitened, their mean kept                     ``RL.whiten_rewards``       test_what_tokens_earn
advantages whitened over all tokens                   ``advantages.whitened``     test_whitening_is_torchtunes
GAE, nothing behind the end                           ``advantages.gae``          test_gae_is_its_sum
value of what was said before a token                 ``RL._values``              test_a_critic_begins_with_what_the
value loss clipped, halved                            ``Critic.losses``           test_what_was_half_wrong
ratio clipped, higher above, from both sides          ``objectives.ppo``          test_a_ratio_is_clipped_on_its_side
epochs of shuffled minibatches, first ratio 1         ``RL._updates``             test_minibatches_are_other_ones_in
micro-batches change nothing                          ``LanguageModelStage.update``  test_minibatches_and_budgets_do_not
stops where it moved too far                          ``RL.target_kl``              test_an_iteration_ends_where_the
ε of Adam as given                                    ``RL.optimizer``            test_rates_fall_with_each_update
learning rate annealed                                ``RL.lr_scheduler``         test_rates_fall_with_each_update
scores clipped                                        ``RL.reward_clip``          test_a_missing_end_and_a_far_score
what to watch is logged                               ``RolloutBatch.figures``         test_what_is_logged
reference is the base, KL 0 at first                  ``models.roles``            test_the_first_iteration_starts_at
gap between sampler and training pass logged          ``policy/sampler_gap``      test_the_first_iteration_starts_at
resumes bit for bit                                   ``StepLoader``, seeds by step test_a_killed_run_goes_on_bit_for_bit
====================================================  ==========================  ====================================
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_align.advantages import Advantage, Rollouts, whitened
from lit_align.compat.lightning import count_global_step, step_optimizer_uncounted
from lit_align.data.datamodules import to_device
from lit_align.data.loader import StepLoader
from lit_align.data.packing import pack
from lit_align.errors import ConfigError
from lit_align.functional.kl import kl_estimates
from lit_align.models.generate import check_context_length, sample
from lit_align.models.load import load_config, without_dropout
from lit_align.objectives import PolicyObjective
from lit_align.rewards import Reward
from lit_align.rl.critic import Critic
from lit_align.rl.diagnostics import complaints
from lit_align.rl.kl_control import KLControl
from lit_align.rl.pretraining_mix import PretrainingMix, demonstrations, drawn
from lit_align.rl.rollouts import RolloutBatch, gathered, sampling
from lit_align.rl.sample_log import keep, plot
from lit_align.seeding import step_seed
from lit_align.stages.exact_step import MetricSums
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.types import Batch, PolicyTokens, Step, Tree

KEPT = ("coefficient", "earned", "first", "said", "path")


class RL(LanguageModelStage):
    """Sample from the policy, score, and move towards what did better: PPO, RLOO, GRPO, REINFORCE.

    A training step is one iteration: responses to the step's prompts are sampled and scored, and learned from in
    ``epochs`` passes of ``minibatches`` updates each. Checkpoints fall between iterations, so a resumed run samples
    what the uninterrupted one would have.

    Args:
        objective: PPO or PolicyGradient.
        reward: what scores responses, by its name.
        advantage: GAE, RLOO, GRPO or Reinforce.
        kl: the price of leaving the reference.
        critic: what GAE needs.
        ptx: demonstrations to learn beside it; null has none.
        num_generations: responses to each prompt; they share the pass over it.
        num_iterations: passes over an iteration's samples.
        num_minibatches: updates in a pass.
        loss_aggregation: whether every ``token`` of a minibatch weighs the same, or every ``sequence``.
        missing_eos_reward: score of a response that the limit of tokens cut off, instead of the reward's; null leaves it.
        overlong_buffer: tokens before the limit over which a response comes to lose 1 of its score (Yu et al., 2025,
            https://arxiv.org/abs/2503.14476, eq. 13).
        reward_clip: scores are held within plus and minus this; null leaves them.
        whiten_rewards: bring what tokens earned to deviation 1 over an iteration, their mean left as it is.
        target_kl: leave an iteration when the policy has moved this many nats a token since it sampled; null never does.
        temperature: at which responses are sampled, and at which policy and reference are compared.
        log_samples_every: iterations from one table of samples to the next, also in ``samples.jsonl``; 0 shows none.
        settings: everything that all stages share; max_new_tokens is the limit of a response.
    """

    validation_metrics = (
        "objective/scores",
        "objective/kl",
        "objective/length",
        "objective/eos_rate",
    )

    def __init__(
        self,
        objective: PolicyObjective,
        reward: Reward,
        advantage: Advantage,
        kl: KLControl,
        critic: Critic,
        ptx: PretrainingMix | None = None,
        num_generations: int = 4,
        num_iterations: int = 1,
        num_minibatches: int = 1,
        loss_aggregation: Literal["token", "sequence"] = "token",
        missing_eos_reward: float | None = None,
        overlong_buffer: int = 0,
        reward_clip: float | None = None,
        whiten_rewards: bool = False,
        target_kl: float | None = None,
        temperature: float = 1.0,
        log_samples_every: int = 10,
        **settings: Any,
    ) -> None:
        over: dict[str, Any] = {
            "num_generations": num_generations,
            "num_iterations": num_iterations,
            "num_minibatches": num_minibatches,
            "target_kl": target_kl,
        }
        over |= {
            "temperature": temperature,
            "reward_clip": reward_clip,
            "overlong": overlong_buffer or None,
        }
        for name, value in {**over, "max_new_tokens": settings.get("max_new_tokens")}.items():
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; it must be over 0")
        if num_generations < advantage.min_generations:
            raise ConfigError(
                f"num_generations is {num_generations}, and {type(advantage).__name__} compares at least {advantage.min_generations} responses "
                "to a prompt; raise num_generations"
            )
        if critic.init_from is not None and not advantage.needs_critic:
            raise ConfigError(
                f"critic.init_from is {critic.init_from!r}, and {type(advantage).__name__} needs no critic; set it to null"
            )
        self.reward, self.advantage, self.kl, self.critic, self.ptx = (
            reward,
            advantage,
            kl,
            critic,
            ptx,
        )
        super().__init__(objective, temperature=temperature, **settings)
        if self.lora.dropout:
            raise ConfigError(
                f"lora.dropout is {self.lora.dropout}; set it to 0, or ratios would be noise"
            )
        self.num_generations, self.num_iterations, self.num_minibatches = (
            num_generations,
            num_iterations,
            num_minibatches,
        )
        self.loss_aggregation, self.missing_eos_reward, self.overlong_buffer, self.reward_clip = (
            loss_aggregation,
            missing_eos_reward,
            overlong_buffer,
            reward_clip,
        )
        self.whiten_rewards, self.target_kl, self.log_samples_every = (
            whiten_rewards,
            target_kl,
            log_samples_every,
        )
        self.coefficient = kl.coefficient
        self.earned: list[float] = []  # mean total of each of the newest iterations
        self.first: dict[str, float] = {}  # figures of the first iteration
        self.said: list[str] = []  # complaints
        self.path: list[tuple[float, float]] = []  # KL and score of every iteration
        self._demonstrations: StepLoader | None = None  # demonstrations
        self._demonstration_weight = 0.0  # of each of their tokens, in the update that is under way
        self._now: RolloutBatch | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names, as dashboards know them."""
        losses = ("loss/policy", "loss/value", "loss/kl", "loss/ptx")
        return ("policy/clipfrac", "policy/approxkl", "policy/ratio", "val/clipfrac", *losses)

    @property
    def trained_roles(self) -> tuple[str, ...]:
        """The policy, and a critic where the advantages need one."""
        return ("policy", "critic") if self.advantage.needs_critic else ("policy",)

    @property
    def head_sizes(self) -> dict[str, int]:
        """The critic has one output: the value."""
        return {"critic": 1} if self.advantage.needs_critic else {}

    def setup(self, stage: str) -> None:
        """Refuse what it is not made for, before any weights are loaded."""
        super().setup(stage)
        if (world := self.trainer.world_size) > 1:
            raise ConfigError(
                f"RL runs on one process, and there are {world}; set trainer.devices to 1"
            )
        for trees in self.datamodule.trees.values():
            self.check_room(trees)
        if stage == "fit" and self.ptx is not None:
            self._demonstrations = demonstrations(self.ptx, self.datamodule)

    def check_room(self, trees: list[Tree]) -> None:
        """Refuse prompts behind which the model has too few positions for a response."""
        check_context_length(
            load_config(self.base), max(len(tree.prompt) for tree in trees), self.max_new_tokens
        )

    def configure_model(self) -> None:
        """Load the base and its roles; the critic gets its first weights, and the reward takes what it needs."""
        if self._adapters is not None:
            return
        super().configure_model()
        without_dropout(
            self.adapters.model
        )  # in train mode, which checkpointing needs, ratios would be noise
        if self.advantage.needs_critic:
            self.critic.begin(self.adapters, self.tokenizer)
        self.reward.attach(self.adapters, self.tokenizer)

    def clipping_groups(self) -> list[list[nn.Parameter]]:
        """Policy and critic apart: what the one still has to learn must not slow the other down."""
        named = self.adapters.trainable()
        return [
            [p for name, p in named.items() if f".{role}." in name]
            for role in self.adapters.trained_roles
        ]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The same; the critic may have a learning rate of its own."""
        policy, *critic = self.clipping_groups()
        own = {} if self.critic.lr is None else {"lr": self.critic.lr}
        return [{"params": policy}, *({"params": one, **own} for one in critic)]

    def loss_denominator(self, step: Step) -> int:
        """Sampled tokens or responses."""
        return step.tokens if self.loss_aggregation == "token" else step.items

    # ------------------------------------------------------------------ one iteration

    def training_step(self, step: Step, batch_idx: int) -> None:
        """Sample, score, learn; Lightning counts it as one step, however many updates it takes."""
        self._now = self.sampled(
            [tree for batch in step.batches for tree in batch.source], self.global_step
        )
        self.score(self._now)
        if self.log_samples_every and self.global_step % self.log_samples_every == 0:
            keep(self._now, self.global_step, Path(self.trainer.default_root_dir))
        figures = self._now.figures(self.coefficient, self.advantage.needs_critic)
        learned: dict[str, list[float]] = defaultdict(list)
        for one in self._updates(self._now):
            metrics, norm = self.update(one, statistics=True)
            for name, value in {**metrics, "grad_norm": float(norm)}.items():
                learned[name].append(value)
            if self.target_kl is not None and metrics["policy/approxkl"] > self.target_kl:
                break
        count_global_step(self.trainer)
        means = {name: statistics.fmean(values) for name, values in learned.items()}
        means |= {
            "policy/first_ratio": learned["policy/ratio"][0],
            "updates": float(len(learned["loss"])),
        }
        self.coefficient = self.kl.adapted(
            self.coefficient, figures["objective/kl"], len(self._now.length)
        )
        self.path.append((figures["objective/kl"], figures["objective/scores"]))
        self.first = self.first or figures
        for name, words in complaints(self.first, figures).items():
            if name not in self.said:
                self.said.append(name)
                rank_zero_warn(f"step {self.global_step}: {words}")
        read = step.batches[0]._replace(source=tuple(self._now.trees))
        step = step._replace(batches=(read,), tokens=int(self._now.length.sum()))
        self.log_step(step, {**figures, **means}, torch.tensor(means.pop("grad_norm")))
        self._now = None

    def step_optimizer(self) -> None:
        """Run the optimizer; `training_step` counts the iteration once."""
        step_optimizer_uncounted(self)

    def sampled(self, trees: list[Tree], number: int) -> RolloutBatch:
        """Responses to the prompts of ``trees``, with their scores; ``number`` seeds them."""
        data = self.datamodule
        together = min(data.batch_size, len(trees)) * self.num_generations
        with (
            sampling(together, self.max_new_tokens),
            self.adapters.activate("policy", training=False) as model,
        ):
            found = sample(
                model,
                self.tokenizer,
                [tree.prompt for tree in trees],
                max_new_tokens=self.max_new_tokens,
                num_generations=self.num_generations,
                temperature=self.temperature,
                seed=step_seed(self.seed, number),
                batch_size=together,
                token_budget=data.token_budget,
            )
        texts = [
            [str(self.tokenizer.decode(one.ids, skip_special_tokens=True)) for one in row]
            for row in found
        ]
        return gathered(trees, found, texts, self.reward, Path(self.trainer.default_root_dir))

    @torch.no_grad()
    def score(self, now: RolloutBatch) -> None:
        """What policy, reference and critic say of each token, what it earned, and its advantage."""
        self.score_alone(now)
        for batch in self._packed(now.trees) if self.advantage.needs_critic else ():
            with self.out_of_memory_advice(batch):
                now.keep("value", batch, self._values(batch, training=False))
        now.tokens.setdefault("value", torch.zeros(now.mask.shape))
        divergence = (
            kl_estimates(now.tokens["policy"], now.tokens["reference"])[self.kl.estimator]
            * now.mask
        )
        rewards = (
            -self.coefficient * divergence
            if self.kl.where == "reward"
            else torch.zeros(now.mask.shape)
        )
        if now.scores.tokens is not None:
            rewards[now.mask] += now.scores.tokens
        rewards[torch.arange(len(rewards)), now.length - 1] += self._earned(now)
        now.tokens["reward"] = rewards
        if self.whiten_rewards:
            rewards = whitened(rewards, now.mask, centre=False)
        baseline = torch.tensor(statistics.fmean(self.earned) if self.earned else 0.0)
        rollouts = Rollouts(rewards, now.mask, now.prompt, now.tokens["value"], baseline)
        advantages = self.advantage(rollouts)
        now.tokens["return"] = advantages + now.tokens["value"]
        now.tokens["advantage"] = (
            whitened(advantages, now.mask) if self.advantage.whiten else advantages
        )
        self.earned = [*self.earned[-9:], rollouts.totals.mean().item()]

    def _earned(self, now: RolloutBatch) -> Tensor:
        """The score of each response, as it counts, ``[responses]``."""
        total = now.scores.total
        if self.reward_clip is not None:
            total = total.clamp(-self.reward_clip, self.reward_clip)
        if self.missing_eos_reward is not None:
            total = torch.where(now.ended, total, self.missing_eos_reward)
        if self.overlong_buffer:
            total = total - (1 + (now.length - self.max_new_tokens) / self.overlong_buffer).clamp(
                min=0
            )
        return total

    def _packed(self, trees: list[Tree]) -> Iterator[Batch]:
        budget = max(self.datamodule.token_budget, *(tree.tokens for tree in trees))
        return (
            to_device(batch, self.device)
            for batch in pack(trees, budget, dense=not self.block_sparse)
        )

    def _values(self, batch: Batch, training: bool) -> Tensor:
        """What the critic expects before each token, ``[n]``."""
        with self.adapters.activate("critic", training):
            values: Tensor = self.adapters.head("critic")(self.tree_forward.hidden(batch.trees))[
                :, 0
            ]
        return values

    def _updates(self, now: RolloutBatch) -> Iterator[Step]:
        """Minibatches of whole prompts, and of demonstrations, in an order that depends on seed and step alone."""
        draw = torch.Generator().manual_seed(step_seed(self.seed, self.global_step))
        orders = [
            torch.randperm(len(now.trees), generator=draw) for _ in range(self.num_iterations)
        ]
        parts = [
            part
            for order in orders
            for part in order.tensor_split(min(self.num_minibatches, len(order)))
        ]
        for number, part in enumerate(
            parts, self.global_step * self.num_iterations * self.num_minibatches
        ):
            trees = [now.trees[i] for i in part.tolist()]
            step = Step.from_batches(tuple(self._packed(trees)))._replace(
                items=sum(len(tree.responses) for tree in trees)
            )
            if self.ptx is not None and self._demonstrations is not None:
                more = drawn(self._demonstrations, number)
                self._demonstration_weight = (
                    self.ptx.weight * self.loss_denominator(step) / more.tokens
                )
                batches = (to_device(batch, self.device) for batch in more.batches)
                step = step._replace(batches=(*step.batches, *batches))
            yield step

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, MetricSums]:
        """Summed loss of the tokens of one micro-batch of what was sampled in this iteration."""
        now = cast(RolloutBatch, self._now)
        if id(batch.source[0]) not in now.number:
            return self._imitated(batch)
        owner, training = batch.trees.owner, self.adapters.peft.training
        names = ("policy", "reference", "advantage", "value", "return")
        told = {name: now.take(name, batch, self.device) for name in names}
        weight = torch.ones_like(told["policy"])
        if self.loss_aggregation == "sequence":
            weight = 1 / torch.bincount(owner)[owner].float()
        new = self.tree_forward(batch.trees, temperature=self.temperature).logps
        tokens = PolicyTokens(new, told["policy"], told["reference"], owner)
        objective = cast(PolicyObjective, self.objective)
        policy = (objective(tokens, told["advantage"]) * weight).sum()
        divergence = (kl_estimates(new, told["reference"])[self.kl.estimator] * weight).sum()
        loss = policy + self.coefficient * divergence if self.kl.where == "loss" else policy
        n, whole = (
            weight.new_tensor(float(len(weight))),
            weight.sum(),
        )  # tokens; and what they count for together
        sums: MetricSums = {"loss/policy": (policy, whole), "loss/kl": (divergence, whole)}
        if self.advantage.needs_critic:
            each, clipped = self.critic.losses(
                self._values(batch, training), told["value"], told["return"]
            )
            value = (each * weight).sum()
            loss = loss + self.critic.vf_coef * value
            sums |= {"loss/value": (value, whole), "val/clipfrac": (clipped.float().sum(), n)}
        with torch.no_grad():
            ratio = (new - told["policy"]).exp()
            sums |= {
                "policy/ratio": (ratio.sum(), n),
                "policy/approxkl": (kl_estimates(told["policy"], new)["k3"].sum(), n),
                "policy/clipfrac": (objective.clip_mask(tokens).float().sum(), n),
            }
        return loss, sums

    def _imitated(self, batch: Batch) -> tuple[Tensor, MetricSums]:
        """Cross-entropy of demonstrations; at temperature 1, for nobody sampled them."""
        losses = -self.tree_forward(batch.trees).logps
        n = losses.new_tensor(float(len(losses)))
        return self._demonstration_weight * losses.sum(), {"loss/ptx": (losses.sum(), n)}

    # ------------------------------------------------------------------ what is shown and kept

    @torch.no_grad()
    def validation_step(self, step: Step, batch_idx: int) -> None:
        """Scores of fresh responses to held-out prompts, the same draw of luck each time."""
        now = self.sampled(
            [tree for batch in step.batches for tree in batch.source], -1 - batch_idx
        )
        self.score_alone(now)
        n = torch.tensor(float(len(now.length)), device=self.device)
        estimates = kl_estimates(now.tokens["policy"], now.tokens["reference"])["k1"] * now.mask
        for name, values in {
            "objective/scores": now.scores.total,
            "objective/kl": estimates.sum(1),
            "objective/length": now.length.float(),
            "objective/eos_rate": now.ended.float(),
        }.items():
            self.validation[name].update(values.mean().to(self.device), weight=n)

    def score_alone(self, now: RolloutBatch) -> None:
        """What policy and reference say of each token, without learning anything from it."""
        for batch in self._packed(now.trees):
            for role in ("policy", "reference"):
                with self.out_of_memory_advice(batch), self.adapters.activate(role, training=False):
                    tokens = self.tree_forward(batch.trees, role == "policy", self.temperature)
                now.keep(role, batch, tokens.logps)
                if tokens.entropy is not None:
                    now.keep("entropy", batch, tokens.entropy)

    def on_train_end(self) -> None:
        """Draw how much reward each nat has bought."""
        if self.path:
            plot(self.path, Path(self.trainer.default_root_dir) / "reward_kl.png")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the price of KL and the running mean too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["rl"] = {name: getattr(self, name) for name in KEPT}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        super().on_load_checkpoint(checkpoint)
        for name in KEPT:
            setattr(self, name, checkpoint["rl"][name])
