"""DPO here and in TRL 1.16: the same ids, model, adapter, optimiser and order; equal results first, then the cost.

Run as ``python -m tests.benchmarks.vs_trl``: about twelve minutes on a CPU, two with ``--quick``. Every run is a
process of its own. On a CPU its cost is the time the process computed (one thread), and the peak of its resident memory
above what it held before the first step. No figure is printed unless both systems, over twenty steps of one pair,
report the same losses and end with the same adapter, and report the same losses in every measured run: losses to 1e-4,
and the adapters to 2e-4 of the distance that training has moved them. Single weights may be a step of Adam apart: it
divides a gradient that is nearly zero by its own size, so that a rounding decides its sign.

``--device cuda --dtype bfloat16 --shape 1.5b`` takes random weights in the shape of Qwen2.5-1.5B, in 4 bits with
adapters in float32 as the product trains them, with CUDA events and PyTorch's own count of memory. That path has not
been run: no figure of it is claimed anywhere.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file

from . import inputs, report

ROOT = Path(__file__).parents[2]
PROOF = ROOT / "tests/proofs/vs_trl.json"
TOLERANCE, OF_MOVEMENT = 1e-4, 2e-4

RUNGS = {
    "trl": {"system": "trl", "reference": "each"},
    "trl_precomputed": {"system": "trl", "reference": "precomputed"},
    "rows": {"system": "ours", "layout": "rows", "reference": "each"},
    "trees": {"system": "ours", "layout": "trees", "reference": "each"},
    "trees_precomputed": {"system": "ours", "layout": "trees", "reference": "precomputed"},
}


class Bench:
    """Runs jobs one after another, each in a fresh process, on inputs written once."""

    def __init__(self, arguments: argparse.Namespace, folder: Path):
        self.folder, self.jobs = folder, 0
        cuda = arguments.device == "cuda"
        self.common = {
            "model": inputs.random_model(arguments.shape, folder / "model")
            if arguments.shape
            else inputs.SMOL,
            "device": arguments.device,
            "dtype": arguments.dtype,
            "threads": arguments.threads,
            "attention": None,
            "quantization": "nf4" if cuda else "none",
            "token_budget": 8192,
            "adapter": str(folder / "adapter.safetensors"),
            "layout": "trees",
            "checkpointing": False,
            "warmups": 1,
            "lr": 1e-4,
            "beta": 0.1,
            "max_grad_norm": 1.0,
        }
        inputs.adapter(self.common["model"], arguments.dtype, folder / "adapter.safetensors")

    def rows(self, name: str, rows: list[dict]) -> str:
        """Write the ids of a setting; both systems read this file."""
        file = self.folder / f"{name}.rows.json"
        file.write_text(json.dumps(rows))
        return str(file)

    def run(self, **job) -> dict:
        """Figures of one job, with the file of its final weights."""
        self.jobs += 1
        file = self.folder / f"job-{self.jobs}.json"
        job = {**self.common, **job}
        file.write_text(json.dumps(job))
        environment = {
            "OMP_NUM_THREADS": str(job["threads"]),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "tests.benchmarks.worker", str(file)]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
        return {**json.loads(Path(f"{file}.result").read_text()), "weights": f"{file}.safetensors"}


def gate(bench: Bench, rows: str, steps: int) -> dict:
    """Both systems over the same steps of one pair: how far their losses and their adapters come apart."""
    job = {"rows": rows, "pairs": 1, "steps": steps, "threads": os.cpu_count()}
    theirs, ours = (bench.run(**job, **RUNGS[rung]) for rung in ("trl", "trees"))
    start, a, b = (
        load_file(file) for file in (bench.common["adapter"], theirs["weights"], ours["weights"])
    )
    moved = torch.cat([(a[name] - start[name]).flatten() for name in start])
    apart = torch.cat([(a[name] - b[name]).flatten() for name in start])
    return {
        "steps": steps,
        "pairs": 1,
        "loss": max(abs(x - y) for x, y in zip(theirs["losses"], ours["losses"], strict=True)),
        "weights": apart.abs().max().item(),
        "moved": moved.abs().max().item(),
        "relative": (apart.norm() / moved.norm()).item(),
        "first_loss": ours["losses"][0],
        "last_loss": ours["losses"][-1],
        "peak": {"trl": theirs["peak"], "trees": ours["peak"]},
    }


def measure(bench: Bench, rows: str, passes: list[list[str]], **job) -> dict:
    """The rungs of each pass in their order, each in a process of its own; figures of all of them together."""
    runs: dict[str, list[dict]] = {rung: [] for rung in passes[0]}
    for rungs in passes:
        for rung in rungs:
            runs[rung].append(bench.run(rows=rows, **job, **RUNGS[rung]))
            print(f"  {rung}: {runs[rung][-1]['seconds']} s a step", file=sys.stderr, flush=True)
    losses = [run["losses"] for of_rung in runs.values() for run in of_rung]
    apart = max(abs(x - y) for other in losses for x, y in zip(losses[0], other, strict=True))
    return {
        "loss_apart": apart,
        "rungs": {rung: report.merged(of_rung, job["pairs"]) for rung, of_rung in runs.items()},
    }


def settings(arguments: argparse.Namespace) -> dict[str, dict]:
    """What is measured: which rows, how many pairs a step, which rungs in which order."""
    cuda = arguments.device == "cuda"
    pairs, steps = (8, 13) if cuda else (1 if arguments.quick else 4, 2)
    ids = partial(inputs.random_ids, vocabulary=151936) if arguments.shape else inputs.text
    ladder = {"pairs": pairs, "steps": steps, "warmups": 3 if cuda else 1}
    small = ladder if cuda else {**ladder, "pairs": 2}  # or the whole would take twice as long
    made = {
        "A": {
            "title": "prompts of 124 tokens, responses of 52",
            "rows": ids(124, 52, max(pairs * steps, 20)),
            "passes": [list(RUNGS)] if arguments.quick else [list(RUNGS), ["trees", "trl"]],
            **ladder,
        }
    }
    if arguments.quick:
        return made
    made["A, checkpointing"] = {
        "title": "the same, with gradient checkpointing, which TRL does unless told otherwise",
        "rows": made["A"]["rows"],
        "passes": [["trl", "trees"]],
        **small,
        "checkpointing": True,
    }
    made["B"] = {
        "title": "prompts of 48 tokens, responses of 96",
        "rows": ids(48, 96, pairs * steps),
        "passes": [
            ["trl", "trl_precomputed", "trees", "trees_precomputed"],
            ["trees", "trl"],
            ["trl", "trees"],
        ],
        **small,
    }
    real = (
        Path(os.environ.get("LIT_ALIGN_DATA", ROOT.parent / "shared/data"))
        / "llamafactory_demo/dpo_en_demo.json"
    )
    if real.is_file():
        made["C"] = {
            "title": "real pairs of ragged lengths, cut at 192 tokens",
            "rows": inputs.ragged(real, pairs * steps),
            "passes": [["trl", "trees"]],
            **ladder,
        }
    else:
        print(f"setting C is left out: there is no {real}; set LIT_ALIGN_DATA", file=sys.stderr)
    return made


def main() -> None:
    """Check that both learn the same, measure, write the figures and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one pair a step, setting A alone; writes no proof"
    )
    parser.add_argument(
        "--out", type=Path, help=f"where the figures go; {PROOF.relative_to(ROOT)} unless --quick"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--shape", choices=["1.5b"], help="random weights in this shape instead of SmolLM2-135M"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only", nargs="+", help="settings to measure again; the figures of the others stay"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, Path(folder))
        todo = settings(arguments)
        files = {name: bench.rows(name, setting.pop("rows")) for name, setting in todo.items()}
        found = {"machine": _machine(arguments), "versions": _versions()}
        if (
            arguments.dtype == "float32"
        ):  # in bfloat16 one rounding is larger than what the gate allows
            found["gate"] = gate(bench, files["A"], 5 if arguments.quick else 20)
            print(found["gate"], file=sys.stderr, flush=True)
            if found["gate"]["loss"] > TOLERANCE or found["gate"]["relative"] > OF_MOVEMENT:
                sys.exit(f"the two systems do not learn the same: {found['gate']}; no figures")
        if arguments.device == "cpu":
            count = bench.run(system="flops", reference="each", rows=files["A"], pairs=1, steps=1)
            found["flops"] = {what: count[what] for what in ("trl", "counted", "expected")}
        found["settings"] = {}
        if arguments.only:
            found["settings"] = json.loads(PROOF.read_text())["settings"]
        for name in arguments.only or todo:
            setting = todo[name]
            print(name, setting, file=sys.stderr, flush=True)
            title, passes = setting.pop("title"), setting.pop("passes")
            figures = measure(bench, files[name], passes, **setting)
            if arguments.dtype == "float32" and figures["loss_apart"] > TOLERANCE:
                sys.exit(
                    f"in setting {name} the losses are {figures['loss_apart']} apart; no figures"
                )
            found["settings"][name] = {"title": title, **setting, **figures}
    out = arguments.out or (None if arguments.quick else PROOF)
    text = json.dumps(found, indent=1) + "\n"
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    print(report.rendered(found))


def _machine(arguments: argparse.Namespace) -> dict:
    cpu = next(
        (line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    ).partition(": ")[2]
    return {
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if arguments.device == "cuda" else None,
        "dtype": arguments.dtype,
        "threads": arguments.threads,
        "load_before": os.getloadavg()[0],
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "peft", "lightning", "trl", "accelerate")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


if __name__ == "__main__":
    main()
