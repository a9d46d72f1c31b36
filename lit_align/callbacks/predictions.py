"""What ``predict`` leaves behind: one answer a line, where a run that was stopped can be taken up again."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lit_align.data.label_conversion import to_prompt
from lit_align.data.scoring import UNLIMITED
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ConfigError
from lit_align.models.generate import sample
from lit_align.rewards.base import as_response
from lit_align.types import Group, Tree

if TYPE_CHECKING:
    from lit_align.stages.language_model_stage import LanguageModelStage


def ask(
    module: LanguageModelStage, prompts: list[list[int]], role: str = "policy", **options: Any
) -> list[list[tuple[str, bool]]]:
    """What a role says to prompts of token ids, blanks included, and whether it came to an end before the limit did.

    ``options`` of `sample` go before the stage's.

    Raises:
        ConfigError: if there is no policy to ask.
    """
    if role == "policy" and role not in module.adapters.trained_roles:
        raise ConfigError(
            f"a run of {type(module).__name__} has no policy and answers nothing; name one that has"
        )
    ours = {name: getattr(module, name) for name in ("max_new_tokens", "temperature", "seed")}
    with module.adapters.activate(role, training=False) as model:
        sampled = sample(model, module.tokenizer, prompts, **{**ours, **options})
    decode, end = module.tokenizer.decode, {True: -1, False: None}
    return [
        [
            (str(decode(one.ids[: end[one.ended]], skip_special_tokens=True)), one.ended)
            for one in row
        ]
        for row in sampled
    ]


def replies(
    module: LanguageModelStage, groups: Sequence[Group], role: str = "policy", **options: Any
) -> list[list[str]]:
    """What a role says to the prompts of groups, however long they are; ``options`` as for `ask`."""
    chat = ChatTokenizer(module.tokenizer, max_length=UNLIMITED)
    prompts = [chat.encode(to_prompt(group)).tree.prompt for group in groups]
    return [[text for text, _ in several] for several in ask(module, prompts, role, **options)]


def answered(
    modules: Iterable[LanguageModelStage], groups: Sequence[Group], samples: int = 1
) -> list[Group]:
    """The prompts of groups with so many responses of each module, sampled even if it answers greedily by itself."""
    made = [to_prompt(group) for group in groups]
    for module in modules:
        said = replies(
            module, groups, num_generations=samples, temperature=module.temperature or 1.0
        )
        made = [
            group._replace(
                responses=[*group.responses, *(as_response(group, text) for text in several)]
            )
            for group, several in zip(made, said, strict=True)
        ]
        del module
        gc.collect()  # it refers to itself, and the next one needs the memory
    return made


def records(module: LanguageModelStage, numbered: list[tuple[int, Tree]]) -> list[dict[str, Any]]:
    """A line for each prompt: where it came from, what was answered, and the row's other columns."""
    places, groups = [place for place, _ in numbered], [tree.group for _, tree in numbered]
    samples = module.best_of.n if module.best_of else 1
    said = ask(
        module,
        [tree.prompt for _, tree in numbered],
        num_generations=samples,
        prompt_indices=places,
    )
    found = (
        module.best_of.choose(groups, said)
        if module.best_of
        else [{"answer": one.strip()} for ((one, _),) in said]
    )
    return [record(group, one) for group, one in zip(groups, found, strict=True)]


def record(group: Group, ours: dict[str, Any]) -> dict[str, Any]:
    """One line; a column of the data that is called as one of ours becomes ``data.answer``, say, and is not lost.

    Example:
        >>> record(Group("2 + 2?", [], source="sums:1", extra={"answer": "4", "level": 1}), {"answer": "5"})
        {'source': 'sums:1', 'prompt': '2 + 2?', 'answer': '5', 'data.answer': '4', 'level': 1}
    """
    ours = {"source": group.source, "prompt": group.prompt, **ours}
    return {
        **ours,
        **{f"data.{name}" if name in ours else name: value for name, value in group.extra.items()},
    }


class PredictionWriter(BasePredictionWriter):
    """Append answers to ``answers.jsonl`` in the run folder as they are made; each process writes a file of its own.

    What a reward model leaves are no answers: its file is ``scores.jsonl``.

    Args:
        answers: folder of a run of predict that was stopped: its answers are taken over and the others are made, as
            that run would have made them.
    """

    def __init__(self, answers: str | None = None) -> None:
        super().__init__("batch")
        self.before = None if answers is None else Path(answers)
        self.taken: list[bytes] = []
        self.what = "answers"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See how far the stopped run came, in whole batches: what shares a batch can change the last bit.

        Raises:
            ConfigError: if there are no such answers, or they are to other prompts.
        """
        super().setup(trainer, pl_module, stage)
        self.what = "answers" if "policy" in pl_module.trained_roles else "scores"  # type: ignore[operator]
        if self.before is None:
            return
        if stage != "predict":
            raise ConfigError(
                f"answers is {str(self.before)!r}, which is for predict alone; leave it out"
            )
        if not any(self.before.glob(f"{self.what}*.jsonl")):
            raise ConfigError(
                f"there are no {self.what} in {str(self.before)!r}; give the numbered folder of a predict"
            )
        prompts = trainer.datamodule.predict_dataloader()  # type: ignore[attr-defined]
        file, asked = (
            self.before / self._name(trainer),
            [tree.group.source for _, tree in prompts.trees],
        )
        # behind the last line there is nothing, or half of one
        lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
        if [json.loads(line)["source"] for line in lines] != asked[: len(lines)]:
            raise ConfigError(
                f"{file} answers other prompts than are asked here; use that run's data and devices"
            )
        complete = len(lines) == len(asked)
        self.taken = (
            lines if complete else lines[: len(lines) // prompts.batch_size * prompts.batch_size]
        )
        pl_module.num_answered = len(self.taken)  # type: ignore[assignment]

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the answers of the stopped run over, if it had the same settings.

        Raises:
            ConfigError: if it had others, so that its answers are another model's.
        """
        if self.before is None:
            return
        files = [folder / "config.yaml" for folder in (self.before, Path(trainer.default_root_dir))]
        if all(file.exists() for file in files):  # a run made in Python has none
            was, now = (yaml.safe_load(file.read_text("utf-8")) for file in files)
            for part in ("model", "data", "ckpt_path"):
                if was[part] != now[part]:
                    raise ConfigError(
                        f"{self.before} has other settings of {part}; go on with -c {files[0]}"
                    )
        self._path(trainer).write_bytes(b"".join(line + b"\n" for line in self.taken))

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: list[dict[str, Any]],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the answers of one batch."""
        with self._path(trainer).open("a", encoding="utf-8") as file:
            # a column from Parquet may be a date or bytes, which JSON has no word for
            file.writelines(
                json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in prediction
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where they are, and what choosing among several was worth."""
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        if pl_module.best_of is not None:
            folder = Path(trainer.default_root_dir)
            rows = [
                line
                for file in sorted(folder.glob("answers*.jsonl"))
                for line in file.open(encoding="utf-8")
            ]
            pl_module.best_of.report(folder, [json.loads(row) for row in rows])  # type: ignore[operator, union-attr]
        print(f"{self.what} are in {self._path(trainer)}")

    def _name(self, trainer: Trainer) -> str:
        return (
            f"{self.what}.jsonl"
            if trainer.is_global_zero
            else f"{self.what}.{trainer.global_rank}.jsonl"
        )

    def _path(self, trainer: Trainer) -> Path:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / self._name(trainer)
