"""Training on a base that is larger than one card: its layers divided among processes, the adapters whole on each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from lit_align.data.transfer import batches_to_device
from lit_align.errors import ConfigError
from lit_align.models.sharding import shard_base
from lit_align.processes import Processes
from lit_align.types import Batch, Step

if TYPE_CHECKING:
    from lit_align.models.adapter_set import AdapterSet

NAME = "sharded_base"
CPU = torch.device("cpu")


class ShardedBase(DDPStrategy):
    """Each process holds a share of the frozen base (FSDP2), and all of the adapters, as with ddp.

    The base is gathered layer by layer in each pass, so all processes must make the same passes.

    Example:
        >>> "sharded_base" in StrategyRegistry.available_strategies()
        True
    """

    def configure_ddp(self) -> None:
        """Wrap nothing: a stage adds up the gradients of its adapters, and the base has none."""

    def shard(self, adapters: AdapterSet) -> None:
        """Divide the base, whose weights are on the CPU, and move all else to the device of this process.

        Args:
            adapters: on that base.
        """
        from torch.distributed.device_mesh import init_device_mesh

        shard_base(adapters, init_device_mesh(self.root_device.type, (self.world_size,)))
        adapters.to(self.root_device)
        for weight in adapters.trainable().values():
            dist.broadcast(weight.data, src=0)


StrategyRegistry.register(
    NAME, ShardedBase, description="the frozen base divided among processes, adapters whole on each"
)


def is_sharded(trainer: Trainer | None) -> bool:
    """Whether each process of a run has a share of the base."""
    return trainer is not None and isinstance(trainer.strategy, ShardedBase)


def loading_memory(trainer: Trainer | None) -> torch.device | None:
    """Where to load a base that will be divided: a card may be too small for all of it. None where it is not."""
    return CPU if is_sharded(trainer) else None


def divide_base(adapters: AdapterSet, trainer: Trainer | None) -> None:
    """Divide a base among the processes of a run, if it has `ShardedBase`.

    Args:
        adapters: on the base, which was loaded to `loading_memory` and has been checked: a check that fails in
            mid-pass would leave gathered layers behind.
        trainer: of the run.
    """
    if trainer is None or not isinstance(trainer.strategy, ShardedBase):
        return
    trainer.strategy.shard(adapters)
    rank_zero_info(
        f"{NAME}: each of {trainer.world_size} processes holds a share of the base; no held-out questions are asked "
        "before and after, which a single process does with `lit-align predict`"
    )


def check_division(adapters: AdapterSet, trainer: Trainer | None) -> None:
    """Refuse a model that was loaded before, whole or divided otherwise than a run has it.

    Args:
        adapters: on the base.
        trainer: of the run, if there is one.

    Raises:
        ConfigError: naming the strategy and what to do.
    """
    is_divided = any(map(_is_share, adapters.model.parameters()))
    if trainer is None or is_divided == is_sharded(trainer):
        return
    if is_divided:
        raise ConfigError(
            f"the base was divided among processes by an earlier run, and trainer.strategy is not {NAME}: processes "
            "would wait for each other's shares; make a new stage for this run"
        )
    raise ConfigError(
        f"trainer.strategy is {NAME}, and the base was loaded whole before the run; make a new stage and leave "
        "configure_model() to the trainer"
    )


def _is_share(weight: torch.Tensor) -> bool:
    """Whether a weight is divided, which none is before torch's module for it has been imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(weight, module.DTensor)


def require_fitting(function: str, trainer: Trainer) -> None:
    """Refuse to divide a base for anything but training.

    Args:
        function: fit, validate, test or predict.
        trainer: of the run.

    Raises:
        ConfigError: naming the strategy.
    """
    if is_sharded(trainer) and function != "fit":
        raise ConfigError(
            f"trainer.strategy is {NAME}, which is for training alone; leave it out to "
            f"{TrainerFn(function).value}, on one process"
        )


def require_sharding(stage: Any, trainer: Trainer, data: Any) -> None:
    """Refuse to divide the base of a stage whose processes may make different numbers of passes: they would hang.

    Args:
        stage: to be trained.
        trainer: of the run.
        data: its data module.

    Raises:
        ConfigError: naming the strategy and the stage or its setting.
    """
    if not is_sharded(trainer):
        return
    if not stage.can_shard_base:
        raise ConfigError(
            f"trainer.strategy is {NAME}, which trains SFT and Preference; {type(stage).__name__} also samples or "
            "scores, by other numbers of passes on each process; set ddp, with a base that fits on each card"
        )
    if not getattr(data, "repeats_rows", True):
        raise ConfigError(
            f"trainer.strategy is {NAME}, and {type(data).__name__} samples from the model, of which no process has "
            "all; set ddp, with a base that fits on each card"
        )
    if getattr(stage, "cache_reference", None) is not None:
        raise ConfigError(
            f"model.cache_reference is set, and trainer.strategy is {NAME}: a process that reads the cache would leave "
            "the others waiting for its share of the base; leave cache_reference out"
        )


def equal_passes(step: Step, strategy: Strategy) -> Iterator[tuple[Batch, bool]]:
    """The micro-batches of a step with True, and as many with False, which count for nothing, as others have more.

    Only where the base is divided: there each pass needs all processes.

    Args:
        step: the share of this process.
        strategy: of the run.

    Example:
        >>> list(equal_passes(Step.from_batches(()), DDPStrategy()))
        []
    """
    fillers: list[Batch] = []
    if isinstance(strategy, ShardedBase):
        fillers = _fillers(step, strategy)  # first: it needs all processes, too
    for batch in step.batches:
        yield batch, True
    for batch in fillers:
        yield batch, False


def _fillers(step: Step, strategy: Strategy) -> list[Batch]:
    """Micro-batches to pass through the model while other processes have some of their own."""
    counts = [0] * dist.get_world_size()
    dist.all_gather_object(counts, len(step.batches))
    most = max(counts)
    batches = step.batches
    if most and min(counts) == 0:
        sender, rank = counts.index(most), dist.get_rank()
        processes = Processes(rank, len(counts), strategy.root_device)
        sent = processes.gather(
            lambda: batches_to_device(batches[:1], CPU) if rank == sender else ()
        )
        batches = batches or batches_to_device(sent[sender], strategy.root_device)
    return [batches[0]] * (most - len(step.batches))
