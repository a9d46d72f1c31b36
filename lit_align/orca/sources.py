"""What an embedder is aligned to: labelled points in the space of a model's embedding table."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Word = tuple[str, str]
"""A word and its tag."""


def stratified(y: Tensor, count: int, generator: torch.Generator, least: int = 8) -> Tensor:
    """Indices of about ``count`` rows of the classes ``y``, without replacement, each class by its share.

    Args:
        y: ``[n]``, classes.
        count: rows to draw; classes that are topped up add to it.
        generator: of the draw.
        least: rows of each class, where it has them.

    Example:
        >>> y = torch.tensor([0] * 90 + [1] * 10)
        >>> y[stratified(y, 20, torch.Generator(), least=4)].bincount()
        tensor([18,  4])
    """
    drawn = []
    for name in torch.unique(y):
        members = (y == name).nonzero()[:, 0].cpu()
        wanted = max(least, round(count * len(members) / len(y)))
        drawn.append(members[torch.randperm(len(members), generator=generator)[:wanted]])
    return torch.cat(drawn).to(y.device)


def clusters(rows: Tensor, k: int, seed: int = 0) -> Tensor:
    """``[k, d]``, centres of ``rows`` (``[n, d]``) by k-means from k-means++ seeds."""
    import numpy as np
    from scipy.cluster.vq import kmeans2

    distinct: Tensor = torch.unique(rows.double(), dim=0)
    if k >= len(distinct):
        return distinct
    found = kmeans2(rows.double().cpu().numpy(), k, minit="++", rng=np.random.default_rng(seed), missing="warn")
    return torch.as_tensor(found[0])


@dataclass(frozen=True)
class LabelQuantizer:
    """Classes for targets that have none: ``edges`` between bins of a number, or the nearest of ``centres``.

    Example:
        >>> quantizer = LabelQuantizer.fit(torch.arange(100.0), k=4)
        >>> quantizer.edges.tolist(), quantizer(torch.tensor([0.0, 30.0, 500.0])).tolist()
        ([24.75, 49.5, 74.25], [0, 1, 3])
    """

    edges: Tensor | None = None
    centres: Tensor | None = None

    @classmethod
    def fit(cls, y: Tensor, k: int = 10, seed: int = 0) -> LabelQuantizer:
        """Bins of equal count for numbers, ties merged; k-means for anything else.

        Args:
            y: ``[n]`` or ``[n, ...]``.
            k: at most so many classes; of vectors also no more than one for each 20 rows.
            seed: of k-means.

        Raises:
            DataError: if a target is missing or not finite.
        """
        y = y.double()
        if not len(y) or not bool(y.isfinite().all()):
            raise DataError(f"targets of shape {list(y.shape)} are missing or not finite; mend or drop them")
        if y[0].numel() == 1:
            steps = torch.arange(1, k, dtype=y.dtype, device=y.device) / k
            return cls(edges=torch.unique(torch.quantile(y.flatten(), steps)))
        return cls(centres=clusters(y.flatten(1), max(min(k, len(y) // 20), 1), seed))

    def __call__(self, y: Tensor) -> Tensor:
        """``[n]``, the class of each of ``y``, which is shaped as what was fitted."""
        if self.edges is not None:
            return torch.bucketize(y.double().flatten(), self.edges.to(y.device), right=True)
        assert self.centres is not None
        return torch.cdist(y.double().flatten(1), self.centres.to(y.device)).argmin(1)


class SourceSet(NamedTuple):
    """Labelled points to align to.

    Args:
        x: ``[n, d]``, float32.
        y: ``[n]``, classes as 0, 1, ...
        names: of the classes.
        provenance: where they came from, in a line.
    """

    x: Tensor
    y: Tensor
    names: tuple[str, ...]
    provenance: str

    @classmethod
    def from_words(
        cls,
        paths: Iterable[str | Path],
        table: Tensor,
        tokenizer: PreTrainedTokenizerBase,
        count: int = 2000,
        window: int = 4,
        seed: int = 0,
    ) -> SourceSet:
        """Tagged text: each point is the mean embedding of a word and its neighbours, its class the word's tag.

        Args:
            paths: files with a word a line, a blank line between sentences: .conllu, where the tag is the part of
                speech, or any other, where it is the last column; gzipped or not.
            table: ``[vocabulary, d]``, the model's input embeddings.
            tokenizer: of the same model.
            count: points, about.
            window: neighbours on either side.
            seed: of the draw.

        Raises:
            DataError: if there is no tagged word.
        """
        files = [Path(path) for path in paths]
        sentences = [sentence for file in files for sentence in _sentences(file)]
        places = [(sentence, at) for sentence in sentences for at in range(len(sentence))]
        if not places:
            raise DataError(f"no tagged word in {', '.join(map(str, files)) or 'no files'}; a line is a word and a tag")
        names = sorted({sentence[at][1] for sentence, at in places})
        y = torch.tensor([names.index(sentence[at][1]) for sentence, at in places])
        chosen = stratified(y, count, torch.Generator().manual_seed(seed)).tolist()
        texts = []
        for sentence, at in (places[i] for i in chosen):
            texts.append(" ".join(word for word, _ in sentence[max(at - window, 0) : at + window + 1]))
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        x = torch.stack([table.detach()[one].float().mean(0) for one in ids])
        source = f"{len(x)} words of {', '.join(file.name for file in files)}, {window} neighbours on either side"
        return cls(x, y[chosen], tuple(names), source)

    @classmethod
    def from_table(cls, table: Tensor, count: int = 2000, classes: int = 10, seed: int = 0) -> SourceSet:
        """No text at all: each point is a row of the embedding table, its class a cluster of such rows.

        Args:
            table: ``[vocabulary, d]``, the model's input embeddings.
            count: rows to draw.
            classes: clusters.
            seed: of the draw and of k-means.
        """
        drawn = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))[:count]
        x = table.detach()[drawn].float()
        centres = clusters(x, classes, seed).to(x)
        y = torch.unique(torch.cdist(x, centres).argmin(1), return_inverse=True)[1]
        names = tuple(f"cluster {c}" for c in range(int(y.max()) + 1))
        return cls(x, y, names, f"{len(x)} rows of an embedding table of {len(table)}")

    @classmethod
    def read(cls, path: str | Path) -> SourceSet:
        """Points from a file of arrays: ``x`` is ``[n, d]``, or ``[n, length, d]`` for tokens, and ``y`` ``[n]``.

        Args:
            path: of an .npz.

        Raises:
            DataError: if the file is not there or does not hold labelled, finite points.
        """
        import numpy as np

        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(f"there is no source {file}; give an .npz of x and y")
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: torch.as_tensor(found[name]) for name in found.files}
        if not {"x", "y"} <= arrays.keys():
            raise DataError(f"{file} holds {', '.join(sorted(arrays)) or 'nothing'}; a source is x and y")
        x, y = arrays["x"].float(), arrays["y"]
        if x.dim() not in (2, 3) or y.shape != x.shape[:1] or y.is_floating_point() or not bool(x.isfinite().all()):
            raise DataError(
                f"{file} holds x {list(x.shape)} and y {list(y.shape)} {y.dtype}; x is finite, of [n, d] or "
                "[n, length, d], and y a whole number for each of its rows"
            )
        labels, index = torch.unique(y, return_inverse=True)
        return cls(x.mean(1) if x.dim() == 3 else x, index, tuple(map(str, labels.tolist())), str(file))


def _sentences(file: Path) -> Iterator[list[Word]]:
    """Sentences of a file with a word a line."""
    if not file.is_file():
        raise DataError(f"there is no file {file}; give tagged text, a word a line")
    word, tag = (1, 3) if ".conllu" in file.suffixes else (0, -1)
    sentence: list[Word] = []
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
        for line in [*lines, ""]:
            columns = line.strip().split("\t")
            if columns == [""]:
                if sentence:
                    yield sentence
                sentence = []
            elif len(columns) > 1 and (word == 0 or columns[0].isdigit()):  # no comments, no empty or joined words
                sentence.append((columns[word], columns[tag].removeprefix("B-").removeprefix("I-")))
