"""What a run costs: CPU seconds and memory on a CPU, device milliseconds and memory on a GPU."""

import ctypes
import gc
import time
from pathlib import Path

import torch


class Meter:
    """Marks the end of every optimiser step; the memory of a run counts from what was there at its start.

    Args:
        device: "cpu" or "cuda".
        warmups: steps that are run but left out of the figures.
    """

    def __init__(self, device: str, warmups: int):
        self.cuda = device == "cuda"
        self.warmups = warmups
        self.losses: list[torch.Tensor] = []
        self.marks: list = []
        self.clock: list[float] = []

    def start(self, model: torch.nn.Module) -> None:
        """Call when all is loaded and built, right before the first step."""
        for parameter in model.parameters():
            parameter.detach().sum()  # weights are mapped from their file and count once they were read
        gc.collect()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            ctypes.CDLL("libc.so.6").malloc_trim(
                0
            )  # or what loading left behind would serve the steps unseen
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
            self.before = resident("VmRSS")
        self._mark()

    def step(self, loss: torch.Tensor) -> None:
        """Call after each optimiser step."""
        self._mark()
        self.losses.append(loss)  # read after the last step: reading would wait for the device

    def _mark(self) -> None:
        self.clock.append(time.perf_counter())
        if self.cuda:
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.process_time())

    def result(self) -> dict:
        """Seconds of each step after the warm-ups, bytes above the start, and every loss."""
        if self.cuda:
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated()
            each = [
                a.elapsed_time(b) / 1000 for a, b in zip(self.marks, self.marks[1:], strict=False)
            ]
        else:
            peak = resident("VmHWM")
            each = [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]
        each = each[self.warmups :]
        return {
            "seconds": each,
            "wall": [b - a for a, b in zip(self.clock, self.clock[1:], strict=False)][
                self.warmups :
            ],
            "before": self.before,
            "peak": peak - self.before,
            "losses": [float(loss) for loss in self.losses],
        }


def resident(field: str) -> int:
    """Bytes of memory of this process, as ``VmRSS`` (now) or ``VmHWM`` (at most)."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    )
    return int(line.split()[1]) * 1024
