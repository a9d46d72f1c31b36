"""Lightning data modules: files named in the YAML become steps of packed trees; the ledger goes into the run folder."""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lit_align.annotators import AnnotatorFilter
from lit_align.chat.spelled_tokens import SpecialTokensInText
from lit_align.checks import check_at_least, check_fraction
from lit_align.data.chat_renderer import LearnedTurns
from lit_align.data.column_fates import ColumnSettings, columns_read_by
from lit_align.data.formats import Format
from lit_align.data.kto_mismatched import add_mismatched_responses
from lit_align.data.ledger import Ledger, write_ledgers
from lit_align.data.loader import StepLoader
from lit_align.data.long_text import WhenOverlong
from lit_align.data.prepare import PREPARED_CACHE, prepare
from lit_align.data.read_groups import DataSource
from lit_align.data.solution_steps import LINES
from lit_align.data.text_module import TextModule
from lit_align.data.tokenize import ChatTokenizer
from lit_align.data.transfer import batches_to_device, step_to_device
from lit_align.data.tree_store import digest_of
from lit_align.errors import ConfigError
from lit_align.functional.trees import FLEX_BLOCK_SIZE
from lit_align.types import Batch, LabelKind, Step, Tree

PREDICT_BATCH_SIZE = 32  # responses that predict samples at once


class TextDataModule(LightningDataModule, ABC):
    """Files or hub data sets as steps of packed trees.

    The tokenizer and the known formats are those of the trainer's module, see `TextModule`.

    Args:
        train: files, or data sets on the hub (``name/config:split@revision``, all but the name optional), to train on.
        validation: the same to validate on; None validates on nothing.
        format: the format of the rows; None finds it from their columns.
        batch_size: groups in an optimizer step, all processes together.
        token_budget: tokens that pass through the model at once; lower it if memory is short, the result is the same.
        max_length: tokens that a prompt and one response may have together.
        overlong: what happens to longer rows: ``drop``, ``truncate`` (the end of the response) or ``error``.
        max_malformed: share of malformed rows at which to stop.
        shuffle: whether each epoch has its own order.
        seed: of that order.
        as_chat: render plain prompts and responses as turns of user and assistant if the model has a chat template;
            false leaves them plain text.
        learned_turns: which assistant turns of a conversation are learned: ``all`` or only the ``last``; a turn of
            ``weight`` 0 never is.
        columns: the file's column for each column of the format that it names differently, such as
            ``{prompt: question}``.
        prepared_cache: folder where the tokenised rows of large files are kept, by content, so that the same files are
            tokenised once; null keeps them in memory.
        ignore_columns: columns that nothing reads, although their names say that they change what is learned; a row
            with such a column is set aside unless it is listed here.
        special_tokens_in_text: what becomes of text that spells a special token out, such as the end of a turn:
            ``split`` into ordinary tokens, ``set_aside`` the row, or ``keep`` it as that token. Null splits it in
            turns, where only the chat template writes special tokens, and keeps it in plain text.
        only_annotator: train and validate on the rows of one annotator; null uses those of all. The column
            ``annotator`` says whose a row is, see ``columns``.
        without_annotators: annotators whose rows are left out.
    """

    label_kind: ClassVar[LabelKind]
    repeats_rows: ClassVar[bool] = True  # whether each epoch has the rows of the first
    steps = LINES
    deals_steps: ClassVar[bool] = (
        True  # whether each process gets its share of a step; if not, all of it
    )

    def __init__(
        self,
        train: str | list[str],
        validation: str | list[str] | None = None,
        format: Format | None = None,
        batch_size: int = 32,
        token_budget: int = 8192,
        max_length: int = 2048,
        overlong: WhenOverlong = "drop",
        max_malformed: float = 0.01,
        shuffle: bool = True,
        seed: int = 0,
        as_chat: bool = True,
        learned_turns: LearnedTurns = "all",
        columns: dict[str, str] | None = None,
        ignore_columns: list[str] | None = None,
        prepared_cache: str | None = PREPARED_CACHE,
        special_tokens_in_text: SpecialTokensInText | None = None,
        only_annotator: str | None = None,
        without_annotators: list[str] | None = None,
    ) -> None:
        super().__init__()
        check_at_least("batch_size", batch_size, 1)
        check_at_least("token_budget", token_budget, 1)
        check_at_least("max_length", max_length, 1)
        check_fraction("max_malformed", max_malformed)
        self.paths = {"train": _as_list(train), "validation": _as_list(validation)}
        self.format = format
        self.max_malformed = max_malformed
        self.max_length = max_length
        self.overlong = overlong
        self.batch_size = batch_size
        self.token_budget = token_budget
        self.columns, self.ignore_columns = columns or {}, ignore_columns or []
        self.shuffle = shuffle
        self.seed = seed
        self.as_chat = as_chat
        self.learned_turns = learned_turns
        self.prepared_cache = prepared_cache
        self.special_tokens_in_text = special_tokens_in_text
        self.annotators = AnnotatorFilter(only_annotator, tuple(without_annotators or ()))
        self.trees: dict[str, Sequence[Tree]] = {}
        self.ledgers: dict[str, Ledger] = {}

    @property
    def _running(self) -> Trainer:
        if self.trainer is None:
            raise ConfigError(
                f"{type(self).__name__} has no trainer; pass it to trainer.fit, or call read_trees instead"
            )
        return self.trainer

    @property
    def _text_module(self) -> TextModule:
        return cast(TextModule, self._running.lightning_module)

    # ------------------------------------------------------------------ reading

    def setup(self, stage: str) -> None:
        """Read and tokenise the splits that the stage needs, once each."""
        splits = ("train", "validation") if stage == "fit" else ("validation",)
        for split in splits:
            if self.paths[split] and split not in self.trees:
                self.prepare_split(split)

    def prepare_split(self, split: str) -> None:
        """Read and tokenise one split; its ledger is printed and written to the run folder."""
        module = self._text_module
        label_kind = self.label_kind_for(split)

        def publish(ledger: Ledger) -> None:
            self.add_ledger(split, ledger)
            rank_zero_info(ledger.table())
            rank_zero_only(write_ledgers)(Path(self._running.default_root_dir), self.ledgers)

        trees = self.read_trees(split, label_kind, module, publish)
        # responses that come later get their mismatched ones then
        if module.mismatched and label_kind not in (LabelKind.PROMPTS, LabelKind.RESPONSES):
            trees = add_mismatched_responses(trees, self.max_length)
        self.trees[split] = trees

    def read_trees(
        self,
        split: str,
        label_kind: LabelKind,
        module: TextModule,
        on_ledger: Callable[[Ledger], object],
    ) -> Sequence[Tree]:
        """Read and tokenise one split for ``module``; needs no trainer.

        Args:
            split: key of ``paths``.
            label_kind: the label kind that rows are converted to.
            module: the stage, for its tokenizer and formats.
            on_ledger: called with the ledger before it is checked.

        Raises:
            DataError: if a path, or the data as a whole, cannot be used.
        """
        source = DataSource(
            self.paths[split],
            label_kind,
            self.format,
            () if self.format else module.formats(),
            self.rated_attributes(module),
            self.max_malformed,
            on_ledger,
            self._column_settings(module),
        )
        tokenizer = self.chat_tokenizer(module, label_kind == LabelKind.RESPONSES)
        cache = None if self.prepared_cache is None else Path(self.prepared_cache).expanduser()
        trees, _ = prepare(source, tokenizer, cache)
        return trees

    def _column_settings(self, module: TextModule) -> ColumnSettings:
        read = self._read_columns(module)
        return ColumnSettings(self.columns, self.ignore_columns, read, self.annotators)

    def chat_tokenizer(self, module: TextModule, allow_empty: bool) -> ChatTokenizer:
        """What turns groups into trees by these settings.

        Args:
            module: the stage, for its tokenizer.
            allow_empty: whether a response may be empty.
        """
        return ChatTokenizer(
            module.tokenizer,
            max_length=self.max_length,
            overlong=self.overlong,
            allow_empty=allow_empty,
            learned_turns=self.learned_turns,
            as_chat=self.as_chat,
            special_tokens_in_text=self.special_tokens_in_text,
            steps=self.steps,
        )

    def _read_columns(self, module: TextModule) -> set[str]:
        """Columns of the rows that rewards, feedback and callbacks read."""
        readers = [getattr(module, name, None) for name in ("reward", "best_of")]
        callbacks = getattr(self.trainer, "callbacks", [])
        return columns_read_by(self, getattr(self, "feedback", None), *readers, *callbacks)

    def add_ledger(self, split: str, ledger: Ledger) -> None:
        """Keep the ledger of a split; the validation data are compared with the training data."""
        self.ledgers[split] = ledger
        if self.ledgers.keys() >= {"train", "validation"}:
            self.ledgers["validation"].compare(self.ledgers["train"])

    def rated_attributes(self, module: TextModule) -> Sequence[str]:
        """Which ratings are read; any if empty."""
        return module.attributes

    def provenance(self) -> dict[str, Any]:
        """What the adapter's ``provenance.json`` says of the data, besides their counts."""
        return {}

    def label_kind_for(self, split: str) -> LabelKind:
        """The label kind that the rows of a split are converted to."""
        return self.label_kind

    # ------------------------------------------------------------------ loading

    def train_dataloader(self) -> StepLoader:
        """A shuffling loader, which Lightning saves and restores with the checkpoint."""
        return self.step_loader("train", shuffle=self.shuffle)

    def val_dataloader(self) -> StepLoader | list[Any]:
        """A loader in the order of the file, from the start each time."""
        if not self.paths["validation"]:
            # an empty list is intended
            warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
            return []
        return self.step_loader("validation", shuffle=False, resumes=False)

    test_dataloader = val_dataloader

    def predict_dataloader(self) -> PromptBatches:
        """The validation prompts in batches; each process has its share."""
        if not self.paths["validation"]:
            raise ConfigError(
                "predict answers the prompts of data.validation, and there are none; name a file there"
            )
        trainer, module = self._running, self._text_module
        numbered = list(enumerate(self.trees["validation"]))
        num_generations = module.best_of.n if module.best_of else 1
        return PromptBatches(
            numbered[trainer.global_rank :: trainer.world_size],
            batch_size=max(1, PREDICT_BATCH_SIZE // num_generations),
            num_answered=module.num_answered,
        )

    def step_loader(self, split: str, *, shuffle: bool, resumes: bool = True) -> StepLoader:
        """A loader of a split that is prepared."""
        dealing: dict[str, Any] = self.dealing_settings() if self.deals_steps else {}
        return StepLoader(
            self.trees[split],
            shuffle=shuffle,
            resumes=resumes,
            **dealing,
            **self.packing_settings(),
        )

    def dealing_settings(self) -> dict[str, int]:
        """Arguments of `StepLoader` by which each process gets its share of a step."""
        trainer = self._running
        return {"rank": trainer.global_rank, "world": trainer.world_size}

    def data_identity(self) -> dict[str, str | int]:
        """What the steps of an epoch depend on; a run resumes only with the same."""
        trees = self.trees["train"]
        return {
            "rows": len(trees),
            "digest of the rows": digest_of(trees),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

    def packing_settings(self) -> dict[str, Any]:
        """Arguments of `StepLoader` that depend on the settings, the attention of the model and the device."""
        block_sparse = self._text_module.block_sparse
        # a CPU gains nothing from equal shapes, and computes the padding
        is_cuda = self._running.strategy.root_device.type == "cuda"
        return {
            "batch_size": self.batch_size,
            "token_budget": self.token_budget,
            "seed": self.seed,
            "multiple": FLEX_BLOCK_SIZE if block_sparse else 1,
            "dense": not block_sparse,
            # which may cut a step that fits into one micro-batch
            "few_shapes": is_cuda and not self._text_module.needs_whole_steps,
        }

    def transfer_batch_to_device(
        self, batch: Step | list[Any], device: torch.device, dataloader_idx: int
    ) -> Step | list[Any]:
        """Move the tensors of a step; Lightning's default would walk through every token of every tree."""
        if isinstance(batch, list):
            return batch
        return step_to_device(batch, device)


class Demonstrations(TextDataModule):
    """Responses to imitate: completions, conversations, instructions, or the better side of comparisons."""

    label_kind = LabelKind.DEMONSTRATIONS


class Comparisons(TextDataModule):
    """Responses of which one is better than another; a ranking counts as all the comparisons in it."""

    label_kind = LabelKind.PAIRS


class BinaryLabels(TextDataModule):
    """Responses labelled desirable or not, one by one; of a comparison, the better is desirable, the worse is not."""

    label_kind = LabelKind.DESIRABLE


class Rankings(TextDataModule):
    """K responses in an order, ties and responses without a place included; a comparison is a ranking of two."""

    label_kind = LabelKind.RANKING


class Ratings(TextDataModule):
    """Responses that were rated one by one, by one attribute or several."""

    label_kind = LabelKind.RATINGS


class Prompts(TextDataModule):
    """Prompts to sample responses to; responses and labels of the rows are ignored."""

    label_kind = LabelKind.PROMPTS
    deals_steps = (
        False  # a stage that samples deals prompts and updates in the order of the whole step
    )


class PromptBatches:
    """Lists of numbered trees that are answered together; a list is empty if its prompts have been answered.

    A plain list would be taken for several loaders.

    Args:
        trees: each with its position in the data.
        batch_size: trees in a list.
        num_answered: trees that have been answered, a multiple of ``batch_size``.
    """

    def __init__(self, trees: list[tuple[int, Tree]], batch_size: int, num_answered: int) -> None:
        self.trees = trees
        self.batch_size = batch_size
        self.num_answered = num_answered

    def __len__(self) -> int:
        return -(-len(self.trees) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, Tree]]]:
        for start in range(0, len(self.trees), self.batch_size):
            is_answered = start < self.num_answered
            yield [] if is_answered else self.trees[start : start + self.batch_size]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The micro-batch with its tensors on ``device``."""
    (moved,) = batches_to_device([batch], device)
    return moved


def _as_list(paths: str | list[str] | None) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths or ())
