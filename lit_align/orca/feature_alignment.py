"""Align an embedder's features to text (ORCA): settings, the training examples used, and the optimiser steps."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import ConfigError
from lit_align.models.load import load_tokenizer
from lit_align.orca.backbones import Backbone
from lit_align.orca.datamodule import CrossModalData
from lit_align.orca.distances import OTDD, DatasetDistance
from lit_align.orca.embedders import Embedder
from lit_align.orca.label_quantizer import LabelQuantizer, stratified_sample
from lit_align.orca.source_sets import SourceSet
from lit_align.orca.splits import split_keys

if TYPE_CHECKING:
    from lit_align.models.load import Base

SOURCE_POINTS = 1000


@dataclass
class FeatureAlignment:
    """How an embedder's features are aligned to text before fine-tuning, and during it.

    ``folds`` cross-validate the alignment: an embedder is aligned to all but one fold of the training examples, the
    backbone as it was loaded reads its tokens, and a logistic (for numbers: ridge) regression on the features that the
    head would get, fitted to the same examples, is evaluated on the fold that was held out. The alignment is kept if
    this loss falls by more than twice the standard error of its mean over the folds, which with five folds happens by
    chance one time in seventeen. The features of the backbone are probed and not the embeddings, since a linear layer
    undoes any linear change of those. With and without alignment, the probe uses the ridge that is best for it; with
    one ridge for both, shrinking all features would pass for an improvement where the probe overfits.

    Args:
        source: files of tagged text to align to, one word a line, or one .npz of points; an empty list uses clusters
            of the model's embedding table.
        distance: what is minimised, between the source and each input's mean token; targets that are not classes are
            binned or clustered.
        steps: optimiser steps, each on all of ``rows``.
        lr: learning rate of Adam.
        rows: training examples, about, to align, sampled by class.
        joint: weight of the distance during fine-tuning, relative to its value before the first step; 0 leaves it out.
        folds: of the cross-validation; 0 keeps the alignment in any case.
    """

    source: list[str] = field(default_factory=list)
    distance: DatasetDistance = field(default_factory=OTDD)
    steps: int = 8
    lr: float = 1e-3
    rows: int = 512
    joint: float = 0.0
    folds: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rows < 2 or self.joint < 0 or self.folds < 0 or self.folds == 1:
            raise ConfigError(
                f"steps is {self.steps}, rows {self.rows}, joint {self.joint} and folds {self.folds}; steps is at "
                "least 1, rows 2, joint 0, and folds 0 or at least 2; set the alignment to null to leave it out"
            )

    def load_source(self, backbone: Backbone, base: Base, seed: int) -> SourceSet:
        """Source features to align to, on the backbone's device.

        Raises:
            ConfigError: if the backbone has no word embeddings.
            DataError: if a file cannot be read.
        """
        source = self._load_source(backbone, base, seed)
        device = backbone.spec.stats.mean.device
        return source._replace(x=source.x.to(device), y=source.y.to(device))

    def _load_source(self, backbone: Backbone, base: Base, seed: int) -> SourceSet:
        if len(self.source) == 1 and self.source[0].endswith(".npz"):
            return SourceSet.load(self.source[0])
        embeddings = backbone.model.get_input_embeddings()
        if not hasattr(embeddings, "weight"):
            raise ConfigError(
                f"{base.path!r} has no word embeddings to align to; give an .npz of points as alignment.source"
            )
        if not self.source:
            return SourceSet.from_table(embeddings.weight, SOURCE_POINTS, seed=seed)
        tokenizer = load_tokenizer(base)
        return SourceSet.from_words(
            self.source, embeddings.weight, tokenizer, SOURCE_POINTS, seed=seed
        )


class AlignmentBatch(NamedTuple):
    """Training examples that an embedder is aligned with.

    Args:
        x: inputs ``[n, channels, ...]``.
        mask: of the same shape; False at padding and at missing values.
        y: targets, as the head's loss takes them.
        classes: of the targets, ``[n]``.
        fold: in which each example is held out, ``[n]``.
    """

    x: Tensor
    mask: Tensor
    y: Tensor
    classes: Tensor
    fold: Tensor

    def to(self, device: torch.device) -> AlignmentBatch:
        """The batch on ``device``."""
        return AlignmentBatch(*(values.to(device) for values in self))

    def take(self, rows: Tensor) -> AlignmentBatch:
        """The examples at ``rows``, indices or a mask."""
        return AlignmentBatch(*(values[rows] for values in self))


def sample_batch(
    data: CrossModalData, quantizer: LabelQuantizer | None, rows: int, folds: int, seed: int
) -> AlignmentBatch:
    """About ``rows`` training examples, sampled by class.

    Args:
        data: that was set up.
        quantizer: of targets that are not classes.
        rows: number of examples, about.
        folds: number of folds, or 0.
        seed: of sample and folds.
    """
    targets = data.encode_targets("train")
    all_classes = targets if quantizer is None else quantizer(targets.float())
    generator = torch.Generator().manual_seed(seed)
    sample = stratified_sample(all_classes, min(rows, len(all_classes)), generator).tolist()
    classes = torch.unique(all_classes[sample], return_inverse=True)[1]
    examples = data.splits["train"].take(sample)
    keys = split_keys(examples)
    if len(set(keys)) == 1:  # the examples of a single group are assigned one by one
        keys = split_keys(examples, by_input=True)
    fold = torch.tensor(assign_folds(keys, classes.tolist(), folds, seed))
    x, mask, y = data.make_batch("train", sample)
    return AlignmentBatch(x, mask, y, classes, fold)


def assign_folds(
    keys: Sequence[Hashable], classes: Sequence[int], folds: int, seed: int
) -> list[int]:
    """Fold of each example: those with the same key share one, and each class is spread evenly over the folds.

    Example:
        >>> sorted(assign_folds("abcdab", [0, 0, 1, 1, 0, 0], folds=2, seed=0)[:4])
        [0, 0, 1, 1]
        >>> assign_folds("aab", [0, 0, 1], folds=2, seed=0)[:2]
        [0, 0]
    """
    class_of_key: dict[Hashable, int] = {}
    for key, label in zip(reversed(keys), reversed(classes), strict=True):
        class_of_key[key] = label  # that of the first example with this key
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(class_of_key), generator=generator).tolist()
    rank = dict(zip(class_of_key, order, strict=True))
    shuffled = sorted(class_of_key, key=lambda key: (class_of_key[key], rank[key]))
    num_folds = max(folds, 1)
    fold = {}
    for position, key in enumerate(shuffled):
        fold[key] = position % num_folds
    return [fold[key] for key in keys]


def align_embedder(
    embedder: Embedder,
    batch: AlignmentBatch,
    source: SourceSet,
    alignment: FeatureAlignment,
    distance: DatasetDistance,
) -> None:
    """Take ``alignment.steps`` optimiser steps that move the embedder's features towards the source."""
    optimizer = torch.optim.Adam(embedder.parameters(), alignment.lr)
    for _ in range(alignment.steps):
        features = embedder(batch.x, batch.mask).pooled()
        optimizer.zero_grad()
        loss = distance(source.x, source.y, features, batch.classes).value
        torch.autograd.backward(loss)
        optimizer.step()
    optimizer.zero_grad()
