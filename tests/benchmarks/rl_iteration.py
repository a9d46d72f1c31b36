"""Whole iterations of GRPO and PPO, sampling included, against another build of lit_align.

Run as ``python -m tests.benchmarks.rl_iteration OTHER``, where OTHER is a checkout of the other build. Each build has a
process of its own; both run the same iteration in turn, so that what else the machine does falls on both. Metrics and
weights must agree before a ratio is printed: the CPU time of an iteration of the other build by that of this one, the
median of all after the first. Eight prompts have four responses of 48 tokens each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from . import inputs

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("rl_worker.py")
TOLERANCE = 2e-5
WORDS = 60  # of a prompt, about 100 tokens with the template


def write_prompts(path: Path, count: int) -> None:
    """Prompts of English prose, each different."""
    from pydoc_data.topics import topics

    words = " ".join(topics[name] for name in sorted(topics)).split()
    lines = []
    for start in range(0, count * WORDS, WORDS):
        text = " ".join(words[start : start + WORDS])
        lines.append(json.dumps({"prompt": [{"role": "user", "content": text}]}))
    path.write_text("\n".join(lines) + "\n")


class Build:
    """A process that runs the iterations of one build.

    Args:
        root: of the build's checkout.
        job: what `rl_worker` runs.
    """

    def __init__(self, root: Path, job: dict[str, Any]) -> None:
        self.folder = Path(job["folder"])
        self.folder.mkdir(parents=True)
        self.errors = (self.folder / "errors.txt").open("w")
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(job)],
            env=environment,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def iterate(self) -> dict[str, float]:
        """Figures of the next iteration."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('{"seconds"'):
                figures: dict[str, float] = json.loads(line)
                return figures
        raise RuntimeError((self.folder / "errors.txt").read_text())

    def weights(self) -> dict[str, torch.Tensor]:
        """Trained weights after the last iteration."""
        self.process.wait()
        weights: dict[str, torch.Tensor] = torch.load(self.folder / "weights.pt")
        return weights


def compare(other: Path, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run both builds in turn; figures with what they differ by."""
    roots = {"other": other, "this": ROOT}
    builds = {
        name: Build(root, {**job, "folder": str(folder / name)}) for name, root in roots.items()
    }
    times: dict[str, list[float]] = {name: [] for name in builds}
    metric_difference = 0.0
    for _ in range(job["iterations"]):
        figures = {name: build.iterate() for name, build in builds.items()}
        for name in builds:
            times[name].append(figures[name].pop("seconds"))
        for name, value in figures["this"].items():
            difference = abs(value - figures["other"][name]) / max(1.0, abs(value))
            metric_difference = max(metric_difference, difference)
        print(job["method"], {name: round(each[-1], 2) for name, each in times.items()}, flush=True)
    weights = {name: build.weights() for name, build in builds.items()}
    weight_difference = 0.0
    for name, weight in weights["this"].items():
        difference = (weight - weights["other"][name]).abs().max().item()
        weight_difference = max(weight_difference, difference)
    medians = {name: statistics.median(each[1:]) for name, each in times.items()}
    return {
        "metrics differ by": metric_difference,
        "weights differ by": weight_difference,
        "CPU seconds": medians,
        "spread": {name: [min(each[1:]), max(each[1:])] for name, each in times.items()},
        "ratio": medians["other"] / medians["this"],
    }


def main(arguments: list[str]) -> None:
    """Compare both methods and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("other", type=Path, help="a checkout of the build to compare with")
    parser.add_argument("--methods", nargs="*", default=["GRPO", "PPO"])
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--layers", type=int, default=30, help="layers of the model")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--response", type=int, default=48, help="tokens of a response")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_prompts(folder / "prompts.jsonl", options.prompts * options.iterations)
        job = {
            "model": inputs.first_layers(options.layers, folder / "model"),
            "prompts": str(folder / "prompts.jsonl"),
            "prompts_at_once": options.prompts,
            "samples": 4,
            "response": options.response,
            "iterations": options.iterations,
            "checkpointing": options.checkpointing,
        }
        for method in options.methods:
            figures = compare(options.other.resolve(), {**job, "method": method}, folder / method)
            print(json.dumps({method: figures}, indent=1), flush=True)
            if max(figures["metrics differ by"], figures["weights differ by"]) > TOLERANCE:
                sys.exit(f"the two builds do not learn the same by {method}")


if __name__ == "__main__":
    main(sys.argv[1:])
