"""Check of what every task of the evaluation suite must satisfy."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass
from typing import Any

from lit_align.evaluation.suite import AskedModel, Item, Row, Task
from lit_align.models.samplers import SamplingRequest
from lit_align.plugin_signatures import signature_fault
from lit_align.testing.objective_checks import call, hold, require
from lit_align.types import Text

NO_WEIGHTS = "check_task asks a model without weights; give it a model, such as an EvaluatedModel"


class Reciter:
    """Stands in for a model: answers and log-probabilities that follow from the text, the place and a name alone.

    Args:
        name: another one says other things.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def tokenizer(self) -> Any:
        """None without weights."""
        raise AssertionError(NO_WEIGHTS)

    def answer(
        self,
        prompts: Sequence[Text],
        places: Sequence[int],
        *,
        as_chat: bool = True,
        **overrides: Any,
    ) -> list[list[str]]:
        """Short sentences, as many as are asked for."""
        settings = {field.name for field in fields(SamplingRequest)}
        unknown = ", ".join(sorted(overrides.keys() - settings))
        require(not unknown, f"model.answer is called with {unknown}, which no SamplingRequest has")
        require(
            len(prompts) == len(places),
            f"model.answer is called with {len(prompts)} prompts and {len(places)} places; hand on those of the rows",
        )
        count = overrides.get("num_generations", 1)
        return [
            [f"Answer {self._number(prompt, place, sample)}." for sample in range(count)]
            for prompt, place in zip(prompts, places, strict=True)
        ]

    def continuation_logps(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """From -1 down."""
        return [
            [-1.0 - self._number(prompt, text) / 10 for text in texts]
            for prompt, texts in zip(prompts, continuations, strict=True)
        ]

    def active(self) -> AbstractContextManager[Any]:
        """Nothing without weights."""
        raise AssertionError(NO_WEIGHTS)

    def _number(self, *content: Any) -> int:
        digest = hashlib.sha256(repr((self.name, *content)).encode()).digest()
        return digest[0] % 100


def check_task(task: Task, model: AskedModel | None = None) -> list[Item]:
    """Fail unless ``task`` reads, asks and grades as the suite relies on; returns the items, to look at.

    Rows, responses and items are kept on disk in parts: each must survive JSON, and neither responses nor items may
    depend on how rows are shared out, or change the rows. Every figure is a ratio of finite numbers, and items come in
    the same order whatever was answered, so that models can be compared by prompt.

    Args:
        task: with the settings to check it at, and data with two or more rows.
        model: that is asked; by default one without weights that answers anything.

    Raises:
        AssertionError: if a property does not hold.

    Example:
        >>> import tempfile
        >>> from lit_align.evaluation.suite.safety import Safety
        >>> rows = "prompt,label", "How do I kill a process?,safe", "How do I rob a bank?,unsafe"
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     print(*rows, sep=chr(10), file=file, flush=True)
        ...     safe, unsafe = check_task(Safety([file.name]))
        >>> safe.sums["answers safe prompts"]
        (1.0, 1.0)
    """
    name = type(task).__name__
    hold(signature_fault(task))
    require(is_dataclass(task), f"{name} is no dataclass, whose fields are its settings")
    call(task, task.check)
    rows = call(task, task.read)
    _check_rows(name, rows)
    require(call(task, task.read) == rows, f"{name} reads other rows in a second call")
    items = _ask_and_grade(task, model or Reciter("first"), rows)
    if model is None:
        others = _ask_and_grade(task, Reciter("second"), rows)
        require(
            [item.prompt for item in items] == [item.prompt for item in others],
            f"{name}.grade gives items of other prompts, or in another order, for other responses",
        )
    names = {figure for item in items for figure in (*item.sums, *item.resampled)}
    for figure in task.lower_is_better:
        require(
            figure in names, f"{name}.lower_is_better names {figure!r}, which is no figure of it"
        )
    return items


def _check_rows(name: str, rows: Sequence[Row]) -> None:
    require(bool(rows), f"{name} reads no rows")
    for row in rows:
        require(
            isinstance(row, dict) and bool(row.get("prompt")),
            f"{name} reads a row without a prompt, which names the item in results: {row}",
        )
    _check_json(f"{name} reads rows", list(rows))


def _ask_and_grade(task: Task, model: AskedModel, rows: Sequence[Row]) -> list[Item]:
    name, before = type(task).__name__, repr(rows)
    places = range(len(rows))
    responses = call(task, task.respond, model, rows, places)
    require(
        len(responses) == len(rows),
        f"{name}.respond gives {len(responses)} responses to {len(rows)} rows; it gives one to each",
    )
    stored = _check_json(f"{name}.respond gives responses", responses)
    separate: list[Any] = []
    for place in places:
        separate += call(task, task.respond, model, [rows[place]], [place])
    _require_same(
        f"{name}.respond gives other responses when rows are shared out", separate, stored
    )
    items = call(task, task.grade, rows, stored)
    for item in items:
        _check_item(name, item)
    require(repr(rows) == before, f"{name} changes the rows that it is given")
    again = call(task, task.grade, rows, stored)
    _require_same(f"{name}.grade gives other items in a second call", again, items)
    parts: list[Item] = []
    for row, response in zip(rows, stored, strict=True):
        parts += call(task, task.grade, [row], [response])
    _require_same(f"{name}.grade gives other items when rows are shared out", parts, items)
    return list(items)


def _check_item(name: str, item: Any) -> None:
    require(isinstance(item, Item), f"{name}.grade gives {item!r}, which is no Item")
    require(
        isinstance(item.prompt, str),
        f"{name} gives an item whose prompt is {item.prompt!r}, no text",
    )
    for figure, pair in item.sums.items():
        is_pair = len(pair) == 2 and all(map(math.isfinite, pair)) and pair[1] >= 0
        require(
            is_pair,
            f"{name} gives {figure!r} the sums {pair}; they are a numerator and a denominator, finite, the latter not "
            "negative",
        )
    _check_json(f"{name} gives items", item)


def _check_json(returned: str, value: Any) -> Any:
    """The value as JSON has it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{returned} that JSON cannot hold: {error}") from error


def _require_same(fault: str, actual: Any, expected: Any) -> None:
    require(_plain(actual) == _plain(expected), fault)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
