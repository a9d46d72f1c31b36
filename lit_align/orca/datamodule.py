"""Data module for data that are not text: splits without leakage, scaling fitted on training data alone, batches."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor

from lit_align.checks import check_at_least
from lit_align.data.loader import StepLoader
from lit_align.errors import ConfigError, DataError
from lit_align.orca.modalities import (
    Examples,
    InputSpec,
    LabelledBatch,
    Modality,
    TargetSpec,
    collate,
)
from lit_align.orca.splits import split_examples, split_keys

Split = Literal["train", "validation", "test"]


class CrossModalData(LightningDataModule):
    """Files of examples that are not text, in three splits: training, validation and test.

    Validation examples always come from the training file. Means, deviations, categories and classes are those of the
    training split; the test file is not opened before ``test``.

    Args:
        train: the training file.
        modality: reader of the files.
        test: the test file; null holds out ``test_share`` of the training file; one archive may hold both.
        validation_share: share of the training examples to validate on, from each class alike.
        test_share: share of the training file that is held out where there is no test file.
        limit: number of examples, about, to train and validate on; null takes all.
        batch_size: examples in an optimiser step.
        seed: of the splits and of the order of each epoch.
    """

    label_kind = "examples"

    def __init__(
        self,
        train: str,
        modality: Modality,
        test: str | None = None,
        validation_share: float = 0.2,
        test_share: float = 0.2,
        limit: int | None = None,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, share in (("validation_share", validation_share), ("test_share", test_share)):
            if not 0 < share < 1:
                raise ConfigError(f"{name} must be above 0 and below 1, got {share}")
        check_at_least("batch_size", batch_size, 1)
        if limit is not None:
            check_at_least("limit", limit, 1)
        self.train_path, self.test_path, self.modality = train, test, modality
        self.validation_share, self.test_share = validation_share, test_share
        self.limit, self.batch_size, self.seed = limit, batch_size, seed
        self.splits: dict[str, Examples] = {}

    def setup(self, stage: str) -> None:
        """Read the training file and, for ``test``, the test file."""
        if self.trainer is not None and self.trainer.world_size > 1:
            raise ConfigError(
                f"there are {self.trainer.world_size} processes; cross-modal training supports one"
            )
        if not self.splits:
            self._read_train()
        if stage == "test" and self.test_path and "test" not in self.splits:
            self._read_test(self.test_path)

    def _read_train(self) -> None:
        """Read and split the training file, and fit classes and scaling on the training split."""
        path = self.train_path
        examples = read_examples(self.modality, path, "train")
        splits: dict[str, Examples] = {}
        if self.test_path is None:
            examples, splits["test"] = split_examples(examples, self.test_share, self.seed)
        if self.limit and self.limit < len(examples):
            share = self.limit / len(examples)
            _, examples = split_examples(examples, share, self.seed)
        train, validation = split_examples(examples, self.validation_share, self.seed)
        splits["validation"] = validation
        if not len(train) or not len(validation):
            raise DataError(
                f"{path} is too small for training and validation, {len(examples)} examples; give more"
            )
        self.target = target_spec(train, path)
        self._fit_scaling(train, path)
        # the inputs of validation count too: whether values are missing, and how long inputs are, are not labels
        inputs = [*train.inputs, *validation.inputs]
        scaled = [self._scale(x) for x in inputs]
        self.inputs = InputSpec.from_inputs(self.modality.kind, scaled)
        self.splits = {"train": train, **splits}

    def _read_test(self, path: str) -> None:
        """Read the test file; inputs that are also in the training file are reported."""
        examples = read_examples(self.modality, path, "test")
        train_keys = set()
        for split in self.splits.values():
            train_keys.update(split_keys(split, by_input=True))
        num_shared = 0
        for key in split_keys(examples, by_input=True):
            num_shared += key in train_keys
        if num_shared == len(examples):
            raise DataError(f"everything in {path} is in {self.train_path}; test on other data")
        if num_shared:
            warnings.warn(f"{num_shared} inputs of {path} are in {self.train_path}", stacklevel=3)
        self.splits["test"] = examples

    def _fit_scaling(self, train: Examples, path: str) -> None:
        """Mean and deviation of numbers, or the categories of integers."""
        self.mean, self.std = torch.zeros(1), torch.ones(1)
        self.categories = torch.zeros(0)
        if self.modality.as_is:
            return
        channels = [x.reshape(len(x), -1) for x in train.inputs]
        values = torch.cat(channels, 1)
        if not values.is_floating_point():
            self.categories = torch.unique(values)
            return
        values = values.double()
        self.mean = values.nanmean(1)
        for channel, is_empty in enumerate(self.mean.isnan().tolist()):
            if is_empty:
                raise DataError(
                    f"channel {channel} of {path} has no value to train on; leave it out"
                )
        deviations = values - self.mean[:, None]
        self.std = deviations.square().nanmean(1).sqrt()
        is_constant = self.std <= 1e-6 * self.mean.abs()  # up to rounding
        self.std[is_constant] = 1.0

    def _scale(self, x: Tensor) -> Tensor:
        """Standardise numbers; number the categories of training from 1, 0 is any other."""
        if self.modality.as_is:
            return x
        if x.is_floating_point():
            shape = (-1, *[1] * (x.ndim - 1))
            mean, std = self.mean.view(shape), self.std.view(shape)
            standardised = (x.double() - mean) / std
            return standardised.float()
        last = len(self.categories) - 1
        index = torch.searchsorted(self.categories, x).clamp(max=last)
        is_known = self.categories[index] == x
        return torch.where(is_known, index + 1, 0)

    def make_batch(self, split: Split, rows: Sequence[int] | None = None) -> LabelledBatch:
        """A batch of the examples at ``rows`` of a split, or of all of them.

        Raises:
            DataError: if a target is of a class that is not in the training split.
        """
        examples = self.splits[split]
        if rows is not None:
            examples = examples.take(rows)
        x, mask = collate([self._scale(x) for x in examples.inputs])
        return LabelledBatch(x, mask, self.encode_targets(split, rows))

    def encode_targets(self, split: Split, rows: Sequence[int] | None = None) -> Tensor:
        """Targets as `LabelledBatch` holds them; arguments and errors as for `make_batch`."""
        examples = self.splits[split]
        targets = examples.targets if rows is None else examples.take(rows).targets
        if not isinstance(targets, list):
            return targets.long() if targets.dtype == torch.bool else targets
        classes = self.target.classes
        unknown = sorted(set(targets) - set(classes))
        if unknown:
            raise DataError(
                f"the {split} examples are of class {', '.join(unknown)}, which is not in the training split, only "
                f"{', '.join(classes)}; train on all classes"
            )
        return torch.tensor([classes.index(name) for name in targets])

    def data_identity(self) -> dict[str, str | int]:
        """What the steps of an epoch depend on; a run resumes only with the same."""
        digest = hashlib.blake2b(digest_size=16)
        examples = self.splits["train"]
        tensors = [*examples.inputs, self.encode_targets("train")]
        for tensor in tensors:
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return {
            "rows": len(examples),
            "digest of the rows": digest.hexdigest(),
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    def train_dataloader(self) -> BatchLoader:
        """Each epoch in an order of its own, resumed from a checkpoint."""
        return BatchLoader(self, "train", resumes=True)

    def val_dataloader(self) -> BatchLoader:
        """In the order of the file."""
        return BatchLoader(self, "validation")

    def test_dataloader(self) -> BatchLoader:
        """In the order of the file."""
        return BatchLoader(self, "test")


class BatchLoader(StepLoader):
    """Batches of one split, in the resumable order of the loader of text, without packing."""

    def __init__(self, data: CrossModalData, split: Split, resumes: bool = False) -> None:
        self.trees: Any = range(len(data.splits[split]))
        self.batch_size, self.seed = data.batch_size, data.seed
        self.shuffle = self.resumes = resumes
        self.epoch = self.next = 0
        self.data, self.split = data, split
        data.encode_targets(split)  # so that an unknown class stops the run before its first batch

    def _make_step(self, trees: Any) -> Any:
        return self.data.make_batch(self.split, trees)


def read_examples(modality: Modality, path: str, split: Literal["train", "test"]) -> Examples:
    """Read a file and check its examples.

    Raises:
        DataError: naming the first example that cannot be used.
    """
    examples = modality(path, split)
    if len(examples) == 0:
        raise DataError(f"there is no example in {path}; give another file")
    first = examples.inputs[0]
    for number, x in enumerate(examples.inputs):
        if x.ndim != first.ndim or len(x) != len(first):
            raise DataError(
                f"input {number} in {path} is {list(x.shape)}, the first {list(first.shape)}; fix it"
            )
        if not x.numel() or bool(x.isnan().all()):
            raise DataError(f"input {number} in {path} holds no value; leave it out")
        if bool(x.isinf().any()):
            raise DataError(
                f"input {number} in {path} holds an infinite value; correct it, or make it missing"
            )
    if not _is_complete(examples.targets):
        raise DataError(f"a target in {path} is missing or infinite; leave the example out")
    return examples


def _is_complete(targets: list[str] | Tensor) -> bool:
    """Whether no target is missing or infinite."""
    if isinstance(targets, list):
        return "" not in targets
    return bool(targets.isfinite().all())


def target_spec(train: Examples, path: str) -> TargetSpec:
    """Specification of the targets of the training split.

    Raises:
        DataError: if all are of one class, or a dense target does not fit its input.
    """
    targets = train.targets
    if isinstance(targets, list):
        names = sorted(set(targets))
        if len(names) < 2:
            raise DataError(
                f"all training examples in {path} are of class {names[0]}; there is nothing to learn"
            )
        return TargetSpec("class", len(names), classes=tuple(names))
    num_outputs = targets.shape[1]
    if targets.dtype == torch.bool:
        return TargetSpec("multilabel", num_outputs)
    values = targets.transpose(0, 1).flatten(1).double()
    mean, std = values.mean(1), values.std(1, correction=0)
    is_constant = std <= 1e-6 * mean.abs()  # up to rounding
    std[is_constant] = 1.0
    shape = tuple(targets.shape[2:])
    for x in train.inputs if shape else []:
        input_shape = tuple(x.shape[1:])
        if input_shape != shape:
            raise DataError(
                f"the dense targets in {path} are {list(shape)}, an input {list(input_shape)}; they must be alike"
            )
    return TargetSpec(
        kind="dense" if shape else "regression",
        outputs=num_outputs,
        shape=shape,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
    )
