"""Where the sections run and at which size, with clocks and peaks of memory of that device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

GIB = 2**30


@dataclass(frozen=True)
class KitOptions:
    """What all sections share.

    Args:
        tiny: two-layer models on the CPU instead of the real shapes on the GPU.
        seed: of the inputs of the equality gates.
    """

    tiny: bool
    seed: int = 0

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return torch.device("cpu") if self.tiny else torch.device("cuda", 0)


@dataclass
class PhaseRecorder:
    """Time and peak memory of the phases of a run, each as often as it happens.

    Args:
        device: of the run.

    Attributes:
        phases: for each phase, ``seconds``, ``host_seconds`` (of this process's CPU) and ``peak_bytes`` of each time.
    """

    device: torch.device
    phases: dict[str, list[dict]] = field(default_factory=dict)
    _starts: dict[str, tuple[float, float]] = field(default_factory=dict)

    def begin(self, phase: str) -> None:
        """Measure from here to `end`; the device is at rest at either."""
        reset_peak(self.device)
        synchronize(self.device)
        self._starts[phase] = (time.perf_counter(), time.process_time())

    def end(self, phase: str) -> None:
        """Add what was taken since `begin`."""
        synchronize(self.device)
        start, host_start = self._starts.pop(phase)
        figures = {
            "seconds": time.perf_counter() - start,
            "host_seconds": time.process_time() - host_start,
            "peak_bytes": peak_bytes(self.device),
        }
        self.phases.setdefault(phase, []).append(figures)

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add what the block takes."""
        self.begin(phase)
        yield
        self.end(phase)

    def median_seconds(self, phase: str, warmups: int = 0) -> float:
        """Of the times after the first ``warmups``."""
        seconds = [figures["seconds"] for figures in self.phases[phase]]
        return statistics.median(seconds[warmups:])

    def largest_peak(self, phase: str) -> int | None:
        """In bytes; None on a CPU."""
        peaks = [figures["peak_bytes"] for figures in self.phases[phase]]
        return None if None in peaks else max(peaks)


def synchronize(device: torch.device) -> None:
    """Wait until the device is at rest."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Let `peak_bytes` count from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most that was allocated at once since `reset_peak`; None on a CPU, where nothing counts it."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def median_seconds(
    run: Callable[[], object], device: torch.device, warmups: int = 2, repeats: int = 5
) -> float:
    """Median time of a function."""
    for _ in range(warmups):
        run()
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
