"""What a run remembers of its reference from one epoch to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_align.models.adapter_set import AdapterSet
from lit_align.models.fingerprint import adapter_fingerprint
from lit_align.models.reference_memory import ReferenceMemory
from lit_align.stages.sharded_base import is_sharded
from lit_align.types import Tree


class Remembering(Protocol):
    """What is read from a stage that remembers its reference."""

    @property
    def trainer(self) -> Trainer:
        """The trainer of the run."""

    @property
    def datamodule(self) -> Any:
        """The run's data module."""

    @property
    def adapters(self) -> AdapterSet:
        """The base and the adapters on it."""

    @property
    def device(self) -> torch.device:
        """Of the model."""

    @property
    def is_fitting(self) -> bool:
        """Whether it is being trained."""


class RememberedReference:
    """Log-probabilities under the reference of the rows of a run on one process, by training and validation.

    Only where rows come again, in training, and only as long as the reference stays the same. Those of training rows
    are part of a checkpoint; validation has the same micro-batches each time, so that a resumed run computes the same.

    Args:
        stage: the stage that trains.
    """

    def __init__(self, stage: Remembering) -> None:
        self.stage = stage
        self._training, self._validation = ReferenceMemory(), ReferenceMemory()
        self._restored: dict[str, Any] = {}
        self._num_loads: int | None = None  # of the reference's weights, when it was read last
        self._fingerprint: tuple[int, str] | None = None  # of the reference, after so many loads
        self._phase: Literal["training", "validation"] | None = None

    @contextmanager
    def during(self, phase: Literal["training", "validation"]) -> Iterator[None]:
        """A context in which numbers are remembered: a step. A report, for one, has other micro-batches."""
        self._phase = phase
        try:
            yield
        finally:
            self._phase = None

    def get_or_compute(
        self, trees: Sequence[Tree], sizes: Sequence[int], compute: Callable[[], Tensor]
    ) -> Tensor:
        """Numbers of ``trees`` one after the other, ``sizes`` of each; computed unless they are remembered."""
        stage = self.stage
        if self._phase is None or not stage.is_fitting or stage.trainer.world_size > 1:
            return compute()
        if not getattr(stage.datamodule, "repeats_rows", False):
            return compute()
        is_training = self._phase == "training"
        if is_training and stage.trainer.max_epochs == 1:  # no row comes again
            return compute()
        self._refresh()
        memory = self._training if is_training else self._validation
        return memory.get_or_compute(trees, sizes, compute)

    def state(self) -> dict[str, Any]:
        """Numbers of the training rows and the fingerprint of their reference, for a checkpoint; empty without any."""
        self._refresh()
        numbers = self._training.state()
        return {"fingerprint": self.fingerprint(), **numbers} if numbers else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Numbers of the training rows from a checkpoint, unless they belong to another reference."""
        if self.stage.is_fitting and is_sharded(self.stage.trainer):
            return  # no process has whole weights to compare, and all numbers are computed anew
        if state and state.get("fingerprint") == self.fingerprint():
            self._restored = state  # put on the device when that is known

    def fingerprint(self) -> str:
        """Of the reference; all of its weights are read once for as long as they stay."""
        num_loads = self.stage.adapters.num_loads["reference"]
        if self._fingerprint is None or self._fingerprint[0] != num_loads:
            self._fingerprint = num_loads, adapter_fingerprint(self.stage.adapters, "reference")
        return self._fingerprint[1]

    def _refresh(self) -> None:
        """Take over what was restored; forget everything if the reference has moved."""
        self._training.restore(self._restored, self.stage.device)
        self._restored = {}
        num_loads = self.stage.adapters.num_loads["reference"]
        if self._num_loads is not None and num_loads != self._num_loads:
            self._training, self._validation = ReferenceMemory(), ReferenceMemory()
        self._num_loads = num_loads
