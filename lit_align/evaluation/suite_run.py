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
    question_set = []
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
        question_set.append(Asked(task, name, rows, size, answer_key, grade_key))
    return question_set


def collect_answers(models: Sequence[EvaluatedModel], question_set: Asked) -> dict[str, list[Any]]:
    """What each model says to each row, by the models' names."""
    answers = {}
    for model in models:
        parts = Parts(_answer_key(model, question_set))
        _respond(model, question_set, parts)
        model.release()
        answers[model.name] = [
            each for start in question_set.starts for each in parts.get(start) or []
        ]
    return answers


def _answer_key(model: EvaluatedModel, question_set: Asked) -> str:
    sampler = settings_content(model.sampler or default_sampler())
    return content_key(
        question_set.answer_key, model.fingerprint(), sampler, code_content(ANSWER_CODE)
    )


def collect_items(
    models: Sequence[EvaluatedModel], tasks: Sequence[Asked]
) -> dict[tuple[str, str], list[Item]]:
    """The items of each task and model, by their names: first all models are asked, then what they said is graded."""
    answer_keys = {}
    for model in models:
        for question_set in tasks:
            key = _answer_key(model, question_set)
            answer_keys[question_set.name, model.name] = key
            _respond(model, question_set, Parts(key))
        model.release()
    items = {}
    for question_set in tasks:
        for model in models:
            key = answer_keys[question_set.name, model.name]
            graded = Parts(content_key(key, question_set.grade_key))
            items[question_set.name, model.name] = _grade(model, question_set, Parts(key), graded)
    return items


def _respond(model: EvaluatedModel, question_set: Asked, parts: Parts) -> None:
    missing = [start for start in question_set.starts if parts.get(start) is None]
    if not missing:
        return
    with _progress(
        f"{question_set.name}: answers of {model.name}", question_set, missing
    ) as progress:
        for start in missing:
            rows = question_set.rows[start : start + question_set.part_size]
            places = range(start, start + len(rows))
            responses = question_set.task.respond(model, rows, places)
            if len(responses) != len(rows):
                raise PluginError(
                    f"{type(question_set.task).__name__}.respond gave {len(responses)} responses to {len(rows)} rows; "
                    "it gives one to each"
                )
            parts.put(start, responses)
            progress.add(len(rows))


def _grade(
    model: EvaluatedModel, question_set: Asked, responses: Parts, graded: Parts
) -> list[Item]:
    kept = {start: graded.get(start) for start in question_set.starts}
    items = {start: [Item(*item) for item in part or []] for start, part in kept.items()}
    missing = [start for start in question_set.starts if kept[start] is None]
    if missing:
        with _progress(
            f"{question_set.name}: grades of {model.name}", question_set, missing
        ) as progress:
            for start in missing:
                rows = question_set.rows[start : start + question_set.part_size]
                items[start] = question_set.task.grade(rows, responses.get(start) or [])
                if not any(item.unread for item in items[start]):
                    graded.put(
                        start, items[start]
                    )  # an unread verdict is asked for again the next time
                progress.add(len(rows))
    return [item for start in question_set.starts for item in items[start]]


def _progress(label: str, question_set: Asked, missing: Sequence[int]) -> CountedProgress:
    progress = CountedProgress(label, len(question_set.rows))
    progress.done = len(question_set.rows) - sum(
        len(question_set.rows[start : start + question_set.part_size]) for start in missing
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
    for question_set in tasks:
        by_model = {name: items[question_set.name, name] for name in names}
        figures: list[str] = []
        for item in by_model[names[0]]:
            figures += [name for name in (*item.sums, *item.resampled) if name not in figures]
        report[question_set.name] = {}
        for figure in figures:
            report[question_set.name][figure] = _cells(question_set, figure, by_model)
    return report


def _cells(question_set: Asked, figure: str, by_model: dict[str, list[Item]]) -> dict[str, Cell]:
    first: Resampled | None = None
    cells = {}
    for name, items in by_model.items():
        resampled = _resampled(question_set, figure, items)
        difference = None if first is None else estimate_difference(first, resampled)
        direction = _higher_is_better(question_set.task, figure, items)
        cells[name] = Cell(estimate(resampled), resampled.num_prompts, difference, direction)
        first = resampled if first is None else first
    return cells


def _resampled(question_set: Asked, figure: str, items: Sequence[Item]) -> Resampled:
    for item in items:
        if figure in item.resampled:
            count, values = item.resampled[figure]
            return Resampled(np.array(values, dtype=np.float64), count, is_share=False)
    sums = [item.sums.get(figure, (0.0, 0.0)) for item in items]
    prompts = np.unique([item.prompt for item in items], return_inverse=True)[1]
    return resample_ratio([(a, b) for a, b in sums], prompts, question_set.name)


def _higher_is_better(task: Task, figure: str, items: Sequence[Item]) -> bool | None:
    for item in items:
        if figure in item.higher_is_better:
            return item.higher_is_better[figure]
    return figure not in task.lower_is_better
