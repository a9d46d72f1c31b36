"""What an embedder is aligned to: labelled points in the space of a model's embedding table."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.orca.label_quantizer import clusters, stratified

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Word = tuple[str, str]
"""A word and its tag."""


class SourceSet(NamedTuple):
    """Labelled points to align to: ``x`` is ``[n, d]`` in float32, ``y`` the number of a class in ``names``."""

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
            table: the model's input embeddings, ``[vocabulary, d]``.
            tokenizer: of the same model.
            count: points, about, drawn by tag.
            window: neighbours on either side.
            seed: of the draw.

        Raises:
            DataError: if there is no tagged word.
        """
        files = [Path(path) for path in paths]
        sentences = [sentence for file in files for sentence in _sentences(file)]
        places = [(sentence, at) for sentence in sentences for at in range(len(sentence))]
        if not places:
            raise DataError(
                f"no tagged word in {', '.join(map(str, files)) or 'no files'}; a line is a word and a tag"
            )
        names = sorted({sentence[at][1] for sentence, at in places})
        y = torch.tensor([names.index(sentence[at][1]) for sentence, at in places])
        chosen = stratified(y, count, torch.Generator().manual_seed(seed)).tolist()
        texts = []
        for sentence, at in (places[i] for i in chosen):
            texts.append(
                " ".join(word for word, _ in sentence[max(at - window, 0) : at + window + 1])
            )
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        x = torch.stack([table.detach()[one].float().mean(0) for one in ids])
        source = f"{len(x)} words of {', '.join(file.name for file in files)}, {window} neighbours on either side"
        return cls(x, y[chosen], tuple(names), source)

    @classmethod
    def from_table(
        cls, table: Tensor, count: int = 2000, classes: int = 10, seed: int = 0
    ) -> SourceSet:
        """No text: each point is one of ``count`` rows of the embedding table, its class one of their clusters."""
        drawn = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))[:count]
        x = table.detach()[drawn].float()
        centres = clusters(x, classes, seed).to(x)
        y = torch.unique(torch.cdist(x, centres).argmin(1), return_inverse=True)[1]
        names = tuple(f"cluster {c}" for c in range(int(y.max()) + 1))
        return cls(x, y, names, f"{len(x)} rows of an embedding table of {len(table)}")

    @classmethod
    def read(cls, path: str | Path) -> SourceSet:
        """Points from an .npz: ``x`` is ``[n, d]``, or ``[n, length, d]`` for tokens, and ``y`` ``[n]``.

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
            raise DataError(
                f"{file} holds {', '.join(sorted(arrays)) or 'nothing'}; a source is x and y"
            )
        x, y = arrays["x"].float(), arrays["y"]
        if (
            x.dim() not in (2, 3)
            or y.shape != x.shape[:1]
            or y.is_floating_point()
            or not bool(x.isfinite().all())
        ):
            found = f"x {list(x.shape)} and y {list(y.shape)} {y.dtype}"
            raise DataError(
                f"{file} holds {found}; x is finite, [n, d], and y a whole number for each of its rows"
            )
        labels, index = torch.unique(y, return_inverse=True)
        return cls(
            x.mean(1) if x.dim() == 3 else x, index, tuple(map(str, labels.tolist())), str(file)
        )


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
            elif len(columns) > 1 and (
                word == 0 or columns[0].isdigit()
            ):  # no comments, no empty or joined words
                sentence.append((columns[word], columns[tag].removeprefix("B-").removeprefix("I-")))
