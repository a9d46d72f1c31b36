"""Killed anywhere and resumed, every stage does what it does undisturbed.

``python -m tests.proofs.kills [STAGE ...]`` resumes the state after each of the 9 steps of a run, and compares every
state that follows, and all that the run leaves, with those of the run that nobody killed. A state is all that a resumed
run reads, so equal states mean equal runs after any number of kills. Real signals at random moments, three in a row,
check that nothing else is read; ``--only 'two processes'`` kills processes of a run of two. Figures go to
``kills.json`` beside this file.
"""

import argparse
import itertools
import json
import random
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.kills import (
    NUM_STEPS,
    STAGES,
    Kill,
    Runs,
    compare_states,
    differences,
    warm_up,
)

FIGURES = Path(__file__).with_suffix(".json")
SAVE_EVERY = (1, 2, 3)
LIMITS = ("--trainer.max_epochs=3", "--trainer.max_steps=9")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
KILLED_PROCESSES = (
    Kill(2, rank=1),
    Kill(4, "on_before_optimizer_step", rank=0),
    Kill(5, "on_train_batch_end"),
    Kill(6, signal="SIGTERM", rank=1),
    Kill(7, signal="SIGINT", rank=0),
)
HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_optimizer_step",
)


def random_chains(runs: Runs, draw: random.Random, num_chains: int) -> dict:
    """Kill three times at random moments, under each way to save and to end a run in turn."""
    ways = list(itertools.product(SAVE_EVERY, LIMITS))
    draw.shuffle(ways)
    problems, chains = [], []
    for number in range(num_chains):
        save_every, limit = ways[number % len(ways)]
        options = (f"--save_every={save_every}",)
        name = f"save_every {save_every}, {limit.removeprefix('--trainer.')}"
        if number < len(ways):
            runs.chain(f"{name} undisturbed", [], *options, limit=limit)
        kills = []
        for step in sorted(draw.sample(range(NUM_STEPS), 3)):
            kills.append(Kill(step, draw.choice(HOOKS), draw.choice(SIGNALS)))
        folder = runs.chain(f"chain {number}", kills, *options, limit=limit)
        moments = " ".join(f"{kill.signal}@{kill.step}:{kill.hook}" for kill in kills)
        chains.append(f"{name}, {moments}")
        for text in differences(folder, runs.folder / f"{name} undisturbed" / "0"):
            problems.append(f"{chains[-1]}: {text}")
    return {"chains": chains, "problems": problems}


def two_processes(runs: Runs) -> dict:
    """Kill the second of two processes, then the first, then both, and let one of them get another signal."""
    options = ("--save_every=1",)
    reference = runs.chain("undisturbed", [], *options)
    folder = runs.chain("killed", KILLED_PROCESSES, *options)
    chain = [f"{kill.signal}@{kill.step}:rank {kill.rank}" for kill in KILLED_PROCESSES]
    return {"chains": [" ".join(chain)], "problems": differences(folder, reference)}


EXPERIMENTS: dict[str, Callable[[Runs, random.Random, int], dict]] = {
    "every state": lambda runs, draw, _: compare_states(runs, limit=draw.choice(LIMITS)),
    "after the last step": lambda runs, draw, _: compare_states(runs, [NUM_STEPS]),
    "random chains": random_chains,
    "two processes": lambda runs, *_: two_processes(runs),
}
OF_ALL_STAGES = [*EXPERIMENTS][:3]  # the others only where they are asked for


def main(arguments: list[str]) -> None:
    """Run the experiments and write the figures, stage by stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stages", nargs="*", default=list(STAGES))
    parser.add_argument("--only", choices=EXPERIMENTS, help="one experiment, the others as before")
    parser.add_argument("--chains", type=int, default=2, help="random chains of a stage")
    parsed = parser.parse_args(arguments)
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder, "warm"))
        for stage in parsed.stages:
            for name in [parsed.only] if parsed.only else OF_ALL_STAGES:
                processes = 2 if name == "two processes" else 1
                runs = Runs(Path(folder, stage, name), stage, processes=processes)
                before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
                result = EXPERIMENTS[name](runs, random.Random(stage), parsed.chains)
                seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
                figures.setdefault(stage, {})[name] = {**result, "CPU seconds": round(seconds)}
                FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
                print(stage, name, figures[stage][name], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
