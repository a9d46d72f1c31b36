"""``lit-align evaluate cross-modal``: is it worth aligning an embedder, or a language model at all?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lit_align.cli.error_messages import near
from lit_align.errors import ConfigError
from lit_align.orca.evaluation import ARMS, baselines, compared, plot_arms, settings_of, trained

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
        "help": "Of initial weights, splits and order; the first one chooses the lr.",
    },
    "steps": {
        "type": int,
        "help": "Optimiser steps of each run; none takes trainer.max_steps of the YAML.",
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


def refuse(made: Any) -> None:
    """Say so if there is nothing to compare.

    Raises:
        ConfigError: with a remedy.
    """
    if strange := set(made.arms) - ARMS.keys():
        raise ConfigError(f"there is no arm {min(strange)!r}{near(min(strange), ARMS)}")
    if made.seeds < 1 or (made.steps is not None and made.steps < 1):
        raise ConfigError(f"seeds is {made.seeds} and steps {made.steps}; both are at least 1")
    for file in made.tasks:
        if not Path(file).is_file():
            raise ConfigError(f"there is no file {file}; give the YAML of a task")
        task = yaml.safe_load(Path(file).read_text("utf-8"))
        if not isinstance(task, dict) or not all(
            isinstance(task.get(one), dict) for one in ("model", "data")
        ):
            raise ConfigError(f"{file} has no model and data; give the YAML of a task")
        if (stage := str(task["model"].get("class_path")).rpartition(".")[2]) != "CrossModal":
            raise ConfigError(f"{file} is of {stage}, not of CrossModal; give the YAML of a task")
        if not made.steps and _steps(task) < 1:
            raise ConfigError(
                f"{file} has no trainer.max_steps above 0; state it there, or give --steps"
            )


def run(made: Any, folder: Path) -> dict[str, Any]:
    """Train whatever is not in the results yet, then print, keep and draw the figures."""
    from rich.console import Console
    from rich.table import Table

    found: dict[str, Any] = {}
    for file in made.tasks:
        name, task = Path(file).stem, yaml.safe_load(Path(file).read_text("utf-8"))
        steps, results, chosen = made.steps or _steps(task), Path(made.results), []
        for arm in made.arms:
            tried = [_trial(results, name, task, steps, arm, lr, 0) for lr in made.lrs]
            lr = min(tried, key=lambda one: one["eval_loss"])["lr"]
            chosen += [
                _trial(results, name, task, steps, arm, lr, seed) for seed in range(made.seeds)
            ]
        of_seed = [_without(results, name, task, seed) for seed in range(made.seeds)]
        means = {key: sum(one[key] for one in of_seed) / len(of_seed) for key in of_seed[0]}
        figures = {
            "metric": chosen[0]["metric"],
            "steps": steps,
            "lrs": made.lrs,
            "baselines": means,
        }
        found[name] = {**figures, "arms": compared(chosen)}
        (folder / "cross_modal.json").write_text(
            json.dumps(found, indent=2) + "\n", encoding="utf-8"
        )
        plot_arms(found, folder / "cross_modal.png")
    for name, of in found.items():
        table = Table(
            "",
            of["metric"],
            "sd",
            "p",
            "seconds",
            "CPU",
            "lr",
            "kept",
            title=f"{name}, in the test",
        )
        for arm, one in of["arms"].items():
            shown = [_number(one[key]) for key in ("mean", "sd", "against naive")]
            shown += [f"{one[key]:.0f}" for key in ("seconds", "cpu_seconds")]
            table.add_row(arm, *shown, f"{one['lr']:g}", f"{one['kept']} of {one['seeds']}")
        for baseline, value in of["baselines"].items():
            table.add_row(baseline, f"{value:.4f}")
        Console().print(table)
    print(f"The run is in {folder}: cross_modal.json, cross_modal.png.")
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _steps(task: dict[str, Any]) -> int:
    return int((task.get("trainer") or {}).get("max_steps") or 0)


def _trial(
    results: Path, name: str, task: dict[str, Any], steps: int, arm: str, lr: float, seed: int
) -> dict[str, Any]:
    """A run of an arm."""

    def make() -> dict[str, Any]:
        figures = trained(settings, steps)
        told = f"validation loss {figures['eval_loss']:.4f} in {figures['seconds']:.0f} s"
        print(f"{name} {arm} lr {lr:g} seed {seed}: {told}", flush=True)
        return {"task": name, "arm": arm, "lr": lr, "seed": seed, **figures}

    settings = settings_of(task, arm, lr, seed)
    return _once(results, [settings, steps], make)


def _without(results: Path, name: str, task: dict[str, Any], seed: int) -> dict[str, float]:
    """What needs no model, on the same split."""
    data = settings_of(task, "naive", 0.0, seed)["data"]
    found = _once(results, data, lambda: {"task": name, "seed": seed, "baselines": baselines(data)})
    return dict(found["baselines"])


def _once(results: Path, made_of: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A line of the results by what it is made of; it is made unless it is there."""
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    if results.exists():
        for line in results.read_text("utf-8").splitlines():
            if (known := json.loads(line))["key"] == key:
                return known  # type: ignore[no-any-return]
    new = {"key": key, **make()}
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", encoding="utf-8") as out:
        out.write(json.dumps(new) + "\n")
    return new
