"""The time of a step of a run, by phase: parts are measured on this machine, on a model of few layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from lit_align.checks import check_at_least, check_positive
from lit_align.cli.memory_report import reward_parts
from lit_align.data.datamodules import TextDataModule
from lit_align.errors import ConfigError
from lit_align.memory.planner import Plan
from lit_align.models.inventory import Inventory
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.rl.stage import RL
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.sharded_base import NAME, ShardedBase
from lit_align.throughput.parts import FEW_LAYERS, PartTimes
from lit_align.throughput.prediction import Cluster, StepTime, alternatives, predict
from lit_align.throughput.work import Kind, Sampling, StepWork, typical_step, with_responses
from lit_align.types import Tree

if TYPE_CHECKING:
    from rich.console import Console

SAMPLERS = ("in_process", "served")
DEFAULT_LINK = 10.0  # GB/s


@dataclass(frozen=True)
class TimeOptions:
    """What the time of a step is asked for.

    Args:
        cards: processes, each with a card of its own; None asks for no time.
        sampler: where responses are sampled.
        sampler_speed: tokens a second of the engine that serves them.
        response_tokens: tokens of a response; None is max_new_tokens.
        link: GB/s between cards.

    Raises:
        ConfigError: if options do not go together.
        ValueError: if a number is out of range.
    """

    cards: int | None = None
    sampler: str = "in_process"
    sampler_speed: float | None = None
    response_tokens: int | None = None
    link: float = DEFAULT_LINK

    def __post_init__(self) -> None:
        if self.cards is not None:
            check_at_least("cards", self.cards, 1)
        for name in ("sampler_speed", "response_tokens", "link"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value)
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"sampler is {self.sampler!r}; give one of {', '.join(SAMPLERS)}")
        if self.sampler == "served" and self.sampler_speed is None:
            raise ConfigError(
                "sampler is served, and how fast it is cannot be measured here; give --sampler_speed, its tokens a "
                "second with as many requests as a step has, as `vllm bench serve` prints them"
            )
        if self.sampler != "served" and self.sampler_speed is not None:
            raise ConfigError(
                f"sampler_speed is {self.sampler_speed:g}, and sampler is {self.sampler}; add --sampler served"
            )

        has_numbers = self.response_tokens is not None or self.link != DEFAULT_LINK
        if has_numbers and not self.is_asked:
            raise ConfigError(
                "response_tokens and link are for the time of a step, which is predicted where --cards says on how many"
            )

    def check(self, stage: LanguageModelStage, data: TextDataModule) -> None:
        """Refuse what no time can be predicted of, before data are read.

        Raises:
            ConfigError: naming the setting.
        """
        if not self.is_asked:
            return
        if not getattr(data, "repeats_rows", True):
            raise ConfigError(
                f"the time of a step cannot be predicted with {type(data).__name__}, whose rounds are sampled and "
                "labelled by another program or person; leave --cards out"
            )
        is_sampled = isinstance(stage, RL)
        if not is_sampled and (self.sampler == "served" or self.response_tokens is not None):
            raise ConfigError(
                f"{type(stage).__name__} samples nothing in training; leave --sampler and --response_tokens out"
            )
        if is_sampled and (self.response_tokens or 0) > stage.max_new_tokens:
            raise ConfigError(
                f"response_tokens is {self.response_tokens}, over model.max_new_tokens, {stage.max_new_tokens}; "
                "lower it"
            )

    @property
    def is_asked(self) -> bool:
        """Whether any time is asked for."""
        return self.cards is not None or self.sampler == "served"

    def cluster(self, staleness: int) -> Cluster:
        """What a step would run on."""
        is_served = self.sampler == "served"
        return Cluster(
            self.cards or 1, self.link, self.sampler_speed, staleness if is_served else 0
        )


def shards_of(config: Any) -> int:
    """Processes that a run divides its base among.

    Args:
        config: all settings of the run.

    Raises:
        ConfigError: if the settings do not tell.
    """
    strategy = config.trainer.strategy
    name = strategy if isinstance(strategy, str) else getattr(strategy, "class_path", "")
    if name != NAME and not str(name).endswith(ShardedBase.__name__):
        return 1
    if config.cards:
        return int(config.cards)
    devices = config.trainer.devices
    processes = (
        len(devices) if isinstance(devices, list) else int(str(devices).isdigit() and devices)
    )
    if processes < 1:
        raise ConfigError(
            f"trainer.devices is {devices}, which does not tell how many processes share the base; add --cards"
        )
    return int(processes * config.trainer.num_nodes)


def print_times(
    console: Console,
    stage: LanguageModelStage,
    data: TextDataModule,
    trees: Sequence[Tree],
    plan: Plan,
    inventory: Inventory,
    options: TimeOptions,
) -> None:
    """Measure the parts of a step, and print what it would take, phase by phase.

    Args:
        console: to print on.
        stage: what would be trained.
        data: its settings of batches.
        trees: the training data.
        plan: with the shape of the adapters.
        inventory: of the plan's model.
        options: what is asked for.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work = step_work(stage, data, trees, options.response_tokens)
    parts = PartTimes(
        stage.base, plan.lora, stage.trained_roles, stage.tokenizer, stage.gradient_checkpointing, device,
        has_reference_adapter=plan.init_adapter,
    )  # fmt: skip
    adapter_bytes = inventory.adapter_bytes * len(stage.trained_roles)
    staleness = stage.staleness if isinstance(stage, RL) else 0
    times = {}
    for cluster in alternatives(options.cluster(staleness)):
        times[cluster] = predict(work, parts, cluster, adapter_bytes)
    _print_table(console, times, device)
    console.print(describe(times), highlight=False, markup=False)
    groups = work.groups_per_update
    if options.cards is not None and options.cards > groups:
        setting = "model.num_minibatches is lower"
        if work.num_minibatches == 1:
            setting = "data.batch_size is higher"
        text = (
            f"An update has {groups} of the step's prompts, which {options.cards} cards cannot share: some wait, "
            f"unless {setting}."
        )
        console.print(text, highlight=False, markup=False)
    for name in uncounted(stage):
        console.print(f"What {name} takes is not counted.", highlight=False, markup=False)


def uncounted(stage: LanguageModelStage) -> list[str]:
    """What takes time in a step and is not predicted."""
    if not isinstance(stage, RL):
        return []
    names = []
    for reward in reward_parts(stage.reward):
        if not isinstance(reward, RewardModelScore):
            names.append(type(reward).__name__)
    if stage.ptx is not None:
        names.append("ptx")
    if stage.entropy_control.bonus is not None:
        names.append("entropy_bonus")
    if stage.selection.equal_scores == "refill":
        names.append("equal_scores: refill")
    return names


def step_work(
    stage: LanguageModelStage,
    data: TextDataModule,
    trees: Sequence[Tree],
    response_tokens: int | None = None,
) -> StepWork:
    """What a step of a stage computes.

    Args:
        stage: what would be trained.
        data: its settings of batches.
        trees: the training data.
        response_tokens: tokens of a sampled response; None is max_new_tokens.
    """
    heads = stage.head_sizes
    kinds: list[Kind] = []
    for role in stage.trained_roles:
        kinds.append("update hidden" if role in heads else "update")
    step = typical_step(trees, data.batch_size)
    work = StepWork(
        step,
        data.token_budget,
        dense=not stage.block_sparse,
        has_reference=stage.objective.needs_reference,
        kinds=kinds,
    )
    if not isinstance(stage, RL):
        return work
    tokens = response_tokens or stage.max_new_tokens
    count = stage.num_generations
    rewards = [part for part in reward_parts(stage.reward) if isinstance(part, RewardModelScore)]
    return replace(
        work,
        trees=with_responses(step, count, tokens, len(stage.tokenizer)),
        has_reference=True,
        optimizer_steps=stage.updates_per_step,
        sampling=Sampling(count, tokens, data.batch_size),
        num_iterations=stage.num_iterations,
        num_minibatches=stage.num_minibatches,
        needs_policy=stage.kl.where == "reward" or stage.advantage.needs_policy,
        reward_budget=max((reward.token_budget for reward in rewards), default=0),
    )


def describe(times: dict[Cluster, StepTime]) -> str:
    """What takes most of a step, and what the alternatives would save.

    Args:
        times: the first on one card, the last as asked for.
    """
    (first, single), (last, asked) = next(iter(times.items())), list(times.items())[-1]
    share = asked.phases[asked.bottleneck] / sum(asked.phases.values())
    text = f"On {last} a step takes {asked.total:.3g} s, and {asked.bottleneck} most of it ({share:.0%})"
    if first != last:
        text += f"; on {first} it takes {single.total:.3g} s, {single.total / asked.total:.2f} times as long"
    if asked.overlaps:
        text += ". Sampling goes on beside the other phases, so the longer of the two counts"
    return f"{text}."


def _print_table(console: Console, times: dict[Cluster, StepTime], device: torch.device) -> None:
    from rich.table import Table

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    few, more = FEW_LAYERS
    console.print(
        f"Seconds of a step, from parts measured on {name} with models of {few} and {more} layers:",
        highlight=False,
    )
    table = Table()
    table.add_column("phase")
    for cluster in times:
        table.add_column(str(cluster), justify="right")
    phases = list(dict.fromkeys(phase for time in times.values() for phase in time.phases))
    for phase in phases:
        cells = [
            f"{time.phases[phase]:.3g}" if phase in time.phases else "-" for time in times.values()
        ]
        table.add_row(phase, *cells)
    table.add_row("step", *(f"{time.total:.3g}" for time in times.values()))
    console.print(table)
