"""``lit-align evaluate suite``: truthfulness, abstention, toxicity, safety and capability of runs in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_align.cli.command import Settings, run_setting
from lit_align.errors import ConfigError
from lit_align.evaluation.evaluated_model import EvaluatedModel, evaluated_models
from lit_align.evaluation.suite import Item, Task
from lit_align.evaluation.suite_page import lines_of, suite_json, suite_page, suite_table
from lit_align.evaluation.suite_run import collect_items, figures_of, read_tasks
from lit_align.jsonl import write_json, write_jsonl
from lit_align.models.atomic_folder import replace_file
from lit_align.models.samplers import Sampler

SETTINGS: Settings = {
    "runs": {
        "type": str,
        "nargs": "+",
        "required": True,
        "help": "Runs, each a column: RUN or NAME=RUN; base is the model under the first run that starts from it.",
    },
    "tasks": {
        "type": list[Task],
        "required": True,
        "help": "The tasks, by their names, each with its settings.",
    },
    "sampler": {
        "type": Sampler | None,
        "default": None,
        "help": "What samples the answers, by its name; null is InProcess, whatever sampled in training.",
    },
    "save_every": {
        "type": int,
        "default": 16,
        "help": "Prompts that are asked at once, and then saved: a suite that was killed goes on there.",
    },
    **run_setting("runs/evaluate"),
}


def refuse(settings: Any) -> None:
    """Require tasks and a step that makes sense, and look whether the runs are there.

    Raises:
        ConfigError: naming the setting.
    """
    if settings.save_every < 1:
        raise ConfigError(f"save_every is {settings.save_every}; it is at least 1, and 16 is usual")
    if not settings.tasks:
        raise ConfigError("tasks is empty; `lit-align plugins tasks` lists them")
    evaluated_models(settings.runs)


def run(settings: Any, folder: Path) -> dict[str, Any]:
    """Ask, grade, print the table, and write it as JSON and HTML; returns what the JSON has."""
    from rich.console import Console

    tasks = read_tasks(settings.tasks, settings.save_every)
    models = evaluated_models(settings.runs, settings.sampler)
    items = collect_items(models, tasks)
    names = [model.name for model in models]
    report = figures_of(tasks, names, items)
    notes = _notes(models, items)
    lines = lines_of(report, tasks)
    figures: dict[str, Any] = {
        "runs": {model.name: model.run for model in models},
        "tasks": {question_set.name: repr(question_set.task) for question_set in tasks},
        "notes": notes,
        "figures": suite_json(report),
    }
    write_json(folder / "suite.json", figures)
    write_jsonl(folder / "items.jsonl", _item_rows(items))
    replace_file(
        folder / "suite.html", suite_page(lines, names, list(figures["runs"].values()), notes)
    )
    console = Console()
    console.print(suite_table(lines, names))
    for note in notes:
        console.print(note, highlight=False, markup=False)
    print(f"The run is in {folder}: suite.html, suite.json, items.jsonl.")
    return figures


def _item_rows(items: dict[tuple[str, str], list[Item]]) -> list[dict[str, Any]]:
    rows = []
    for (task, name), task_items in items.items():
        for item in task_items:
            fields = item._asdict()
            del fields["resampled"], fields["higher_is_better"]
            rows.append({"task": task, "run": name, **fields})
    return rows


def _notes(models: Sequence[EvaluatedModel], items: dict[tuple[str, str], list[Item]]) -> list[str]:
    """What a reader should know of the figures."""
    notes = []
    bases = {model.provenance.get("base_content") for model in models}
    if len(bases) > 1:
        notes.append(
            "The runs have different bases, so differences between columns are not those of training alone."
        )
    for (task, name), task_items in items.items():
        unread = sum(item.unread for item in task_items)
        if unread:
            notes.append(
                f"{task} of {name}: {unread:,} verdicts of the judge could not be read, and no figure counts them."
            )
    return notes
