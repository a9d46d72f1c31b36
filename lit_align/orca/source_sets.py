"""Source sets, which an embedder is aligned to: labelled points in the space of a model's token embeddings."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.orca.label_quantizer import kmeans_centres, stratified_sample

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

TaggedWord = tuple[str, str]
"""A word and its tag."""


class SourceSet(NamedTuple):
    """Labelled points to align to.

    Args:
        x: points ``[n, d]`` in float32.
        y: classes ``[n]``, as indices into ``names``.
        names: of the classes.
        provenance: where the points come from, for the report.
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
            paths: files with one word a line and a blank line between sentences: .conllu, where the tag is the part of
                speech, or any other, where it is the last column; gzipped or not.
            table: the model's input embeddings, ``[vocabulary, d]``.
            tokenizer: of the same model.
            count: points, about, sampled by tag.
            window: neighbours on either side.
            seed: of the sample.

        Raises:
            DataError: if there is no tagged word.
        """
        files = [Path(path) for path in paths]
        positions: list[tuple[list[TaggedWord], int]] = []
        for file in files:
            for sentence in _read_sentences(file):
                for index in range(len(sentence)):
                    positions.append((sentence, index))
        if not positions:
            raise DataError(
                f"no tagged word in {', '.join(map(str, files)) or 'no files'}; a line is a word and a tag"
            )
        tags = [sentence[index][1] for sentence, index in positions]
        names = sorted(set(tags))
        y = torch.tensor([names.index(tag) for tag in tags])
        sample = stratified_sample(y, count, torch.Generator().manual_seed(seed)).tolist()
        texts = []
        for i in sample:
            sentence, index = positions[i]
            texts.append(_neighbourhood(sentence, index, window))
        token_ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        points = []
        for ids in token_ids:
            embeddings = table.detach()[ids]
            points.append(embeddings.float().mean(0))
        x = torch.stack(points)
        file_names = ", ".join(file.name for file in files)
        provenance = f"{len(x)} words of {file_names}, {window} neighbours on either side"
        return cls(x, y[sample], tuple(names), provenance)

    @classmethod
    def from_table(
        cls, table: Tensor, count: int = 2000, classes: int = 10, seed: int = 0
    ) -> SourceSet:
        """No text: each point is one of ``count`` rows of the embedding table, its class the nearest k-means centre."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(table), generator=generator)[:count]
        x = table.detach()[rows].float()
        centres = kmeans_centres(x, classes, seed).to(x)
        nearest = torch.cdist(x, centres).argmin(1)
        clusters, y = torch.unique(nearest, return_inverse=True)
        names = tuple(f"cluster {c}" for c in range(len(clusters)))
        return cls(x, y, names, f"{len(x)} rows of an embedding table of {len(table)}")

    @classmethod
    def load(cls, path: str | Path) -> SourceSet:
        """Points of an .npz: ``x`` is ``[n, d]``, or ``[n, length, d]`` for tokens to average, and ``y`` is ``[n]``.

        Raises:
            DataError: if there is no such file, or it does not hold labelled, finite points.
        """
        import numpy as np

        file = Path(path).expanduser()
        if not file.is_file():
            raise DataError(f"there is no source {file}; give an .npz of x and y")
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: torch.as_tensor(archive[name]) for name in archive.files}
        if not {"x", "y"} <= arrays.keys():
            names = ", ".join(sorted(arrays)) or "nothing"
            raise DataError(f"{file} holds {names}; a source is x and y")
        x, y = arrays["x"].float(), arrays["y"]
        has_points = x.dim() in (2, 3) and bool(x.isfinite().all())
        has_labels = y.shape == x.shape[:1] and not y.is_floating_point()
        if not has_points or not has_labels:
            raise DataError(
                f"{file} holds x {list(x.shape)} and y {list(y.shape)} {y.dtype}; "
                "x is finite, [n, d], and y an integer for each of its rows"
            )
        if x.dim() == 3:
            x = x.mean(1)
        labels, index = torch.unique(y, return_inverse=True)
        class_names = tuple(str(label) for label in labels.tolist())
        return cls(x, index, class_names, str(file))


def _neighbourhood(sentence: list[TaggedWord], index: int, window: int) -> str:
    """A word of a sentence with its neighbours on either side."""
    start = max(index - window, 0)
    neighbours = sentence[start : index + window + 1]
    return " ".join(word for word, _ in neighbours)


def _read_sentences(file: Path) -> Iterator[list[TaggedWord]]:
    """Sentences of a file with one word a line."""
    if not file.is_file():
        raise DataError(f"there is no file {file}; give tagged text, a word a line")
    is_conllu = ".conllu" in file.suffixes
    word, tag = (1, 3) if is_conllu else (0, -1)
    sentence: list[TaggedWord] = []
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            columns = line.strip().split("\t")
            if columns == [""]:
                if sentence:
                    yield sentence
                sentence = []
            # a line of .conllu that does not start with a number is a comment, or an empty or joined word
            elif len(columns) > 1 and (not is_conllu or columns[0].isdigit()):
                name = columns[tag].removeprefix("B-").removeprefix("I-")
                sentence.append((columns[word], name))
    if sentence:
        yield sentence
