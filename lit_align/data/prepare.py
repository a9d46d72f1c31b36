"""Read and tokenise a data set: files to trees, with the fate of every row in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_align.data.ledger import Ledger
from lit_align.data.prepared_files import load_prepared, prepare_files
from lit_align.data.prepared_key import prepared_key
from lit_align.data.read_groups import DataSource, read_groups
from lit_align.data.tokenize import ChatTokenizer
from lit_align.data.tokenize_rows import tokenize_row
from lit_align.types import Tree

PREPARED_CACHE = "~/.cache/lit_align/prepared"
"""Where tokenised rows are kept unless ``data.prepared_cache`` says otherwise."""

LARGE_BYTES = 4 * 2**20
"""Size of all files together from which rows are tokenised by several processes and kept on disk."""


def prepare(
    source: DataSource, tokenizer: ChatTokenizer, cache: Path | None = None
) -> tuple[Sequence[Tree], Ledger]:
    """Read, convert and tokenise all rows of all files.

    Args:
        source: the files, and the labels that are trained on.
        tokenizer: turns groups into token ids.
        cache: folder where the tokenised rows of large files are kept, so that the same files are tokenised once; None
            keeps them in memory.

    Raises:
        DataError: if a path, or the data as a whole, cannot be used.
    """
    if cache is None or not is_large(source.paths):
        return _prepare_in_memory(source, tokenizer)
    folder = cache / prepared_key(source, tokenizer)
    prepared = load_prepared(folder) or prepare_files(source, tokenizer, folder)
    if prepared is None:  # a row holds something that the files cannot
        return _prepare_in_memory(source, tokenizer)
    trees, ledger = prepared
    source.close_ledger(ledger)
    return trees, ledger


def is_large(paths: Sequence[str]) -> bool:
    """Whether all paths are files, and large together."""
    files = [Path(path) for path in paths]
    if not all(file.is_file() for file in files):
        return False
    return sum(file.stat().st_size for file in files) >= LARGE_BYTES


def _prepare_in_memory(source: DataSource, tokenizer: ChatTokenizer) -> tuple[list[Tree], Ledger]:
    ledger = source.new_ledger()
    trees: list[Tree] = []
    for group, note in read_groups(source, ledger):
        tree = tokenize_row(tokenizer, group, note, ledger)
        if tree is not None:
            trees.append(tree)
    source.close_ledger(ledger)
    return trees, ledger
