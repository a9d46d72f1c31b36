"""Does on-policy learning earn more without going far, and does it say so when it is being fooled?

``python -m tests.proofs.on_policy`` runs the command on a real model: beginnings of sentences of our own, a lexicon of
sentiment as the reward (the plugin's Vader, from -1 to 1), responses of 16 tokens, 16 in an iteration. PPO three times,
RLOO and GRPO once each, and RLOO once more with divergence free of charge and a high learning rate. Settings were
chosen on other beginnings and other seeds, but for two learning rates: at PPO's, RLOO earned 0.47 more and went 14 nats
far on these (seed 11), so it has half of it; at half of it GRPO earned 0.17 more (seed 21), so it has three quarters.
Figures go to ``on_policy.json`` and ``on_policy.png`` beside this file. With names of runs behind it, only those run.
"""

import csv
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILE = HERE / "on_policy.json"
WINDOW = 5
"""Iterations that a first and a last mean are taken over."""

FRAMES = (
    "I think that the {} is", "We went to see the {} and", "My opinion of the {}:", "Last week the {}",
    "They say the {} will", "When I opened the door, the {}", "Honestly, the {} has", "A friend told me that the {}",
)  # fmt: skip
LEARNED = ("play", "bakery", "school", "bus", "park", "song", "market", "river", "nurse")
HELD = ("museum", "doctor")

COMMON = (
    *(
        "-c",
        "configs/tiny/ppo.yaml",
        "--trainer.max_epochs=1",
        "--trainer.max_steps=-1",
        "--trainer.num_sanity_val_steps=0",
    ),
    *(
        "--trainer.enable_progress_bar=false",
        "--model.reward=lit_align_vader.Vader",
        "--model.max_new_tokens=16",
    ),
    *(
        "--model.num_generations=4",
        "--model.num_minibatches=2",
        "--model.gradient_checkpointing=false",
        "--model.optimizer.lr=1e-3",
    ),
    *(
        "--model.lora.r=16",
        "--model.lora.alpha=32",
        "--data.batch_size=4",
        "--data.token_budget=4096",
    ),
)
RUNS: dict[str, tuple[int, tuple[str, ...]]] = {
    "PPO, seed 11": (11, ()),
    "PPO, seed 12": (12, ()),
    "PPO, seed 13": (13, ()),
    "RLOO": (21, ("--model.advantage=RLOO", "--model.optimizer.lr=5e-4")),
    "GRPO": (22, ("--model.advantage=GRPO", "--model.optimizer.lr=7.5e-4")),
    "RLOO, KL free": (
        11,
        ("--model.advantage=RLOO", "--model.kl.coefficient=0", "--model.optimizer.lr=3e-3"),
    ),
}


def beginnings(things: tuple[str, ...]) -> str:
    """Every frame with each of ``things``, shuffled, as a file of prompts."""
    rows = [json.dumps({"prompt": frame.format(thing)}) for frame in FRAMES for thing in things]
    random.Random(0).shuffle(rows)
    return "\n".join(rows) + "\n"


def command(what: str, name: str, folder: Path) -> tuple[list[dict[str, str]], str]:
    """One command in a process of its own: the rows of its table, and what it said."""
    seed, more = RUNS[name]
    given = (
        f"--run={folder}/{what} {name}",
        f"--data.train={folder}/learned.jsonl",
        f"--data.seed={seed}",
    )
    path = os.pathsep.join([str(ROOT), f"{ROOT}/plugins/lit-align-vader"])
    done = subprocess.run(
        [sys.executable, "-m", "lit_align", what, *COMMON, *given, f"--data.validation={folder}/held.jsonl",
         f"--model.seed={seed}", *more],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with (folder / f"{what} {name}" / "0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file)), done.stdout + done.stderr


def validated(rows: list[dict[str, str]]) -> dict[str, float]:
    """Means over fresh responses to held-out beginnings."""
    *_, row = (row for row in rows if row.get("eval_objective/scores"))
    return {
        name: float(row[f"eval_objective/{name}"])
        for name in ("scores", "kl", "length", "eos_rate")
    }


def learn(name: str, folder: Path) -> dict:
    """One run: its curves, its means, what it warned of, what it cost."""
    start, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    rows, said = command("fit", name, folder)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = [row for row in rows if row.get("objective/scores") or row.get("eval_objective/scores")]
    seen = [row for row in rows if row.get("objective/scores")]
    curve = {
        of: [float(row[f"objective/{of}"]) for row in seen]
        for of in ("scores", "kl", "entropy", "length")
    }
    return {
        "seed": RUNS[name][0],
        "first": fmean(curve["scores"][:WINDOW]),
        "last": fmean(curve["scores"][-WINDOW:]),
        "last KL": fmean(curve["kl"][-WINDOW:]),
        "most KL": max(curve["kl"]),
        "held out": validated(rows),
        "warnings": re.findall(r"step (\d+: .*)", said),
        "CPU seconds": now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime,
        "wall seconds": time.perf_counter() - start,
        "curve": curve,
    }


def draw(runs: dict[str, dict]) -> None:
    """Reward and KL against iterations; thin lines are single iterations, thick ones means of ``WINDOW``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    for k, (name, run) in enumerate(runs.items()):
        for axis, of in zip(axes, ("scores", "kl"), strict=True):
            values = run["curve"][of]
            means = [fmean(values[at : at + WINDOW]) for at in range(len(values) - WINDOW + 1)]
            axis.plot(range(1, len(values) + 1), values, color=f"C{k}", linewidth=0.6, alpha=0.35)
            axis.plot(range(WINDOW, len(values) + 1), means, color=f"C{k}", label=name)
    axes[0].set_ylabel("reward (sentiment, -1 to 1)")
    axes[1].set(
        ylabel="KL, nats a response", yscale="symlog", yticks=(ticks := (0, 1, 3, 10, 30, 60))
    )
    axes[1].set_yticklabels(map(str, ticks))
    axes[1].axhline(10, color="k", linestyle=":", linewidth=1)
    for axis in axes:
        axis.set(xlabel="iteration", xticks=range(2, 19, 4))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(HERE / "on_policy.png", dpi=110)


def main(names: list[str]) -> None:
    """Run what is named, keep what is there of the rest, draw."""
    found = json.loads(FILE.read_text()) if FILE.exists() else {"runs": {}}
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        (folder / "learned.jsonl").write_text(beginnings(LEARNED))
        (folder / "held.jsonl").write_text(beginnings(HELD))
        for name in names or RUNS:
            if "before" not in found:  # no run has learned anything yet, so it is the same for all
                found["before"] = validated(command("validate", name, folder)[0])
            found["runs"][name] = learn(name, folder)
            print(
                name,
                {of: it for of, it in found["runs"][name].items() if of != "curve"},
                flush=True,
            )
            FILE.write_text(json.dumps(found, indent=1) + "\n")
            draw({name: found["runs"][name] for name in RUNS if name in found["runs"]})


if __name__ == "__main__":
    main(sys.argv[1:])
