"""A disk that is full or read-only, a clock that jumps, a broken file: one sentence, and what was saved is good.

``python -m tests.proofs.drills [DRILL ...]`` lets real runs meet each of these, and writes how they ended to
``drills.json`` beside this file. Small disks are tmpfs, which needs root; the clock needs the library that the variable
LIBFAKETIME names. ``python -m tests.proofs.drills soak MINUTES`` trains as long, and adds memory and open files.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from lit_align.checkpoint_files import last_checkpoint, previous_checkpoint, read_checkpoint
from tests.kills import Kill, Runs, differences, newest, warm_up
from tests.stages.runs import start

FIGURES = Path(__file__).with_suffix(".json")
LIBRARY = os.environ.get("LIBFAKETIME", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
CALLBACKS = "tests.stages.callbacks"
LIMITS = ("--trainer.max_epochs=3",)
DISK = "8m"
ADAPTER = 10_000  # bytes that are too few for the tiny adapter
CLOCK_DAYS = (-400, 3, 1000, -2)
WARM_UP = 0.2  # share of a soak before memory is compared
Outcome = dict[str, Any]


def with_callback(name: str, **settings: object) -> tuple[str, ...]:
    """Options that add one of the callbacks that disturb a run."""
    options = [f"--trainer.callbacks+={CALLBACKS}.{name}"]
    options += [f"--trainer.callbacks.{key}={value}" for key, value in settings.items()]
    return tuple(options)


def refusal(case: str, status: int, output: str) -> Outcome:
    """How a run ended that must end with one sentence, and what is wrong with that."""
    sentences = re.findall(r"^lit-align: (.*)$", output, re.MULTILINE)
    problems = []
    if status not in (1, 2):
        problems.append(f"exit {status}")
    if len(sentences) != 1:
        problems.append(f"{len(sentences)} sentences")
    if "Traceback" in output or "Error:" in output:
        problems.append("traceback")
    sentence = re.sub(r"/tmp/\w+/", "", " ".join(sentences))
    return {"case": case, "exit": status, "sentence": sentence, "problems": problems}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own at a folder, which no other process fills."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class Drills:
    """Drills with one stage.

    Args:
        folder: for all runs.
    """

    def __init__(self, folder: Path) -> None:
        self.runs = Runs(folder, "DPO", ("--save_every=1",))
        self.reference = self.runs.chain("undisturbed", [])
        self.size = last_checkpoint(self.reference).stat().st_size

    def full_disk(self) -> list[Outcome]:
        """A disk that has room for a whole checkpoint, for a part of one, for a line of the trace, or for nothing."""
        moments = {
            "before the first step": (0, 0, "on_fit_start"),
            "before a step": (3, 0, "on_train_batch_start"),
            "in the trace": (3, 4096, "on_train_batch_end"),
            "in the middle of a checkpoint": (4, self.size // 2, "on_train_batch_start"),
            "in the adapter beside it": (5, self.size + ADAPTER, "on_train_batch_start"),
            "at the end": (9, 0, "on_validation_end"),
            "in the adapter of the run": (9, self.size + 4 * ADAPTER, "on_train_end"),
        }
        outcomes = []
        for case, (step, free, hook) in moments.items():
            options = with_callback("FillDisk", step=step, free=free, hook=hook)
            if hook == "on_train_end":  # room for the first checkpoint with its adapter
                options += ("--save_every=50",)
            with small_disk(self.runs.folder / "disk") as disk:
                outcome = self._refused(case, disk, *options)
                (disk / "filler").unlink()
                outcome["problems"] += self._resume(disk, outcome, has_saved=step > 0)
            outcomes.append(outcome)
        return outcomes

    def read_only(self) -> list[Outcome]:
        """A disk that is read-only, and a folder of checkpoints that becomes so."""
        with small_disk(self.runs.folder / "disk") as disk:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            first = self._refused("from the start", disk)
        runs = self.runs.folder / "immutable"
        second = self._refused("during the run", runs, *with_callback("MakeImmutable", step=4))
        checkpoints = last_checkpoint(newest(runs)).parent
        subprocess.run(["chattr", "-i", checkpoints], check=True)
        second["problems"] += self._resume(runs, second, has_saved=True)
        return [first, second]

    def clock(self) -> list[Outcome]:
        """A clock that jumps backwards and forwards after every step, in a run that is killed and resumed."""
        if not Path(LIBRARY).exists():
            return [{"case": "clock", "not checked": f"there is no {LIBRARY}", "problems": []}]
        runs, offset = self.runs.folder / "clock", self.runs.folder / "offset"
        offset.write_text("+0d\n")
        environment = {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",  # as in a system whose clock is set
        }
        jumps = with_callback("TurnClock", file=offset, days=list(CLOCK_DAYS))
        problems, checkpoint = [], None
        for kill in (Kill(4), None):
            more = (*jumps, *(kill.options if kill else ()))
            arguments = self.runs.arguments(runs, *more, checkpoint=checkpoint, limits=LIMITS)
            process = start(arguments, **environment)
            output = process.communicate()[0]
            if process.returncode != (-9 if kill else 0):
                problems.append(f"exit {process.returncode}: {output[-300:]}")
            checkpoint = last_checkpoint(newest(runs))
        problems += differences(newest(runs), self.reference)
        times = [float(line) for line in (self.runs.folder / "clock.txt").read_text().split()]
        days = [round((time - times[0]) / 86400) for time in times]
        return [{"case": "set after every step", "days": days, "problems": problems}]

    def two_at_once(self) -> list[Outcome]:
        """Two runs that start in one folder, and two that resume from one checkpoint."""
        runs, outcomes = self.runs.folder / "two", []
        self.runs.run(runs, *Kill(4).options, limits=LIMITS)
        saved = last_checkpoint(newest(runs))
        for case, checkpoint in (("started", None), ("resumed", saved)):
            before = {path.name for path in runs.iterdir()}
            arguments = self.runs.arguments(runs, checkpoint=checkpoint, limits=LIMITS)
            processes = [start(arguments) for _ in range(2)]
            outputs = [process.communicate()[0] for process in processes]
            problems = [output[-300:] for output in outputs if "Traceback" in output]
            folders = sorted(path for path in runs.iterdir() if path.name not in before)
            if len(folders) != 2 or any(process.returncode for process in processes):
                problems.append(f"{len(folders)} folders")
            for folder in folders:
                problems += differences(folder, self.reference)
            outcomes.append({"case": case, "folders": len(folders), "problems": problems})
        return outcomes

    def broken_checkpoint(self) -> list[Outcome]:
        """A checkpoint that is empty, cut off, altered, of something else, or that holds an object."""
        content = last_checkpoint(self.reference).read_bytes()
        altered = bytearray(content)
        altered[content.index(b"archive/data/0") + 200] ^= 1
        file = self.runs.folder / "broken" / "last.ckpt"
        file.parent.mkdir()
        checkpoint = read_checkpoint(last_checkpoint(self.reference))
        kinds: dict[str, object] = {
            "empty": b"",
            "cut off": content[: len(content) // 2],
            "one bit altered": bytes(altered),
            "of another library": {"model": torch.zeros(2)},
            "with an object": {**checkpoint, "callbacks": SimpleNamespace()},
        }
        outcomes = []
        for case, kind in kinds.items():
            if isinstance(kind, bytes):
                file.write_bytes(kind)
            else:
                torch.save(kind, file)
            outcomes.append(self._refused(case, self.runs.folder / "run", checkpoint=file))
        previous_checkpoint(file).write_bytes(content)
        file.write_bytes(b"")
        outcome = self._refused("empty, one before it", self.runs.folder / "run", checkpoint=file)
        if "last.previous.ckpt" not in str(outcome["sentence"]):
            outcome["problems"].append("the one before it is not named")
        return [*outcomes, outcome]

    def other_settings(self) -> list[Outcome]:
        """A checkpoint that this run cannot go on from: another optimizer, stage, adapter or number of rows."""
        cases = {
            "optimizer": ("--model.optimizer=torch.optim.SGD",),
            "stage": ("--model=RewardModel", "--model.objective=BradleyTerry"),
            "adapter": ("--model.lora.r=8",),
            "steps an epoch": ("--data.batch_size=3",),
        }
        outcomes = []
        for case, options in cases.items():
            checkpoint = last_checkpoint(self.reference)
            run = self.runs.folder / "run"
            outcomes.append(self._refused(case, run, *options, checkpoint=checkpoint))
        return outcomes

    def _refused(
        self, case: str, runs: Path, *options: str, checkpoint: Path | None = None
    ) -> Outcome:
        status = self.runs.run(runs, *options, checkpoint=checkpoint, limits=LIMITS)
        return refusal(case, status, self.runs.output())

    def _resume(self, runs: Path, outcome: Outcome, has_saved: bool) -> list[str]:
        """Go on from what a sentence names, and compare the end with the run that nothing disturbed."""
        checkpoint = last_checkpoint(newest(runs)) if has_saved else None
        if checkpoint is not None and "last.ckpt" not in str(outcome["sentence"]):
            return ["the last checkpoint is not named"]
        status = self.runs.run(runs, checkpoint=checkpoint, limits=LIMITS)
        if status:
            return [f"resumed: exit {status}: {self.runs.output()[-300:]}"]
        return differences(newest(runs), self.reference)


def soak(folder: Path, minutes: float) -> Outcome:
    """Train for some minutes with a save every 50 steps and a validation every 12; memory and open files over time."""
    file = folder / "memory.csv"
    runs = Runs(folder, "DPO", ("--save_every=50", "--trainer.check_val_every_n_epoch=4"))
    arguments = runs.arguments(
        folder / "runs",
        *with_callback("Measure", file=file, minutes=minutes),
        limits=("--trainer.max_epochs=-1",),
    )
    process = start(arguments)
    output = process.communicate()[0]
    if process.returncode:
        raise AssertionError(output[-3000:])
    rows = np.loadtxt(file, delimiter=",")
    warm = rows[rows[:, 0] > WARM_UP * rows[-1, 0]]
    seconds, steps, memory, descriptors = warm.T
    return {
        "minutes": round(rows[-1, 0] / 60, 1),
        "steps": int(rows[-1, 1]),
        "MiB at the start": rows[0, 2],
        "MiB after warm-up": memory[0],
        "MiB at the end": memory[-1],
        "MiB an hour": round(3600 * float(np.polyfit(seconds, memory, 1)[0]), 2),
        "bytes a step": round(2**20 * float(np.polyfit(steps, memory, 1)[0]), 1),
        "descriptors": [int(descriptors.min()), int(descriptors.max())],
    }


DRILLS = {
    "full disk": Drills.full_disk,
    "read-only": Drills.read_only,
    "clock": Drills.clock,
    "two runs at once": Drills.two_at_once,
    "broken checkpoint": Drills.broken_checkpoint,
    "other settings": Drills.other_settings,
}


def main(arguments: list[str]) -> None:
    """Run drills, or a soak, and write how they ended."""
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments[:1] == ["soak"]:
            figures["soak"] = soak(Path(folder), float(arguments[1]))
        else:
            warm_up(Path(folder, "warm"))
            drills = Drills(Path(folder, "drills"))
            for name in arguments or DRILLS:
                figures[name] = DRILLS[name](drills)
                print(name, json.dumps(figures[name], indent=1), flush=True)
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
