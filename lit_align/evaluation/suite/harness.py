"""Capability that must not suffer, by EleutherAI's lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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

    What alignment costs in capability, the alignment tax, is the difference of such a row to the base's column. Each
    metric is aggregated as the harness does it, be it a mean over documents, a perplexity or the F1 of a corpus, and
    the arrow is that of its ``higher_is_better``. A group that aggregates is one row, of others each task is.

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
    depends_on = ("lm_eval", "lit_align.evaluation.suite.harness_figures")

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
        known = set(self._manager.all_tasks)
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

        from lit_align.evaluation.suite.harness_figures import Evaluated

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
                    task_manager=self._manager,
                    bootstrap_iters=0,  # intervals are made here
                    log_samples=True,
                )
                evaluated = Evaluated(row["prompt"], results, self._manager.loaded)
                responses.append(evaluated.content())
        return responses

    def grade(self, rows: Sequence[Row], responses: Sequence[Any]) -> list[Item]:
        items = []
        for content in responses:
            for number, document in enumerate(content["documents"]):
                sums = {name: tuple(pair) for name, pair in document["sums"].items()}
                # figures of all documents go with the first of them
                resampled = {} if number else content["resampled"]
                directions = {} if number else content["higher_is_better"]
                details = document["details"]
                items.append(Item(document["prompt"], sums, details, 0, resampled, directions))
        return items

    @cached_property
    def _manager(self) -> Any:
        """Knows the tasks; it reads thousands of files for that, so there is one."""
        from lm_eval.tasks import TaskManager

        class Remembering(TaskManager):  # type: ignore[misc]
            """Keeps what it has loaded: results name no functions that aggregate."""

            loaded: dict[str, Any]

            def load(self, *args: Any, **kwargs: Any) -> Any:
                self.loaded = super().load(*args, **kwargs)
                return self.loaded

        include_path = self.include_path and str(Path(self.include_path).expanduser())
        return Remembering(include_path=include_path)


@hookimpl
def register_tasks(register: Register) -> None:
    register(Harness)
