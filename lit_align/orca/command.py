"""``lit-align evaluate cross-modal``: does it help to align an embedder, or to start from pretrained weights?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lit_align.cli.setting_homes import suggestion
from lit_align.errors import ConfigError
from lit_align.jsonl import append_jsonl, read_jsonl, write_json
from lit_align.orca.evaluation import (
    ARMS,
    arm_settings,
    baseline_metrics,
    compare_arms,
    plot_arms,
    run_arm,
)

SETTINGS: dict[str, dict[str, Any]] = {
    "tasks": {
        "type": str,
        "nargs": "+",
        "required": True,
        "help": "YAMLs of fit with CrossModal, one for each task.",
    },
    "arms": {
        "type": str,
        "nargs": "+",
        "default": [*ARMS],
        "help": f"What is compared: {', '.join(ARMS)}.",
    },
    "lrs": {
        "type": float,
        "nargs": "+",
        "default": [1e-4, 3e-4, 1e-3],
        "help": "Learning rates to choose from.",
    },
    "seeds": {
        "type": int,
        "default": 5,
        "help": "Number of seeds of initial weights, splits and order; the first one chooses the learning rate.",
    },
    "steps": {
        "type": int,
        "help": "Optimiser steps of each run; null takes trainer.max_steps of the YAML.",
    },
    "results": {
        "type": str,
        "default": "runs/cross_modal.jsonl",
        "help": "Runs that are in this file are not repeated.",
    },
    "run": {
        "type": str,
        "default": "runs/evaluate",
        "help": "Folder of runs; each one gets a number in it.",
    },
}


def refuse(settings: Any) -> None:
    """Refuse settings with which no comparison can run.

    Raises:
        ConfigError: with a remedy.
    """
    unknown = set(settings.arms) - set(ARMS)
    if unknown:
        arm = min(unknown)
        raise ConfigError(f"there is no arm {arm!r}{suggestion(arm, ARMS)}")
    if settings.seeds < 1 or (settings.steps is not None and settings.steps < 1):
        raise ConfigError(
            f"seeds is {settings.seeds} and steps {settings.steps}; both are at least 1"
        )
    for file in settings.tasks:
        task = _load_task(file)
        if not settings.steps and _max_steps(task) < 1:
            raise ConfigError(
                f"{file} has no trainer.max_steps above 0; set it there, or give --steps"
            )


def _load_task(file: str) -> dict[str, Any]:
    """The settings of a CrossModal run.

    Raises:
        ConfigError: if the file holds none.
    """
    if not Path(file).is_file():
        raise ConfigError(f"there is no file {file}; give the YAML of a task")
    task = yaml.safe_load(Path(file).read_text("utf-8"))
    if not isinstance(task, dict):
        task = {}
    for part in ("model", "data"):
        if not isinstance(task.get(part), dict):
            raise ConfigError(f"{file} has no model and data; give the YAML of a task")
    stage = str(task["model"].get("class_path")).rpartition(".")[2]
    if stage != "CrossModal":
        raise ConfigError(f"{file} is of {stage}, not of CrossModal; give the YAML of a task")
    return task


def _max_steps(task: dict[str, Any]) -> int:
    return int((task.get("trainer") or {}).get("max_steps") or 0)


def run(settings: Any, folder: Path) -> dict[str, Any]:
    """Train what is not in the results yet, then print, save and plot the comparison of each task."""
    results: dict[str, Any] = {}
    for file in settings.tasks:
        name = Path(file).stem
        results[name] = _compare(settings, name, _load_task(file))
        write_json(folder / "cross_modal.json", results, ascii_only=True)
        plot_arms(results, folder / "cross_modal.png")
    for name, result in results.items():
        _print_table(name, result)
    print(f"The run is in {folder}: cross_modal.json, cross_modal.png.")
    return results


def _compare(settings: Any, name: str, task: dict[str, Any]) -> dict[str, Any]:
    """All arms and baselines of one task; the learning rate of an arm is chosen on validation with the first seed."""
    cache = Path(settings.results)
    steps = settings.steps or _max_steps(task)
    runs: list[dict[str, Any]] = []
    for arm in settings.arms:
        trials = [_run_once(cache, name, task, steps, arm, lr, 0) for lr in settings.lrs]
        best = min(trials, key=lambda trial: trial["eval_loss"])
        for seed in range(settings.seeds):
            runs.append(_run_once(cache, name, task, steps, arm, best["lr"], seed))
    baselines = [_baselines_once(cache, name, task, seed) for seed in range(settings.seeds)]
    means = {}
    for baseline in baselines[0]:
        values = [metrics[baseline] for metrics in baselines]
        means[baseline] = sum(values) / len(values)
    return {
        "metric": runs[0]["metric"],
        "steps": steps,
        "lrs": settings.lrs,
        "baselines": means,
        "arms": compare_arms(runs),
    }


def _run_once(
    cache: Path, name: str, task: dict[str, Any], steps: int, arm: str, lr: float, seed: int
) -> dict[str, Any]:
    """A run of an arm, from the results file if it is there."""
    settings = arm_settings(task, arm, lr, seed)

    def train() -> dict[str, Any]:
        metrics = run_arm(settings, steps)
        outcome = f"validation loss {metrics['eval_loss']:.4f} in {metrics['seconds']:.0f} s"
        print(f"{name} {arm} lr {lr:g} seed {seed}: {outcome}", flush=True)
        return {"task": name, "arm": arm, "lr": lr, "seed": seed, **metrics}

    return _cached(cache, [settings, steps], train)


def _baselines_once(cache: Path, name: str, task: dict[str, Any], seed: int) -> dict[str, float]:
    """The baselines on the split of the same seed, from the results file if they are there."""
    data = arm_settings(task, "naive", 0.0, seed)["data"]

    def measure() -> dict[str, Any]:
        return {"task": name, "seed": seed, "baselines": baseline_metrics(data)}

    return dict(_cached(cache, data, measure)["baselines"])


def _cached(path: Path, settings: Any, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The line of a results file whose key is the hash of ``settings``; computed and appended if it is missing."""
    text = json.dumps(settings, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    if path.exists():
        for row in read_jsonl(path):
            if row["key"] == key:
                return dict(row)
    row = {"key": key, **compute()}
    path.parent.mkdir(parents=True, exist_ok=True)
    append_jsonl(path, [row], ascii_only=True)
    return row


def _print_table(name: str, result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("", result["metric"], "sd", "p", "seconds", "CPU", "lr", "kept")
    table = Table(*columns, title=f"{name}, in the test")
    for arm, summary in result["arms"].items():
        table.add_row(
            arm,
            _format_number(summary["mean"]),
            _format_number(summary["sd"]),
            _format_number(summary["against naive"]),
            f"{summary['seconds']:.0f}",
            f"{summary['cpu_seconds']:.0f}",
            f"{summary['lr']:g}",
            f"{summary['kept']} of {summary['seeds']}",
        )
    for baseline, value in result["baselines"].items():
        table.add_row(baseline, f"{value:.4f}")
    Console().print(table)


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
