"""The processes of a run: each does its share of a piece of work, then all have the whole of it.

Work is dealt by place, never by what a process has drawn or counted, so results do not depend on how many there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lit_align.errors import OtherProcessFailed
from lit_align.exchanged import from_bytes, to_bytes

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

T = TypeVar("T")

SECONDS_BETWEEN_SIGNS = 20.0
"""While the first process works alone, it lets the others know every so often that it does; otherwise they would give
it up after the time limit of the process group, half an hour for Lightning."""


class Outcome(NamedTuple):
    """What a process brings to a meeting.

    Args:
        value: of its work, as bytes; empty if that failed.
        failure: the reason, as a sentence; None if there is none.
    """

    value: bytes = b""
    failure: str | None = None


@dataclass(frozen=True)
class Processes:
    """This process among those of its run.

    Every method that needs the others must be called by all of them, in the same order. If one of them fails in it, all
    raise, the first that failed its own error.

    Args:
        rank: number of this process.
        world: how many there are.
        device: that they exchange tensors on.

    Example:
        >>> alone = Processes(0, 1, torch.device("cpu"))
        >>> alone.share(3, lambda places: [place * 10 for place in places])
        [0, 10, 20]
    """

    rank: int
    world: int
    device: torch.device

    @classmethod
    def of(cls, trainer: Trainer) -> Processes:
        """The processes of a trainer."""
        return cls(trainer.global_rank, trainer.world_size, trainer.strategy.root_device)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, count: int, compute: Callable[[list[int]], Sequence[T]]) -> list[T]:
        """Results of ``count`` pieces of work, in order; each process computes some of them.

        Args:
            count: pieces of work.
            compute: the results at some places; not called where a process has none.
        """
        mine = list(range(self.rank, count, self.world))
        shares = self.gather(lambda: [*compute(mine)] if mine else [])
        results = []
        for place in range(count):
            results.append(shares[place % self.world][place // self.world])
        return results

    def gather(self, compute: Callable[[], T]) -> list[T]:
        """What each process computes, by rank."""
        if self.world == 1:
            return [compute()]
        outcome, error = _outcome(compute)
        outcomes: list[Any] = [None] * self.world
        dist.all_gather_object(outcomes, outcome)
        self._raise_first(outcomes, error)
        return [from_bytes(other.value) for other in outcomes]

    def from_first(self, compute: Callable[[], T]) -> T:
        """What the first process computes while the others wait, however long it takes."""
        if self.world == 1:
            return compute()
        outcome, error = self._watched(compute) if self.is_first else (Outcome(), None)
        while not self.is_first and not self._send_sign(is_done=False):
            pass
        sent = [outcome]
        dist.broadcast_object_list(sent, src=0)
        self._raise_first([sent[0]], error)
        return from_bytes(sent[0].value)  # type: ignore[no-any-return]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, on the CPU."""
        if self.world == 1:
            return values
        on_device = values.to(self.device, copy=True)
        dist.all_reduce(on_device)
        return on_device.cpu()

    def _raise_first(self, outcomes: Sequence[Outcome], error: Exception | None) -> None:
        """Raise the error of the first process that failed, here or as one of another process."""
        for rank, outcome in enumerate(outcomes):
            if outcome.failure is None:
                continue
            if error is not None and rank == self.rank:
                raise error
            raise OtherProcessFailed(f"process {rank} of {self.world} failed: {outcome.failure}")

    def _watched(self, compute: Callable[[], Any]) -> tuple[Outcome, Exception | None]:
        """The outcome of work of the first process; a thread gives signs meanwhile."""
        is_done = threading.Event()
        thread = threading.Thread(target=self._give_signs, args=(is_done,), daemon=True)
        thread.start()
        try:
            return _outcome(compute)
        finally:
            is_done.set()
            thread.join()

    def _give_signs(self, is_done: threading.Event) -> None:
        try:
            while not is_done.wait(SECONDS_BETWEEN_SIGNS):
                self._send_sign(is_done=False)
            self._send_sign(is_done=True)
        except RuntimeError:  # another process is gone, as what follows the work finds out
            return

    def _send_sign(self, *, is_done: bool) -> bool:
        """Whether the first process is done, which it alone knows."""
        sign = torch.tensor(float(is_done), device=self.device)
        dist.broadcast(sign, src=0)
        return bool(sign)


def _outcome(compute: Callable[[], Any]) -> tuple[Outcome, Exception | None]:
    """What work gives, in the form in which it is sent: a value that cannot be is a failure of the work."""
    try:
        return Outcome(to_bytes(compute())), None
    except Exception as error:  # work may call plugins
        return Outcome(failure=str(error) or type(error).__name__), error
