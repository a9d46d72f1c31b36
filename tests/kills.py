"""Kill runs of every stage at any moment, resume them, and compare all that they leave with an undisturbed run.

Runs are forks of this process, which has imported everything, so that a run takes one to three seconds of a CPU.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lit_align.cli.main import main
from tests import tiny
from tests.processes import Host, run_processes
from tests.stages.runs import UNDRAWN, write_pairs

EPOCHS = "--trainer.max_epochs=3"
NUM_STEPS = 9  # 12 rows in steps of 4, 3 epochs
MACHINE = {"tokens/s", "memory_gib"}  # the columns that may differ
TIMES = {"seconds"}  # in records of judges
DDP = ("--trainer.strategy=ddp",)
MAX_SECONDS_LEFT = 60  # for the other processes of a run one of which was killed
QUIET = (
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--model.base.quantization=none",
    "--model.base.dtype=float32",
    "--model.lora.r=4",
    "--model.optimizer=torch.optim.AdamW",
    "--model.optimizer.lr=0.003",
    "--data.batch_size=4",
)
TEXT = ("--data.token_budget=256", "--data.max_length=256")
ROUNDS = (
    "--data=Online",
    "--data.rounds=3",
    "--data.round_size=12",
    "--data.num_generations=3",
    "--model.max_new_tokens=8",
)
SCORED_ROUNDS = (
    *("--data.feedback=FromReward", "--data.feedback.reward=Length"),
    "--data.feedback.reward.max_words=1",
)
REPLAY = ("--data.responses=replay", "--data.fresh_fraction=0.5")
PREFERENCE = ("--model=Preference", "--model.objective=DPO")
SAMPLED = (
    *("--model=RL", "--model.reward=Length", "--model.reward.max_words=1", "--data=Prompts"),
    "--model.max_new_tokens=8",
)
STAGES: dict[str, tuple[str, ...]] = {
    "SFT": (
        *("--model=SFT", "--model.objective=CrossEntropy", "--data=Demonstrations"),
        *("--model.lora.dropout=0.1", "--model.lr_scheduler=torch.optim.lr_scheduler.StepLR"),
        "--model.lr_scheduler.step_size=2",
    ),
    "DPO": (*PREFERENCE, "--data=Comparisons", "--data.validation={pairs}"),
    "KTO": (
        *("--model=Preference", "--model.objective=KTO", "--data=BinaryLabels"),
        "--model.baseline_size=8",
    ),
    "Mix": (
        *("--model=Preference", "--model.objective=Mix", "--data=Comparisons"),
        "--model.objective.objectives=[{class_path: DPO}, {class_path: CrossEntropy}]",
        "--model.objective.weights=[1.0, 0.5]",
    ),
    "reward ensemble": (
        *("--model=RewardModel", "--model.objective=BradleyTerry", "--data=Comparisons"),
        "--model.members=2",
    ),
    "PPO": (
        *(*SAMPLED, "--model.objective=PPO", "--model.advantage=GAE", "--model.kl.target=0.001"),
        *("--model.num_generations=2", "--model.num_minibatches=2"),
        "--model.ptx.data={pairs}",
    ),
    "GRPO": (*SAMPLED, "--model.objective=PolicyGradient", "--model.advantage=GRPO"),
    "rounds": (*PREFERENCE, *ROUNDS, *SCORED_ROUNDS, "--data.reference_update=average"),
    "replayed rounds": (*PREFERENCE, *ROUNDS, *SCORED_ROUNDS, *REPLAY),
    "self-rewarding": (
        *(*PREFERENCE, *ROUNDS, "--data.feedback=Judge", "--data.reference_update=round"),
        *("--data.feedback.model=LocalModel", "--data.feedback.model.role=policy"),
    ),
    "D2PO": (
        *(*PREFERENCE, *ROUNDS, "--data.feedback=Discriminator"),
        *("--data.feedback.gold=FromReward", "--data.feedback.gold.reward=Length"),
        "--data.feedback.gold.reward.max_words=1",
        *("--data.feedback.reward=RewardModelScore", "--data.feedback.reward.path={reward}"),
        "--data.feedback.label_budget=4",
    ),
    "cross-modal": (
        *("--model=CrossModal", "--model.embedder=Patches", "--model.embedder.size=4"),
        *("--data=CrossModalData", "--data.train=digits", "--data.modality=Images"),
        *("--data.limit=15", "--model.lora.dropout=0.1"),
    ),
}
"""Settings of every stage; {pairs} and {reward} are paths."""
OF_OTHER_DATA = {"cross-modal"}
OF_ROUNDS = {"rounds", "replayed rounds", "self-rewarding", "D2PO"}


@dataclass(frozen=True)
class Kill:
    """When and how a run is killed.

    Args:
        hook: name of a hook of Lightning's callbacks; by default the one at the start of a step.
        step: steps that are done when the hook is called.
        signal: SIGKILL, SIGTERM or SIGINT.
        rank: the process of several that gets it; -1 for each of them.
    """

    step: int
    hook: str = "on_train_batch_start"
    signal: str = "SIGKILL"
    rank: int = -1

    @property
    def options(self) -> tuple[str, ...]:
        """Options that let a run kill itself."""
        return (
            "--trainer.callbacks+=tests.stages.callbacks.KillAt",
            f"--trainer.callbacks.step={self.step}",
            f"--trainer.callbacks.hook={self.hook}",
            f"--trainer.callbacks.by={self.signal}",
            f"--trainer.callbacks.rank={self.rank}",
        )


class Runs:
    """Runs of one stage in a folder of their own.

    Args:
        folder: for all runs, their data and the tiny model.
        stage: a key of ``STAGES``.
        more: settings of all runs.
        processes: how many a run has; more than one are commands of their own.
        forked: whether several are forks all the same, as a launcher would start them.
        hosts: of the forks, if each is on one of its own.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        more: Sequence[str] = (),
        processes: int = 1,
        forked: bool = False,
        hosts: Sequence[Host] = (),
    ) -> None:
        self.folder, self.stage, self.processes, self.forked = folder, stage, processes, forked
        self.hosts = hosts
        places = (f"--trainer.devices={processes}",)
        if hosts:
            places = ("--trainer.devices=1", f"--trainer.num_nodes={len(hosts)}")
        self.more = (*places, *(DDP if processes > 1 else ()), *more)
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {"pairs": folder / "pairs.jsonl", "reward": folder / "reward/0/adapter"}
        if not (folder / "tiny").exists():
            tiny.save(folder / "tiny")
            write_pairs(self.paths["pairs"], rows=12)
        if stage == "D2PO" and not self.paths["reward"].exists():
            rewards = Runs(
                folder, "reward ensemble", ("--model.members=1", "--trainer.max_steps=1")
            )
            assert rewards.run(folder / "reward", limits=()) == 0

    def run(
        self,
        runs: Path,
        *more: str,
        checkpoint: Path | None = None,
        limits: Sequence[str] = (),
    ) -> int:
        """Run the command; the status as of ``waitstatus_to_exitcode``."""
        arguments = self.arguments(runs, *more, checkpoint=checkpoint, limits=limits)
        output = self.folder / "output.txt"
        if self.forked or self.processes == 1:
            output.unlink(missing_ok=True)
            work = partial(main, arguments)
            return max(run_processes(self.processes, work, output, self.hosts), key=abs)
        return _as_command(arguments, output)

    def arguments(
        self,
        runs: Path,
        *more: str,
        checkpoint: Path | None = None,
        limits: Sequence[str] = (),
    ) -> list[str]:
        """The command line of a run."""
        arguments = ["fit", f"--run={runs}", *STAGES[self.stage], *QUIET]
        arguments.append(f"--model.base.path={self.folder / 'tiny'}")
        if self.stage not in OF_OTHER_DATA:
            arguments += (*TEXT, *UNDRAWN)
            arguments += [] if "--data.train" in arguments else ["--data.train={pairs}"]
        arguments += limits
        if checkpoint is not None:
            arguments.append(f"--ckpt_path={checkpoint}")
        filled = []
        for argument in [*arguments, *self.more, *more]:
            for name, path in self.paths.items():
                argument = argument.replace("{" + name + "}", str(path))
            filled.append(argument)
        return filled

    def limits(self, limit: str) -> tuple[str, ...]:
        """The limit of a run, unless its rounds limit it."""
        return () if self.stage in OF_ROUNDS and "max_epochs" in limit else (limit,)

    def chain(self, name: str, kills: Sequence[Kill], *more: str, limit: str = EPOCHS) -> Path:
        """Kill, resume and kill again, then run to the end; the folder of the last run."""
        runs, checkpoint = self.folder / name, None
        for kill in (*kills, None):
            options = kill.options if kill else ()
            status = self.run(
                runs, *more, *options, checkpoint=checkpoint, limits=self.limits(limit)
            )
            if not any(runs.glob("[0-9]*")):  # it was refused
                raise AssertionError(f"{name}: exit {status}\n{self.output()}")
            folder = newest(runs)
            saved = folder / "checkpoints" / "last.ckpt"
            checkpoint = saved if saved.exists() else checkpoint
            if kill is None and status != 0:
                raise AssertionError(f"{name}: exit {status}\n{self.output()}")
        return folder

    def output(self) -> str:
        """The end of what the last run printed."""
        return (self.folder / "output.txt").read_text(errors="replace")[-3000:]


def compare_states(
    runs: Runs,
    starts: Iterable[int] = range(1, NUM_STEPS),
    limit: str = EPOCHS,
    num_steps: int = NUM_STEPS,
) -> dict[str, Any]:
    """Resume states of a run, and compare all that follows with the run that nobody killed.

    Args:
        runs: of the stage.
        starts: steps after which a run is resumed.
        limit: of all runs.
        num_steps: of a run under this limit.
    """
    options = ("--save_every=1", "--trainer.callbacks+=tests.stages.callbacks.CopyStates")
    reference = runs.chain("undisturbed", [], *options, limit=limit)
    problems, pairs = [], 0
    for start in starts:
        checkpoint = reference / _state(start)
        folder = runs.folder / f"from {start}"
        status = runs.run(folder, *options, checkpoint=checkpoint, limits=runs.limits(limit))
        if status:
            problems.append(f"from {start}: exit {status}: {runs.output()}")
            continue
        for step in range(start + 1, num_steps):
            pairs += 1
            if states_differ(folder / "0" / _state(step), reference / _state(step)):
                problems.append(f"from {start}: other state after {step} steps")
        problems += [f"from {start}: {text}" for text in differences(folder / "0", reference)]
    return {"rows": len(metrics(reference)), "pairs": pairs, "problems": problems}


def _state(step: int) -> Path:
    """The path of a copied checkpoint in the folder of its run."""
    return Path("states", str(step), "checkpoints", "last.ckpt")


def differences(folder: Path, reference: Path) -> list[str]:
    """What differs between two runs: metrics in every column, bytes of the adapter, files left behind."""
    problems = []
    rows, expected = metrics(folder), metrics(reference)
    if rows != expected:
        pairs = zip(rows, expected, strict=False)
        at = next((i for i, (row, other) in enumerate(pairs) if row != other), "the end")
        problems.append(f"metrics.csv: {len(rows)} rows, expected {len(expected)}, differ at {at}")
    for file in sorted(reference.glob("adapter/*.safetensors")):
        if (folder / "adapter" / file.name).read_bytes() != file.read_bytes():
            problems.append(f"adapter/{file.name} has other bytes")
    if states_differ(folder / "checkpoints/last.ckpt", reference / "checkpoints/last.ckpt"):
        problems.append("last.ckpt holds another state")
    runs = folder.parent
    leftovers = [*runs.rglob("*.tmp"), *runs.rglob(".*.tmp")]
    problems += [f"{path.relative_to(runs)} is left" for path in leftovers]
    return problems


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of the trace, but for the speed."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    for row in rows:
        for name in MACHINE:
            row.pop(name, None)
    return rows


def states_differ(path: Path, other: Path) -> bool:
    """Whether two checkpoints hold other values anywhere."""
    state, expected = (torch.load(p, weights_only=True, map_location="cpu") for p in (path, other))
    return not _equal(state, expected)


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return torch.equal(value, other)
    if isinstance(value, dict):
        names = value.keys() - TIMES
        return names == other.keys() - TIMES and all(_equal(value[k], other[k]) for k in names)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(_equal, value, other))
    return bool(value == other)


def newest(runs: Path) -> Path:
    """The newest numbered folder."""
    return max((path for path in runs.iterdir() if path.name.isdigit()), key=lambda p: int(p.name))


def _as_command(arguments: list[str], output: Path) -> int:
    """Run the command with all processes that it starts, and wait until none of them is left."""
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_align", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status = process.wait()
    end = time.monotonic() + MAX_SECONDS_LEFT
    while _is_running(process.pid):
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"a process outlives its run by {MAX_SECONDS_LEFT} seconds")
        time.sleep(0.1)
    return status


def _is_running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def warm_up(folder: Path) -> None:
    """Import in this process what runs import when they need it, so that their forks have it."""
    torch.set_num_threads(1)  # a fork would wait for the threads of this process, which it has not
    folder.mkdir(parents=True, exist_ok=True)
    runs = Runs(folder, "DPO", ("--trainer.max_steps=1",))
    main(runs.arguments(folder / "warm"))
