"""Data that are not text as Lightning wants them: honest splits, what is measured on training data alone, batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor

from lit_align.data.loader import StepLoader
from lit_align.errors import ConfigError, DataError
from lit_align.orca.modalities import Examples, InputSpec, Labelled, Modality, TargetSpec, collate

BINS = 5  # of a number to be predicted, to have as many high ones on either side of a split


class CrossModalData(LightningDataModule):
    """Files of examples that are not text, in three parts: to train on, to choose by, and to test on once.

    Validation examples are always taken from the training file. Means, deviations, categories and classes are those of
    what is trained on; the test file is not opened before ``test``.

    Args:
        train: the file to learn from.
        modality: what it holds.
        test: the file to test on; None puts ``test_share`` of the training file aside; one archive may hold both.
        validation_share: share of the training examples to validate on, from each class alike.
        test_share: share of the file that is put aside where there is no test file.
        limit: about as many examples to train and validate on; None takes all.
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
        for name, share in {"validation_share": validation_share, "test_share": test_share}.items():
            if not 0 < share < 1:
                raise ConfigError(f"{name} is {share}; it is a share, between 0 and 1")
        for name, value in {"batch_size": batch_size, "limit": limit}.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        self.paths, self.modality = {"train": train, "test": test}, modality
        self.shares = {"validation": validation_share, "test": test_share}
        self.limit, self.batch_size, self.seed = limit, batch_size, seed
        self.parts: dict[str, Examples] = {}

    def setup(self, stage: str) -> None:
        """Read the training file and, for ``test``, the test file."""
        if self.trainer is not None and self.trainer.world_size > 1:
            raise ConfigError(
                f"there are {self.trainer.world_size} processes; cross-modal data are for one"
            )
        if not self.parts:
            self._prepare()
        if stage == "test" and self.paths["test"] and "test" not in self.parts:
            found = self._read(str(self.paths["test"]), "test")
            seen = {unit for part in self.parts.values() for unit in units_of(part, same=True)}
            if again := sum(unit in seen for unit in units_of(found, same=True)):
                if again == len(found):
                    raise DataError(
                        f"everything in {self.paths['test']} is in {self.paths['train']}; test on other data"
                    )
                warnings.warn(
                    f"{again} inputs of {self.paths['test']} are in {self.paths['train']}",
                    stacklevel=2,
                )
            self.parts["test"] = found

    def _prepare(self) -> None:
        """Split, and measure what is trained on."""
        path, whole = self.paths["train"], self._read(self.paths["train"] or "", "train")
        parts: dict[str, Examples] = {}
        if self.paths["test"] is None:
            whole, parts["test"] = split(whole, self.shares["test"], self.seed)
        if self.limit and self.limit < len(whole):
            _, whole = split(whole, self.limit / len(whole), self.seed)
        train, parts["validation"] = split(whole, self.shares["validation"], self.seed)
        if not len(train) or not len(parts["validation"]):
            raise DataError(
                f"{path} is too small for training and validation, {len(whole)} examples; give more"
            )
        self.target = target_spec(train, str(path))
        self._measure(train, str(path))
        prepared = [self._prepared(x) for x in train.inputs]
        # what else may come is known of the file: what a value is missing from, and how long inputs are, is no label
        self.inputs = InputSpec.of(
            self.modality.kind, [*prepared, *map(self._prepared, parts["validation"].inputs)]
        )
        self.parts = {"train": train, **parts}

    def _read(self, path: str, which: Literal["train", "test"]) -> Examples:
        found = self.modality(path, which)
        if len(found) == 0:
            raise DataError(f"there is no example in {path}; give another file")
        first = found.inputs[0]
        for number, x in enumerate(found.inputs):
            if x.ndim != first.ndim or len(x) != len(first):
                raise DataError(
                    f"input {number} in {path} is {list(x.shape)}, the first {list(first.shape)}; mend it"
                )
            if not x.numel() or bool(x.isnan().all()):
                raise DataError(f"input {number} in {path} holds no value; leave it out")
            if bool(x.isinf().any()):
                raise DataError(
                    f"input {number} in {path} holds an infinite value; correct it, or make it missing"
                )
        bad = (
            "" in found.targets
            if isinstance(found.targets, list)
            else not bool(found.targets.isfinite().all())
        )
        if bad:
            raise DataError(f"a target in {path} is missing or infinite; leave the example out")
        return found

    def _measure(self, train: Examples, path: str) -> None:
        """What makes numbers comparable, and integers small."""
        self.mean, self.std, self.known = torch.zeros(1), torch.ones(1), torch.zeros(0)
        if self.modality.as_is:
            return
        values = torch.cat([x.reshape(len(x), -1) for x in train.inputs], 1)
        if not values.is_floating_point():
            self.known = torch.unique(values)
            return
        self.mean = values.double().nanmean(1)
        if bool(self.mean.isnan().any()):
            empty = int(self.mean.isnan().nonzero()[0, 0])
            raise DataError(f"channel {empty} of {path} has no value to train on; leave it out")
        self.std = (values.double() - self.mean[:, None]).square().nanmean(1).sqrt()
        self.std[self.std <= 1e-6 * self.mean.abs()] = 1.0  # constant, up to rounding

    def _prepared(self, x: Tensor) -> Tensor:
        if self.modality.as_is:
            return x
        if x.is_floating_point():
            shape = (-1, *[1] * (x.ndim - 1))
            return ((x.double() - self.mean.view(shape)) / self.std.view(shape)).float()
        place = torch.searchsorted(self.known, x).clamp(max=len(self.known) - 1)
        return torch.where(self.known[place] == x, place + 1, 0)

    def labelled(
        self, part: Literal["train", "validation", "test"], rows: Sequence[int] | None = None
    ) -> Labelled:
        """A batch of some examples of a part, or of all; what is longer than any in training is refused.

        Raises:
            DataError: if a target is of a class that training lacks, or of another kind.
        """
        taken = self.parts[part] if rows is None else self.parts[part].take(rows)
        x, mask = collate([self._prepared(x) for x in taken.inputs])
        return Labelled(x, mask, self.encoded(part, rows))

    def encoded(self, part: str, rows: Sequence[int] | None = None) -> Tensor:
        """Targets as a head wants them; arguments and errors as for ``labelled``."""
        targets = (self.parts[part] if rows is None else self.parts[part].take(rows)).targets
        if not isinstance(targets, list):
            return targets.long() if targets.dtype == torch.bool else targets
        if strange := sorted(set(targets) - set(self.target.classes)):
            raise DataError(
                f"the {part} examples are of class {', '.join(strange)}, which training has not, only "
                f"{', '.join(self.target.classes)}; train on all classes"
            )
        return torch.tensor([self.target.classes.index(name) for name in targets])

    def train_dataloader(self) -> Batches:
        """Each epoch in an order of its own, which a checkpoint remembers."""
        return Batches(self, "train", resumes=True)

    def val_dataloader(self) -> Batches:
        """In the order of the file."""
        return Batches(self, "validation")

    def test_dataloader(self) -> Batches:
        """In the order of the file."""
        return Batches(self, "test")


class Batches(StepLoader):
    """The batches of one part of the data: the order of steps of trees, and how it is resumed, without packing."""

    def __init__(
        self,
        data: CrossModalData,
        part: Literal["train", "validation", "test"],
        resumes: bool = False,
    ) -> None:
        self.trees: Any = range(len(data.parts[part]))
        self.batch_size, self.shuffle, self.seed, self.resumes = (
            data.batch_size,
            resumes,
            data.seed,
            resumes,
        )
        self.epoch = self.next = 0
        self.data, self.part = data, part
        data.encoded(part)  # refuses now what would stop in the middle of an epoch

    def _make_step(self, trees: Any) -> Any:
        return self.data.labelled(self.part, trees)


def target_spec(train: Examples, path: str) -> TargetSpec:
    """What is to be learned.

    Raises:
        DataError: if there is nothing to tell apart, or a dense target does not fit its input.
    """
    targets = train.targets
    if isinstance(targets, list):
        names = sorted(set(targets))
        if len(names) < 2:
            raise DataError(
                f"all training examples in {path} are of class {names[0]}; there is nothing to learn"
            )
        return TargetSpec("class", len(names), classes=tuple(names))
    if targets.dtype == torch.bool:
        return TargetSpec("multilabel", targets.shape[1])
    flat = targets.transpose(0, 1).flatten(1).double()
    std = flat.std(1, correction=0)
    std[std <= 1e-6 * flat.mean(1).abs()] = 1.0
    scale = tuple(flat.mean(1).tolist()), tuple(std.tolist())
    if targets.ndim == 2:
        return TargetSpec("regression", targets.shape[1], (), (), *scale)
    shape = tuple(targets.shape[2:])
    if other := next(
        (tuple(x.shape[1:]) for x in train.inputs if tuple(x.shape[1:]) != shape), None
    ):
        raise DataError(
            f"the dense targets in {path} are {list(shape)}, an input {list(other)}; they must be alike"
        )
    return TargetSpec("dense", targets.shape[1], shape, (), *scale)


def split(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Keep some, and hold out ``share`` of each class; groups and equal inputs are never parted.

    Of each class at least one group is kept, and one held out if there are two.

    Example:
        >>> inputs = [torch.tensor([[float(i)]]) for i in range(6)]
        >>> kept, held = split(Examples(inputs, ["a", "b", "a", "b", "a", "once"]), 0.3, seed=0)
        >>> sorted(kept.targets), sorted(held.targets)
        (['a', 'a', 'b', 'once'], ['a', 'b'])
    """
    units, strata = units_of(examples), _strata(examples)
    by_stratum: dict[int, list[Any]] = {}
    for unit, stratum in dict(zip(units, strata, strict=True)).items():
        by_stratum.setdefault(stratum, []).append(unit)
    draw = torch.Generator().manual_seed(seed)
    held: set[Any] = set()
    for _, there in sorted(by_stratum.items()):
        count = min(max(1, round(share * len(there))), len(there) - 1)
        held |= {there[i] for i in torch.randperm(len(there), generator=draw)[:count].tolist()}
    rows = [
        [row for row, unit in enumerate(units) if (unit in held) is out] for out in (False, True)
    ]
    return examples.take(rows[0]), examples.take(rows[1])


def units_of(examples: Examples, same: bool = False) -> list[Any]:
    """What is not to be parted: each example's group, or its input (``same``: in any case)."""
    if examples.groups is not None and not same:
        return list(examples.groups)
    return [(tuple(x.shape), x.numpy().tobytes()) for x in examples.inputs]


def _strata(examples: Examples) -> list[int]:
    """What either side of a split should have of each."""
    targets = examples.targets
    if examples.groups is not None:
        return [0] * len(examples)
    if isinstance(targets, list):
        names = sorted(set(targets))
        return [names.index(name) for name in targets]
    if targets.dtype == torch.bool or targets.shape[1:].numel() > 1:
        return [0] * len(examples)
    edges = targets.flatten().quantile(torch.linspace(0, 1, BINS + 1)[1:-1])
    strata: list[int] = torch.bucketize(targets.flatten(), edges).tolist()
    return strata
