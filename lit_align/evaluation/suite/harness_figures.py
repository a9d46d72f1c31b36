"""Figures of lm-evaluation-harness as the harness itself aggregates them, with resamples for intervals."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lit_align.functional.statistics import RESAMPLES, SEED

Aggregation = Callable[[Sequence[Any]], float]
Resamples = list[float | None]

OF_TEXTS = ("bleu", "chrf", "chrf++", "ter")
"""Metrics of which the harness, too, takes few resamples, since each reads all texts again."""
RESAMPLES_OF_TEXTS = 100


class Figure(NamedTuple):
    """A metric of a task, with one of its filters.

    Args:
        metric: its name in the harness.
        filter: that answers went through; ``none`` for most.
    """

    metric: str
    filter: str

    @property
    def key(self) -> str:
        """Its name in results."""
        return f"{self.metric},{self.filter}"

    @property
    def label(self) -> str:
        """Its name in the table."""
        return self.metric if self.filter == "none" else f"{self.metric} ({self.filter})"


class Evaluated:
    """What the harness found for the name of a task, of a group or of a tag.

    A group that aggregates is shown as a whole, of others each task.

    Args:
        name: that was asked for.
        results: of ``simple_evaluate``, with samples.
        loaded: ``tasks`` and ``groups`` by their names, as the harness loaded them.
    """

    def __init__(
        self, name: str, results: Mapping[str, Any], loaded: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.name, self.results, self.loaded = name, results["results"], loaded
        self.samples: Mapping[str, Sequence[Mapping[str, Any]]] = results["samples"]
        self.directions: Mapping[str, Mapping[str, bool]] = results["higher_is_better"]
        is_whole = any("," in key for key in self.results.get(name, {}))
        self.shown = (
            {name: list(self.samples)} if is_whole else {task: [task] for task in self.samples}
        )

    def content(self) -> dict[str, Any]:
        """What figures are made of, JSON-able.

        ``documents`` have the sums of what is a mean over documents, by their figures, and the values of what is not;
        ``resampled`` has of the other figures the number of documents, and the value of all and of each resample of
        them; ``higher_is_better`` says which way is better, with None where the harness does not say.
        """
        documents = {
            task: [
                {"prompt": _document_name(task, record), "sums": {}, "details": {}}
                for record in self._first(task)
            ]
            for task in self.samples
        }
        resampled, higher_is_better = {}, {}
        for shown, tasks in self.shown.items():
            for figure in self._figures(tasks):
                label = f"{shown} {figure.label}"
                higher_is_better[label] = self._direction(figure, tasks)
                kind = "sums" if self._is_mean(shown, tasks, figure) else "details"
                for task in tasks:
                    self._add(documents[task], task, figure, kind, label)
                if kind == "details" and figure.key in self.results[shown]:
                    count = sum(len(self._values(task, figure)) for task in tasks)
                    resampled[label] = (count, self._resampled(shown, tasks, figure))
        return {
            "documents": [document for of_task in documents.values() for document in of_task],
            "resampled": resampled,
            "higher_is_better": higher_is_better,
        }

    def _first(self, task: str) -> list[Mapping[str, Any]]:
        """One record of each document: there is another for each filter."""
        records = self.samples[task]
        return [record for record in records if record["filter"] == records[0]["filter"]]

    def _figures(self, tasks: Sequence[str]) -> list[Figure]:
        figures: dict[Figure, None] = {}
        for task in tasks:
            for record in self.samples[task]:
                figures.update(
                    (Figure(metric, record["filter"]), None) for metric in record["metrics"]
                )
        return list(figures)

    def _records(self, task: str, figure: Figure) -> list[Mapping[str, Any]]:
        records = [record for record in self.samples[task] if record["filter"] == figure.filter]
        return [record for record in records if figure.metric in record["metrics"]]

    def _values(self, task: str, figure: Figure) -> list[Any]:
        return [record[figure.metric] for record in self._records(task, figure)]

    def _aggregation(self, task: str, metric: str) -> Aggregation:
        from lm_eval.api.metrics import mean

        functions: Mapping[str, Aggregation] = self.loaded["tasks"][task].aggregation()
        return functions.get(metric, mean)

    def _direction(self, figure: Figure, tasks: Sequence[str]) -> bool | None:
        directions = {self.directions.get(task, {}).get(figure.metric) for task in tasks}
        return directions.pop() if len(directions) == 1 else None

    def _is_mean(self, shown: str, tasks: Sequence[str], figure: Figure) -> bool:
        """Whether the harness' figure is the mean over all documents."""
        from lm_eval.api.metrics import mean

        if any(self._aggregation(task, figure.metric) is not mean for task in tasks):
            return False
        values = [value for task in tasks for value in self._values(task, figure)]
        if not all(isinstance(value, bool | int | float | np.number) for value in values):
            return False
        reported = self.results[shown].get(figure.key)
        return reported is not None and math.isclose(mean(values), reported, rel_tol=1e-9)

    def _add(
        self, documents: Sequence[dict[str, Any]], task: str, figure: Figure, kind: str, label: str
    ) -> None:
        numbers = [record["doc_id"] for record in self._first(task)]
        by_number = dict(zip(numbers, documents, strict=True))
        for record in self._records(task, figure):
            value = record[figure.metric]
            entry = (float(value), 1.0) if kind == "sums" else _jsonable(value)
            by_number[record["doc_id"]][kind][label] = entry

    def _resampled(self, shown: str, tasks: Sequence[str], figure: Figure) -> Resamples:
        by_task = {}
        for task in tasks:
            aggregation = self._aggregation(task, figure.metric)
            values = self._values(task, figure)
            if values:
                by_task[task] = resample(aggregation, values, f"{task} {figure.key}")
        group = self.loaded["groups"].get(shown)
        if group is None:
            return by_task[shown]
        return [
            _finite(group.aggregate(metrics).get(figure.key))
            for metrics in self._by_resample(by_task, figure)
        ]

    def _by_resample(
        self, by_task: Mapping[str, Resamples], figure: Figure
    ) -> list[dict[str, dict[str, Any]]]:
        """The metrics of all tasks in each resample, as groups aggregate them.

        There are as many as of the task with the fewest: of a task without a known spread there is only the value of
        all documents, so that the group has no interval either.
        """
        counts = {task: self.results[task]["sample_len"] for task in by_task}
        return [
            {
                task: {figure.key: math.nan if value is None else value, "sample_len": counts[task]}
                for task, value in zip(by_task, values, strict=True)
            }
            for values in zip(*by_task.values(), strict=False)
        ]


def resample(aggregation: Aggregation, values: Sequence[Any], seed: str) -> Resamples:
    """The figure of all documents, then of each bootstrap resample of them; None where it is no number.

    A metric that counts questions of several documents is spread by the harness' own standard error instead: resampled
    documents would make other questions.

    Args:
        aggregation: of the harness.
        values: of the documents.
        seed: a name that the random numbers depend on; the same for all models, so that resamples are, too.

    Example:
        >>> from lm_eval.api.metrics import perplexity
        >>> resampled = resample(perplexity, [-1.0, -1.0], "example")
        >>> round(resampled[0], 3), len(resampled)
        (2.718, 1001)
    """
    from lm_eval.api.metrics import acc_all, acc_all_stderr

    value = _finite(aggregation(values))
    generator = np.random.default_rng([SEED, *seed.encode()])
    if aggregation is acc_all and value is not None:
        of_values = np.random.default_rng([SEED, *repr(values).encode()])
        error = _of_resample(acc_all_stderr, values)
        if error is None:
            return [value]
        return [value, *(value + error * of_values.standard_normal(RESAMPLES)).tolist()]
    of_texts = getattr(aggregation, "__name__", "").replace("chrfpp", "chrf++") in OF_TEXTS
    resampled = [value]
    for _ in range(RESAMPLES_OF_TEXTS if of_texts else RESAMPLES):
        sample = generator.integers(len(values), size=len(values))
        resampled.append(_of_resample(aggregation, [values[index] for index in sample]))
    return resampled


def _of_resample(aggregation: Aggregation, values: Sequence[Any]) -> float | None:
    """None where a resample lacks what the metric needs, such as one of the classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _finite(aggregation(values))
        except (ValueError, ArithmeticError, IndexError):
            return None


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _document_name(task: str, record: Mapping[str, Any]) -> str:
    return json.dumps([task, record["doc"]], sort_keys=True, default=str)


def _jsonable(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
