"""One HTML page of a run, without files of its own: figures, plots, answers, data, settings, links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_align.functional.statistics import wilson_interval
from lit_align.models.atomic_folder import replace_file
from lit_align.run_report.curves import draw_panels
from lit_align.run_report.notices import notices
from lit_align.run_report.number_text import format_duration, format_figure
from lit_align.run_report.panels import VALIDATION
from lit_align.run_report.record import RunRecord, read_run
from lit_align.run_report.sampled import SAMPLE_ANSWERS, SAMPLE_SCORES, read_sampled

FILE_NAME = "report.html"
CURVES = "curves.png"
TEMPLATE = "page.html"
ACCURACIES = ("rewards/accuracies", "accuracy")
HIDDEN_METRICS = {"epoch", "num_tokens", "skipped_steps"}
FILES = (
    ("adapter", "the adapter, in PEFT's layout"),
    ("summary.json", "the last figures"),
    ("metrics.csv", "all logged figures"),
    ("ledger.json", "counts of the rows"),
    ("ledger_rows.jsonl", "every row that was not kept as it is"),
    ("samples.jsonl", "sampled responses"),
    (SAMPLE_ANSWERS, "answers to the same prompts while it trained"),
    (SAMPLE_SCORES, "scores of the same responses while it trained"),
    ("config.yaml", "all settings"),
    (CURVES, "the curves as a picture"),
    ("checkpoints", "from which the run can be resumed"),
)
SETTINGS = {
    "base": ("model", "base", "path"),
    "quantization": ("model", "base", "quantization"),
    "LoRA rank": ("model", "lora", "r"),
    "LoRA alpha": ("model", "lora", "alpha"),
    "optimizer": ("model", "optimizer", "class_path"),
    "learning rate": ("model", "optimizer", "lr"),
    "rows per step": ("data", "batch_size"),
    "tokens per micro-batch": ("data", "token_budget"),
    "max_length": ("data", "max_length"),
    "training data": ("data", "train"),
    "validation data": ("data", "validation"),
    "seed": ("model", "seed"),
}


class Figure(NamedTuple):
    """A metric at the begin and the end of training, on training and validation rows.

    Args:
        name: as logged.
        first: its first value.
        last: its last value.
        validation: its last value on the validation rows.
        interval: 95 % interval of the latter, where there is one.
    """

    name: str
    first: float | None
    last: float | None
    validation: float | None
    interval: Sequence[float] | None


def write_report(folder: Path, file: Path | None = None, curves: bool = True) -> Path:
    """Write the page of a run.

    Args:
        folder: of the run.
        file: where to write; ``report.html`` in the folder if left out.
        curves: whether to draw them.

    Raises:
        ConfigError: if the folder is not that of a run.
    """
    file = file or folder / FILE_NAME
    replace_file(file, render(read_run(folder), curves))
    return file


def render(record: RunRecord, curves: bool = True) -> str:
    """The page as text; everything that comes from a run is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lit_align.run_report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figure"] = format_figure
    return environment.get_template(TEMPLATE).render(
        record=record,
        title=_title(record),
        facts=_facts(record),
        notices=notices(record),
        figures=figures(record),
        plots=draw_panels(record.curves) if curves else [],
        answers=record.summary.get("answers", []),
        held_out=_held_out(record.summary),
        sampled=read_sampled(record.folder),
        samples=record.samples,
        settings=_settings(record),
        config=yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True),
        versions=record.provenance.get("versions", {}),
        files=[(name, text) for name, text in FILES if (record.folder / name).exists()],
    )


def figures(record: RunRecord) -> list[Figure]:
    """The metrics of a run, sorted by name."""
    names = {name.removeprefix(VALIDATION) for name in record.curves} - HIDDEN_METRICS
    rows = []
    for name in sorted(names):
        _, values = record.curves.get(name, ((), ()))
        validation = record.last(VALIDATION + name)
        first, last = (values[0], values[-1]) if values else (None, None)
        rows.append(Figure(name, first, last, validation, _interval(record, name, validation)))
    return rows


def _interval(record: RunRecord, name: str, validation: float | None) -> Sequence[float] | None:
    """The interval of an accuracy: as many comparisons as there are rows, since those of one row go together."""
    fates = record.ledgers.get("validation", {}).get("fates", {})
    count = fates.get("kept", 0) + fates.get("truncated", 0)
    if name not in ACCURACIES or validation is None or not count:
        return None
    return wilson_interval(validation, count)


def _title(record: RunRecord) -> str:
    stage = str(record.config.get("model", {}).get("class_path", "Run")).rpartition(".")[2]
    objective = record.summary.get("objective")
    return f"{stage} · {objective}" if objective else stage


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    summary = record.summary
    facts = [("run", str(record.folder))]
    if "base" in summary:
        facts.append(("base", summary["base"]))
    if "steps" in summary:
        facts.append(("optimizer steps", f"{summary['steps']:,}"))
    if "seconds" in summary:
        facts.append(("time", format_duration(summary["seconds"])))
    return facts


def _held_out(summary: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Metrics of held-out questions before and after training."""
    before, after = summary.get("before", {}), summary.get("after", {})
    return [(name, before.get(name), after.get(name)) for name in after]


def _settings(record: RunRecord) -> Iterator[tuple[str, Any]]:
    for label, path in SETTINGS.items():
        value = record.setting(*path)
        if value is not None:
            yield label, str(value).rpartition(".")[2] if label == "optimizer" else value
