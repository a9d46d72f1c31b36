"""Ask every model of a suite, grade what it said, and turn that into figures; what is on disk is not done again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lit_align.errors import PluginError
from lit_align.evaluation.evaluated_model import EvaluatedModel
from lit_align.evaluation.suite.base import Item, Row, Task
from lit_align.evaluation.suite_cache import Parts, code_content, content_key, settings_content
from lit_align.functional.ratios import (
    Estimate,
    Resampled,
    estimate,
    estimate_difference,
    resample_ratio,
)
from lit_align.judges.base import JudgeModel
from lit_align.models.samplers import default_sampler
from lit_align.progress import CountedProgress
from lit_align.rewards.base import Reward

ANSWER_CODE = ("lit_align.evaluation.evaluated_model", "torch", "transformers", "peft")
"""What every answer depends on besides its task and the sampler."""


class Asked(NamedTuple):
    """A task with its rows.

    Args:
        task: the task.
        name: of the table's section, the task's class and a number if there are several.
        rows: that are asked.
        part_size: rows in one part.
        answer_key: a hash of what the answers depend on: rows, and settings without judges and rewards.
        grade_key: a hash of what grades depend on besides: all settings.
    """

    task: Task
    name: str
    rows: list[Row]
    part_size: int
    answer_key: str
    grade_key: str

    @property
    def starts(self) -> range:
        """The first row of each part."""
        return range(0, len(self.rows), self.part_size)


class Cell(NamedTuple):
    """A figure of one model.

    Args:
        estimate: its value and interval.
        prompts: that were counted.
        difference: to the first model, over the same prompts; None for the first one.
        higher_is_better: which way is better; None where nobody says.
    """

    estimate: Estimate
    prompts: int
    difference: Estimate | None
    higher_is_better: bool | None = True


def read_tasks(tasks: Sequence[Task], part_size: int) -> list[Asked]:
    """The rows of all tasks, before any model is loaded.

    Raises:
        DataError: naming a row that cannot be read.
        ConfigError: if a task cannot be run here.
    """
    asked = []
    kinds = [type(task).__name__ for task in tasks]
    for number, task in enumerate(tasks):
        task.check()
        rows = task.read()
        kind = kinds[number]
        name = kind if kinds.count(kind) == 1 else f"{kind} {kinds[: number + 1].count(kind)}"
        size = task.part_size or part_size
        answer_key = content_key(settings_content(task, (JudgeModel, Reward)), rows, size)
        grading = code_content(task.grades_depend_on)
        grade_key = content_key(settings_content(task), grading)
        asked.append(Asked(task, name, rows, size, answer_key, grade_key))
    return asked


def collect_answers(models: Sequence[EvaluatedModel], asked: Asked) -> dict[str, list[Any]]:
    """What each model says to each row, by the models' names."""
    answers = {}
    for model in models:
        parts = Parts(_answer_key(model, asked))
        _respond(model, asked, parts)
        model.release()
        answers[model.name] = [each for start in asked.starts for each in parts.get(start) or []]
    return answers


def _answer_key(model: EvaluatedModel, asked: Asked) -> str:
    sampler = settings_content(model.sampler or default_sampler())
    return content_key(asked.answer_key, model.fingerprint(), sampler, code_content(ANSWER_CODE))


def collect_items(
    models: Sequence[EvaluatedModel], tasks: Sequence[Asked]
) -> dict[tuple[str, str], list[Item]]:
    """The items of each task and model, by their names: first all models are asked, then what they said is graded."""
    answer_keys = {}
    for model in models:
        for asked in tasks:
            key = _answer_key(model, asked)
            answer_keys[asked.name, model.name] = key
            _respond(model, asked, Parts(key))
        model.release()
    items = {}
    for asked in tasks:
        for model in models:
            key = answer_keys[asked.name, model.name]
            graded = Parts(content_key(key, asked.grade_key))
            items[asked.name, model.name] = _grade(model, asked, Parts(key), graded)
    return items


def _respond(model: EvaluatedModel, asked: Asked, parts: Parts) -> None:
    missing = [start for start in asked.starts if parts.get(start) is None]
    if not missing:
        return
    with _progress(f"{asked.name}: answers of {model.name}", asked, missing) as progress:
        for start in missing:
            rows = asked.rows[start : start + asked.part_size]
            places = range(start, start + len(rows))
            responses = asked.task.respond(model, rows, places)
            if len(responses) != len(rows):
                raise PluginError(
                    f"{type(asked.task).__name__}.respond gave {len(responses)} responses to {len(rows)} rows; it "
                    "gives one to each"
                )
            parts.put(start, responses)
            progress.add(len(rows))


def _grade(model: EvaluatedModel, asked: Asked, responses: Parts, graded: Parts) -> list[Item]:
    kept = {start: graded.get(start) for start in asked.starts}
    items = {start: [Item(*item) for item in part or []] for start, part in kept.items()}
    missing = [start for start in asked.starts if kept[start] is None]
    if missing:
        with _progress(f"{asked.name}: grades of {model.name}", asked, missing) as progress:
            for start in missing:
                rows = asked.rows[start : start + asked.part_size]
                items[start] = asked.task.grade(rows, responses.get(start) or [])
                if not any(item.unread for item in items[start]):
                    graded.put(
                        start, items[start]
                    )  # an unread verdict is asked for again the next time
                progress.add(len(rows))
    return [item for start in asked.starts for item in items[start]]


def _progress(label: str, asked: Asked, missing: Sequence[int]) -> CountedProgress:
    progress = CountedProgress(label, len(asked.rows))
    progress.done = len(asked.rows) - sum(
        len(asked.rows[start : start + asked.part_size]) for start in missing
    )
    return progress


def figures_of(
    tasks: Sequence[Asked], names: Sequence[str], items: dict[tuple[str, str], list[Item]]
) -> dict[str, dict[str, dict[str, Cell]]]:
    """Every figure: by task, by its name and by model.

    Args:
        tasks: of the suite.
        names: of the models, the first of which the others are compared with.
        items: from `collect_items`.
    """
    report: dict[str, dict[str, dict[str, Cell]]] = {}
    for asked in tasks:
        by_model = {name: items[asked.name, name] for name in names}
        figures: list[str] = []
        for item in by_model[names[0]]:
            figures += [name for name in (*item.sums, *item.resampled) if name not in figures]
        report[asked.name] = {}
        for figure in figures:
            report[asked.name][figure] = _cells(asked, figure, by_model)
    return report


def _cells(asked: Asked, figure: str, by_model: dict[str, list[Item]]) -> dict[str, Cell]:
    first: Resampled | None = None
    cells = {}
    for name, items in by_model.items():
        resampled = _resampled(asked, figure, items)
        difference = None if first is None else estimate_difference(first, resampled)
        direction = _higher_is_better(asked.task, figure, items)
        cells[name] = Cell(estimate(resampled), resampled.num_prompts, difference, direction)
        first = resampled if first is None else first
    return cells


def _resampled(asked: Asked, figure: str, items: Sequence[Item]) -> Resampled:
    for item in items:
        if figure in item.resampled:
            count, values = item.resampled[figure]
            return Resampled(np.array(values, dtype=np.float64), count, is_share=False)
    sums = [item.sums.get(figure, (0.0, 0.0)) for item in items]
    prompts = np.unique([item.prompt for item in items], return_inverse=True)[1]
    return resample_ratio([(a, b) for a, b in sums], prompts, asked.name)


def _higher_is_better(task: Task, figure: str, items: Sequence[Item]) -> bool | None:
    for item in items:
        if figure in item.higher_is_better:
            return item.higher_is_better[figure]
    return figure not in task.lower_is_better
