"""Killed anywhere and resumed, every stage does what it does undisturbed.

``python -m tests.proofs.kills [STAGE ...]`` resumes each of the 8 states of a run of 9 steps, and compares every state
that follows, and all that the run leaves, with those of the run that nobody killed. A state is all that a resumed run
reads, so equal states mean equal runs after any number of kills. Real signals at random moments, three in a row, check
that nothing else is read. Figures go to ``kills.json`` beside this file.
"""

import json
import random
import resource
import sys
import tempfile
from pathlib import Path

from tests.kills import (
    NUM_STEPS,
    STAGES,
    Kill,
    Runs,
    differences,
    metrics,
    states_differ,
    warm_up,
)

FIGURES = Path(__file__).with_suffix(".json")
COPY = "--trainer.callbacks+=tests.stages.callbacks.CopyStates"
CHAINS = 2  # random chains of a stage
SAVE_EVERY = (1, 2, 3)
LIMITS = ("--trainer.max_epochs=3", "--trainer.max_steps=9")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_optimizer_step",
)


def compare_states(runs: Runs, limit: str) -> dict:
    """Resume every state of a run, and compare all that follows."""
    options = ("--save_every=1", COPY)
    reference = runs.chain("undisturbed", [], *options, limit=limit)
    problems, pairs = [], 0
    for start in range(1, NUM_STEPS):
        checkpoint = reference / "states" / str(start) / "checkpoints" / "last.ckpt"
        folder = runs.folder / f"from {start}"
        status = runs.run(folder, *options, checkpoint=checkpoint, limits=runs.limits(limit))
        if status:
            problems.append(f"from {start}: exit {status}")
            continue
        for step in range(start + 1, NUM_STEPS):
            state = Path("states", str(step), "checkpoints", "last.ckpt")
            pairs += 1
            if states_differ(folder / "0" / state, reference / state):
                problems.append(f"from {start}: other state after {step} steps")
        problems += [f"from {start}: {text}" for text in differences(folder / "0", reference)]
    return {"rows": len(metrics(reference)), "pairs": pairs, "problems": problems}


def random_chains(runs: Runs, draw: random.Random) -> dict:
    """Kill three times at random moments."""
    problems, chains = [], []
    for number in range(CHAINS):
        save_every, limit = draw.choice(SAVE_EVERY), draw.choice(LIMITS)
        options = (f"--save_every={save_every}",)
        reference = runs.chain(f"chain {number} undisturbed", [], *options, limit=limit)
        kills = []
        for step in sorted(draw.sample(range(NUM_STEPS), 3)):
            kills.append(Kill(step, draw.choice(HOOKS), draw.choice(SIGNALS)))
        folder = runs.chain(f"chain {number}", kills, *options, limit=limit)
        found = differences(folder, reference)
        name = " ".join(f"{kill.signal}@{kill.step}:{kill.hook}" for kill in kills)
        chains.append(f"save_every {save_every}, {limit.removeprefix('--trainer.')}, {name}")
        problems += [f"{chains[-1]}: {text}" for text in found]
    return {"chains": chains, "problems": problems}


def prove(stage: str, folder: Path) -> dict:
    """Both experiments with one stage, and the CPU seconds that they took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    states = compare_states(Runs(folder / "states", stage), LIMITS[len(stage) % 2])
    chains = random_chains(Runs(folder / "chains", stage), random.Random(stage))
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return {"every state": states, "random chains": chains, "CPU seconds": round(seconds)}


def main(stages: list[str]) -> None:
    """Run the experiments and write the figures, stage by stage."""
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder, "warm"))
        for stage in stages or STAGES:
            figures[stage] = prove(stage, Path(folder, stage.replace(" ", "-")))
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
            print(stage, figures[stage], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
