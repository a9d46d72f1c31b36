"""Capability that must not suffer, by EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least
from lit_align.errors import ConfigError
from lit_align.evaluation.suite.base import AskedModel, Item, Row, Task


@dataclass(frozen=True)
class Harness(Task):
    """Tasks of lm-evaluation-harness on the base in memory with the run's adapter active, such as MMLU or HellaSwag.

    What alignment costs in capability, the alignment tax, is the difference of such a row to the base's column. Every
    metric of a task that is a number for each document becomes a figure; those of a group's tasks are pooled over
    documents.

    Args:
        tasks: names of tasks or groups of the harness.
        include_path: folder with task files of your own, which come first.
        limit: documents of each task; null takes all.
        num_fewshot: examples that come first; null as the task says.
        apply_chat_template: ask in a user's turn.
        batch_size: requests that are computed at once.

    Raises:
        ConfigError: if the package ``lm_eval`` is not installed (extra ``eval``), or has no such task.
    """

    tasks: list[str]
    include_path: str | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    apply_chat_template: bool = False
    batch_size: int = 8

    part_size = 1
    depends_on = ("lm_eval",)

    def __post_init__(self) -> None:
        check_at_least("batch_size", self.batch_size, 1)
        if self.limit is not None:
            check_at_least("limit", self.limit, 1)
        if self.include_path is not None and not Path(self.include_path).expanduser().is_dir():
            raise ConfigError(f"include_path is {self.include_path!r}, which is no folder")

    def check(self) -> None:
        if find_spec("lm_eval") is None:
            raise ConfigError(
                "Harness needs lm_eval, which is not installed; run: pip install 'lit-align[eval]'"
            )
        known = set(self._manager().all_tasks)
        for name in self.tasks:
            if name not in known:
                raise ConfigError(
                    f"lm_eval has no task {name!r}; `lm_eval ls tasks` lists its tasks, and include_path adds yours"
                )

    def read(self) -> list[Row]:
        return [{"prompt": name} for name in self.tasks]

    def respond(self, model: AskedModel, rows: Sequence[Row], places: Sequence[int]) -> list[Any]:
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        responses = []
        with model.active() as active:
            wrapped = HFLM(pretrained=active, tokenizer=model.tokenizer, batch_size=self.batch_size)
            for row in rows:
                results = simple_evaluate(
                    wrapped,
                    tasks=[row["prompt"]],
                    num_fewshot=self.num_fewshot,
                    limit=self.limit,
                    apply_chat_template=self.apply_chat_template,
                    task_manager=self._manager(),
                    bootstrap_iters=0,  # intervals are made here
                    log_samples=True,
                )
                responses.append(documents_of(results["samples"]))
        return responses

    def grade(self, rows: Sequence[Row], responses: Sequence[Any]) -> list[Item]:
        items = []
        for row, documents in zip(rows, responses, strict=True):
            for document in documents:
                sums = {
                    f"{row['prompt']} {metric}": tuple(values)
                    for metric, values in document["sums"].items()
                }
                items.append(Item(document["prompt"], sums))
        return items

    def _manager(self) -> Any:
        from lm_eval.tasks import TaskManager

        include_path = self.include_path and str(Path(self.include_path).expanduser())
        return TaskManager(include_path=include_path)


def documents_of(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Numerators and denominators of each document's metrics, in the order of tasks and documents.

    Args:
        samples: as the harness logs them, by task: a record for each document and filter.
    """
    documents = []
    for task, records in samples.items():
        for record in records:
            sums = {}
            for metric in record["metrics"]:
                values = _as_sum(record[metric])
                if values is None:
                    warnings.warn(
                        f"{metric} of {task} is no number for each document, and is left out",
                        stacklevel=2,
                    )
                    continue
                is_usual = record.get("filter", "none") == "none"
                sums[metric if is_usual else f"{metric} ({record['filter']})"] = values
            name = json.dumps([task, record["doc"]], sort_keys=True, default=str)
            documents.append({"prompt": name, "sums": sums})
    return documents


def _as_sum(value: Any) -> tuple[float, float] | None:
    if isinstance(value, list) and all(isinstance(each, bool) for each in value):
        return float(sum(value)), float(len(value))
    if hasattr(value, "item"):
        value = value.item()
    return (float(value), 1.0) if isinstance(value, bool | int | float) else None


@hookimpl
def register_tasks(register: Register) -> None:
    register(Harness)
