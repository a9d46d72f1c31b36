"""Runs beside each other: the settings in which they differ, their main figures, and which is best by them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lit_align.errors import ConfigError
from lit_align.run_report.number_text import natural_key
from lit_align.run_report.record import (
    CONFIG,
    METRICS,
    SUMMARY,
    UNREADABLE,
    read_config,
    read_curves,
    read_optional,
)
from lit_align.run_report.setting_differences import differing_settings
from lit_align.run_report.status import read_status

MAX_FIGURES = 4


class MainFigure(NamedTuple):
    """A metric by which runs are compared.

    Args:
        name: as it is logged.
        settings: those that must be equal for its values to be comparable.
    """

    name: str
    settings: tuple[str, ...]


ROWS = ("data.validation",)
LOSS = ("model.objective", "model.label_noise")
MAIN_FIGURES = (
    MainFigure("eval_rewards/accuracies", ROWS),
    MainFigure("objective/scores", ("model.reward", "data.train")),
    MainFigure("eval_accuracy", ROWS),
    MainFigure("eval_loss", (*LOSS, *ROWS)),
    MainFigure("rewards/accuracies", ("data.train",)),
    MainFigure("loss", (*LOSS, "data.train")),
)
"""From the most telling one: the first that the runs have decides."""

SHOWN = (
    "objective/kl",
    "objective/entropy",
    "rewards/margins",
    "rewards/accuracies",
    "accuracy",
    "loss",
    "mean_token_accuracy",
)
"""Figures beside the main one; of validation rows where there are some."""


OF_TRAINING = ("rewards/accuracies", "loss")
"""Main figures of the rows that are trained on."""

HIGHER_IS_BETTER = ("accurac", "scores", "margins")


@dataclass
class Run:
    """What a comparison needs of a run.

    Args:
        folder: of the run.
        state: whether it goes on, or how it ended.
        reason: why it failed.
        command: that made it, such as fit.
        stage: name of its stage.
        config: all settings.
        steps: optimiser steps; None if it has logged none.
        seconds: that training took; None before its end.
        figures: last value of each metric.
        is_best: whether its main figure is the best of those it is compared with.
    """

    folder: Path
    state: str
    reason: str | None = None
    command: str = "fit"
    stage: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    seconds: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    is_best: bool = False


@dataclass
class Comparison:
    """Runs of one stage.

    Args:
        stage: its name.
        runs: in their order.
        settings: the values in each run of the settings in which they differ, by path.
        main: the figure that says which is best; None if they have none in common.
        verdict: which are the best by what, or why this cannot be said, in a sentence.
    """

    stage: str
    runs: list[Run]
    settings: dict[str, list[Any]]
    main: MainFigure | None
    verdict: str

    def figure_names(self) -> list[str]:
        """The figures to show, the main one first."""
        logged = {name for run in self.runs for name in run.figures}
        names = [] if self.main is None else [self.main.name]
        for name in SHOWN:
            variants = [variant for variant in (f"eval_{name}", name) if variant in logged]
            if variants and variants[0] not in names:
                names.append(variants[0])
        return names[:MAX_FIGURES]


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """All training runs in folders, in the order of their names; a number is before a larger one.

    Args:
        folders: of runs, or of folders of runs.

    Raises:
        ConfigError: if there is no such folder, or no run in it.
    """
    runs: list[Run] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"there is no folder {folder}; give a folder of runs, as in lit-align runs runs/dpo"
            )
        runs += _runs_below(folder)
    if not runs:
        names = " and ".join(map(str, folders))
        raise ConfigError(
            f"{names} holds no run of fit; give a folder that holds numbered folders, such as runs/dpo"
        )
    different = {run.folder.resolve(): run for run in reversed(runs)}  # a folder may be named twice
    return sorted(different.values(), key=lambda run: natural_key(str(run.folder)))


def is_higher_better(name: str) -> bool:
    """Whether the best value of a figure is its largest."""
    return any(word in name for word in HIGHER_IS_BETTER)


def compare_runs(runs: Sequence[Run]) -> list[Comparison]:
    """A comparison for each stage, in the order in which they come first; marks the best runs."""
    by_stage: dict[str, list[Run]] = {}
    for run in runs:
        by_stage.setdefault(run.stage, []).append(run)
    return [_compare(stage, members) for stage, members in by_stage.items()]


def _runs_below(folder: Path) -> list[Run]:
    """The training runs in a folder and its subfolders; there are none within a run."""
    runs = []
    for path, subfolders, files in os.walk(folder):
        run = _read_run(Path(path)) if CONFIG in files else None
        if run is not None:
            subfolders.clear()
            runs.append(run)
    return runs


def _read_run(folder: Path) -> Run | None:
    """What a run has written; None if it did not train.

    Other files may have the names of a run's, and a process that was killed may leave a part of one: any content is
    read, or the run is unreadable, so that it hides no other.
    """
    try:
        config = read_config(folder / CONFIG)
        if not isinstance(config, Mapping) or not isinstance(config.get("model"), Mapping):
            return None
        run = _read_state(folder, config)
        _read_figures(run)
    except UNREADABLE:
        return Run(folder, "unreadable")
    return run if run.command == "fit" else None


def _read_state(folder: Path, config: dict[str, Any]) -> Run:
    """The run without its figures."""
    status = read_status(folder)
    command, state = str(status.get("command", "fit")), str(status["state"])
    return Run(folder, state, status.get("reason"), command, _stage_name(config["model"]), config)


def _read_figures(run: Run) -> None:
    """Add what the run has logged, and what its summary says."""
    for name, (steps, values) in read_curves(run.folder / METRICS).items():
        run.figures[name] = values[-1]
        run.steps = max(run.steps or 0, steps[-1] + 1)
    summary = read_optional(run.folder / SUMMARY)
    if summary and run.state == "unknown":
        run.state = "complete"
    for name, value in summary.get("metrics", {}).items():
        run.figures[name] = float(value)
    if "steps" in summary:
        run.steps = int(summary["steps"])
    if "seconds" in summary:
        run.seconds = float(summary["seconds"])


def _stage_name(model: Mapping[str, Any]) -> str:
    return str(model.get("class_path", "")).rpartition(".")[2]


def _compare(stage: str, runs: list[Run]) -> Comparison:
    settings = differing_settings([run.config for run in runs])
    complete = [run for run in runs if run.state == "complete"]
    for main in MAIN_FIGURES:
        candidates = [
            run for run in complete if math.isfinite(run.figures.get(main.name, math.nan))
        ]
        if len(candidates) > 1:
            verdict = _mark_best(candidates, main)
            return Comparison(stage, runs, settings, main, verdict)
    return Comparison(stage, runs, settings, _main_figure(runs), "")


def _main_figure(runs: Sequence[Run]) -> MainFigure | None:
    """The figure to show first where there is nothing to compare."""
    for main in MAIN_FIGURES:
        if any(main.name in run.figures for run in runs):
            return main
    return None


def _mark_best(runs: Sequence[Run], main: MainFigure) -> str:
    """Mark the best runs by a figure, if its values are comparable; a sentence about it."""
    differences = differing_settings([run.config for run in runs])
    for path in differences:
        for setting in main.settings:
            if path == setting or path.startswith(f"{setting}."):
                return f"None is marked as the best: the runs differ in {path}, so {main.name} is not comparable."
    values = [run.figures[main.name] for run in runs]
    is_higher = is_higher_better(main.name)
    best = max(values) if is_higher else min(values)
    for run in runs:
        run.is_best = run.figures[main.name] == best
    verdict = (
        f"The best of the complete runs has the {'highest' if is_higher else 'lowest'} {main.name}"
    )
    if main.name in OF_TRAINING:
        return f"{verdict}, which is of the rows that were trained on; data.validation adds others."
    return f"{verdict}."
