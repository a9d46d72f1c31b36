"""What a run has written into its folder."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from lit_align.errors import ConfigError
from lit_align.jsonl import read_json, read_jsonl_so_far
from lit_align.run_report.number_text import natural_key

SUMMARY, METRICS, LEDGER, CONFIG = "summary.json", "metrics.csv", "ledger.json", "config.yaml"
PROVENANCE = "adapter/provenance.json"
SAMPLES = "samples.jsonl"
MAX_SAMPLES = 8

UNREADABLE = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError),
    *(csv.Error, yaml.YAMLError),
)
"""What reading a file may raise that is broken, or is of another program."""


@dataclass
class RunRecord:
    """The files of a run; what it has not written is empty.

    Args:
        folder: of the run.
        summary: objective, base, steps and last metrics; written at the end, so that it is empty before.
        curves: for each metric, the steps at which it was logged and its values.
        ledgers: what became of the rows of each split.
        config: all settings.
        provenance: of the adapter.
        samples: the newest sampled responses with their rewards.
    """

    folder: Path
    summary: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    ledgers: dict[str, dict[str, Any]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether the run has come to its end."""
        return bool(self.summary)

    def last(self, name: str) -> float | None:
        """The last logged value of a metric; None if there is none."""
        _, values = self.curves.get(name, ([], []))
        return values[-1] if values else None

    def setting(self, *names: str) -> Any:
        """A setting by its path, through ``init_args``; None if there is none."""
        value: Any = self.config
        for name in names:
            if not isinstance(value, Mapping):
                return None
            if name not in value and isinstance(value.get("init_args"), Mapping):
                value = value["init_args"]
            value = value.get(name)
        return value


def read_run(folder: Path) -> RunRecord:
    """Read the files of a run.

    Raises:
        ConfigError: if the folder holds none of them, or one that cannot be read.
    """
    if not (folder / CONFIG).is_file() and not (folder / SUMMARY).is_file():
        names = [path.name for path in folder.glob("*") if (path / CONFIG).is_file()]
        numbered = sorted(names, key=natural_key)
        hint = f", such as {folder / numbered[-1]}" if numbered else ""
        raise ConfigError(
            f"{folder} is not the folder of a run: it has no {CONFIG}; give a numbered folder{hint}"
        )
    try:
        return _read_files(folder)
    except UNREADABLE as error:
        raise ConfigError(
            f"a file of the run in {folder} cannot be read ({type(error).__name__}: {error}); remove or correct it"
        ) from error


def _read_files(folder: Path) -> RunRecord:
    return RunRecord(
        folder,
        summary=read_optional(folder / SUMMARY),
        curves=read_curves(folder / METRICS),
        ledgers=read_optional(folder / LEDGER),
        config=read_config(folder / CONFIG),
        provenance=read_optional(folder / PROVENANCE),
        samples=read_jsonl_so_far(folder / SAMPLES, last=MAX_SAMPLES),
    )


def read_optional(path: Path) -> dict[str, Any]:
    """The content of a JSON file; nothing if there is none."""
    return dict(read_json(path)) if path.is_file() else {}


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a run; none if it has not written them."""
    if not path.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast
    return yaml.load(path.read_text("utf-8"), loader) or {}


def read_metrics(path: Path, limit: int | None = None) -> list[dict[str, str]]:
    """The first rows of a metrics file, without the cells that are empty and a last line that is cut."""
    rows = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = (line for line in file if line.endswith("\n"))  # the last one may be incomplete
        for row in islice(csv.DictReader(lines), limit):
            row.pop(None, None)  # cells for which there is no heading
            rows.append({name: value for name, value in row.items() if value})
    return rows


def read_curves(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """For each metric, the steps at which it was logged and its values; none without a file.

    Cells that are no numbers are left out, and lines whose step is none: a disk that was full may leave such.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for row in read_metrics(path) if path.is_file() else ():
        step = _number(row.pop("step", "0"))
        if step is None or not math.isfinite(step):
            continue
        for name, cell in row.items():
            value = _number(cell)
            if value is not None:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(step))
                values.append(value)
    return curves


def _number(text: str) -> float | None:
    """The number that a text is, if it is one."""
    try:
        return float(text)
    except ValueError:
        return None
