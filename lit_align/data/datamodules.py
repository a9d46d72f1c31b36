"""Data as Lightning wants them: files in the YAML, steps out, and the fate of every row in the run's folder."""

from __future__ import annotations

import json
import warnings
from abc import ABC
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lit_align.data.formats import Format
from lit_align.data.kto_mismatched import mismatched
from lit_align.data.ledger import Ledger
from lit_align.data.loader import Steps
from lit_align.data.prepare import prepare
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ConfigError
from lit_align.functional.trees import FLEX_BLOCK_SIZE
from lit_align.types import Batch, LabelKind, Step, Tree

TOGETHER = 32  # answers that are written at once


class TextDataModule(LightningDataModule, ABC):
    """Files or hub data sets as steps of packed trees.

    The tokenizer and the known layouts are the stage's: ``tokenizer`` and ``formats()`` of the trainer's module.

    Args:
        train: files or hub data sets to learn from (``name`` or ``name:split`` on the hub).
        validation: the same to validate on; None validates on nothing.
        format: the layout of the rows; None finds it from their columns.
        batch_size: groups in an optimiser step, all processes together.
        token_budget: tokens that pass through the model at once; lower it if memory is short, the result is the same.
        max_length: tokens that a prompt and one response may have together.
        overlong: what becomes of those that have more: ``drop``, ``truncate`` (the end of the response) or ``error``.
        max_malformed: share of malformed rows at which to stop.
        shuffle: whether each epoch has its own order.
        seed: of that order.
    """

    label_kind: ClassVar[LabelKind]

    def __init__(
        self,
        train: str | list[str],
        validation: str | list[str] | None = None,
        format: Format | None = None,
        batch_size: int = 32,
        token_budget: int = 8192,
        max_length: int = 2048,
        overlong: Literal["drop", "truncate", "error"] = "drop",
        max_malformed: float = 0.01,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {
            "batch_size": batch_size,
            "token_budget": token_budget,
            "max_length": max_length,
        }.items():
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if not 0 <= max_malformed <= 1:
            raise ConfigError(f"max_malformed is {max_malformed}; it is a share, from 0 to 1")
        self.paths = {"train": _listed(train), "validation": _listed(validation)}
        self.format, self.max_length, self.overlong, self.max_malformed = (
            format,
            max_length,
            overlong,
            max_malformed,
        )
        self.batch_size, self.token_budget, self.shuffle, self.seed = (
            batch_size,
            token_budget,
            shuffle,
            seed,
        )
        self.trees: dict[str, list[Tree]] = {}
        self.ledgers: dict[str, Ledger] = {}

    def setup(self, stage: str) -> None:
        """Prepare what the stage needs, once, and put its ledger on the screen and into the run's folder."""
        for split in ("train", "validation") if stage == "fit" else ("validation",):
            if self.paths[split] and split not in self.trees:
                self._prepare(split)

    def _prepare(self, split: str) -> None:
        module = cast(Any, self._running.lightning_module)
        kind = self.label_kind_for(split)
        silent = kind == "responses"  # what was sampled may say nothing
        chat = ChatTokenizer(
            module.tokenizer, max_length=self.max_length, overlong=self.overlong, silent=silent
        )
        formats = () if self.format else module.formats()

        def show(ledger: Ledger) -> None:
            self.ledgers[split] = ledger
            rank_zero_info(ledger.table())
            _write(Path(self._running.default_root_dir), self.ledgers)

        wanted = getattr(module, "attributes", ())
        trees, _ = prepare(
            self.paths[split], self.format, chat, kind, self.max_malformed, formats, show, wanted
        )
        paired = getattr(module, "mismatched", False) and kind not in (
            "prompts",
            "responses",
        )  # those come later
        self.trees[split] = mismatched(trees, self.max_length) if paired else trees

    def label_kind_for(self, split: str) -> LabelKind:
        """What the rows of a split are read as."""
        return self.label_kind

    @property
    def _running(self) -> Any:
        if self.trainer is None:
            raise ConfigError(
                f"{type(self).__name__} has no trainer; pass it to trainer.fit, or call prepare instead"
            )
        return self.trainer

    def train_dataloader(self) -> Steps:
        """Steps that shuffle, and that Lightning saves and restores with the checkpoint."""
        return self._steps("train", shuffle=self.shuffle)

    def val_dataloader(self) -> Steps | list[Any]:
        """Steps in the order of the file, from the start each time."""
        if not self.paths["validation"]:
            warnings.filterwarnings(
                "ignore", "Total length of `list` across ranks is zero"
            )  # it is our intention
            return []
        return self._steps("validation", shuffle=False, resumes=False)

    test_dataloader = val_dataloader

    def predict_dataloader(self) -> Asked:
        """The validation prompts, in lists that are answered together; each process has its share."""
        if not self.paths["validation"]:
            raise ConfigError(
                "predict answers the prompts of data.validation, and there are none; name a file there"
            )
        running = self._running
        mine = list(enumerate(self.trees["validation"]))[running.global_rank :: running.world_size]
        module = cast(Any, running.lightning_module)
        samples = module.best_of.n if module.best_of else 1
        return Asked(mine, max(1, TOGETHER // samples), module.num_answered)

    def _steps(self, split: str, **order: bool) -> Steps:
        running = self._running
        sparse = cast(Any, running.lightning_module).block_sparse
        return Steps(
            self.trees[split],
            batch_size=self.batch_size,
            token_budget=self.token_budget,
            rank=running.global_rank,
            world=running.world_size,
            seed=self.seed,
            multiple=FLEX_BLOCK_SIZE if sparse else 1,
            dense=not sparse,
            **order,
        )

    def transfer_batch_to_device(
        self, batch: Step | list[Any], device: torch.device, dataloader_idx: int
    ) -> Step | list[Any]:
        """Move the tensors; Lightning alone would walk through every token of every tree."""
        if isinstance(batch, list):
            return batch
        return batch._replace(batches=tuple(to_device(one, device) for one in batch.batches))


class Demonstrations(TextDataModule):
    """Responses to imitate: completions, conversations, instructions, or the better side of comparisons."""

    label_kind = LabelKind.DEMONSTRATIONS


class Comparisons(TextDataModule):
    """Responses of which one is better than another; a ranking counts as all the comparisons in it."""

    label_kind = LabelKind.PAIRS


class BinaryLabels(TextDataModule):
    """Responses that were judged one by one, up or down; of a comparison, the better is up and the worse is down."""

    label_kind = LabelKind.DESIRABLE


class Rankings(TextDataModule):
    """K responses in an order, ties and responses without a place included; a comparison is a ranking of two."""

    label_kind = LabelKind.RANKING


class Ratings(TextDataModule):
    """Responses that were rated one by one, by one attribute or several."""

    label_kind = LabelKind.RATINGS


class Prompts(TextDataModule):
    """Prompts to sample responses to; whatever labels the rows carry, and responses, are left aside."""

    label_kind = LabelKind.PROMPTS


class Asked:
    """Trees with their places in the data, in lists that are answered together; empty for those that have an answer.

    A plain list would be taken for several loaders.
    """

    def __init__(self, trees: list[tuple[int, Tree]], together: int, answered: int) -> None:
        self.trees, self.together, self.answered = trees, together, answered

    def __len__(self) -> int:
        return -(-len(self.trees) // self.together)

    def __iter__(self) -> Iterator[list[tuple[int, Tree]]]:
        for k in range(0, len(self.trees), self.together):
            yield self.trees[k : k + self.together] if k >= self.answered else []


def _listed(paths: str | list[str] | None) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths or ())


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The micro-batch with its tensors on ``device``."""
    pairs = batch.pairs and batch.pairs._replace(**_moved(batch.pairs._asdict(), device))
    unpaired = batch.unpaired and batch.unpaired._replace(
        **_moved(batch.unpaired._asdict(), device)
    )
    rankings = batch.rankings and batch.rankings._replace(
        **_moved(batch.rankings._asdict(), device)
    )
    return batch._replace(
        trees=batch.trees.to(device), pairs=pairs, unpaired=unpaired, rankings=rankings
    )


def _moved(fields: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: field.to(device) for name, field in fields.items() if isinstance(field, torch.Tensor)
    }


@rank_zero_only
def _write(folder: Path, ledgers: dict[str, Ledger]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    books = {split: json.loads(ledger.to_json()) for split, ledger in ledgers.items()}
    (folder / "ledger.json").write_text(
        json.dumps(books, indent=2, ensure_ascii=False), encoding="utf-8"
    )
