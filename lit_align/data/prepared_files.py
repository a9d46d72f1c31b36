"""Tokenise large files in several processes, and keep the trees and the ledger in a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from mmap import ACCESS_READ, mmap
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock

from lit_align.data.digest import tree_digest
from lit_align.data.formats.base import LocatedRow
from lit_align.data.ledger import Ledger
from lit_align.data.read_groups import DataSource, open_rows, read_row
from lit_align.data.row_reader import RowReader
from lit_align.data.tokenize import ChatTokenizer
from lit_align.data.tokenize_rows import tokenize_row
from lit_align.data.tree_store import TreeStore, TreeWriter, to_batch
from lit_align.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.progress import Progress

TREES, LEDGER = "trees.arrow", "ledger.json"
CHUNK_ROWS = 512
CHUNKS_AHEAD = 4  # per process: enough to keep it busy, little enough to be in memory

Prepared = tuple[TreeStore, Ledger]
Tokenized = tuple["pa.RecordBatch", list[bytes], Ledger]


class _Chunk(NamedTuple):
    """Rows that one process tokenises together, and where they come from."""

    path: str
    reader: RowReader
    rows: list[LocatedRow]


def load_prepared(folder: Path) -> Prepared | None:
    """The trees and the ledger of a folder; None if it is not complete."""
    if not (folder / LEDGER).exists():
        return None
    state = json.loads((folder / LEDGER).read_text("utf-8"))
    return TreeStore(folder / TREES), Ledger.from_state(state)


def prepared_with(cache: Path, values: Sequence[str]) -> list[Path]:
    """The folders in a cache in which a field of a row's group is one of the values, such as an annotator.

    Args:
        cache: with a folder for each data set; it need not exist.
        values: to look for.
    """
    # quotes within texts are escaped, and the name of a field has no colon before it
    fields = [f": {json.dumps(value, ensure_ascii=False)}" for value in values]
    texts = [field.encode("utf-8", "surrogatepass") for field in fields]
    folders = []
    for file in sorted(cache.glob(f"*/{TREES}")):
        if not file.stat().st_size:
            continue
        with file.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            if any(content.find(text) >= 0 for text in texts):
                folders.append(file.parent)
    return folders


def prepare_files(source: DataSource, tokenizer: ChatTokenizer, folder: Path) -> Prepared | None:
    """Tokenise all rows into ``folder``; of several processes that need it, one does.

    Args:
        source: the files, and the labels that are trained on.
        tokenizer: turns groups into token ids.
        folder: complete afterwards.

    Returns:
        Trees and ledger; None if a row holds something that cannot be kept in files, such as a date.

    Raises:
        DataError: if a path, or the data as a whole, cannot be used, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            return load_prepared(folder) or _fill(source, tokenizer, folder)
    except OSError as error:
        raise DataError(
            f"the tokenised rows cannot be kept in {folder.parent}: {error.strerror}; make room there, or set "
            "data.prepared_cache to another folder or to null"
        ) from error


def _fill(source: DataSource, tokenizer: ChatTokenizer, folder: Path) -> Prepared | None:
    """Write trees and ledger beside the folder, which appears complete or not at all."""
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir()
    try:
        ledger = _write_trees(source, tokenizer, temporary / TREES)
        (temporary / LEDGER).write_text(json.dumps(ledger.to_state()), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except TypeError:
        return None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load_prepared(folder)


def _write_trees(source: DataSource, tokenizer: ChatTokenizer, path: Path) -> Ledger:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    ledger = source.new_ledger()
    writer = TreeWriter(path)
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    # forked: settings, formats and tokenizer need not be pickled, and nothing is imported again
    pool = ProcessPoolExecutor(
        _num_processes(), get_context("fork"), _start_worker, (source, tokenizer)
    )
    with pool, Progress(*columns) as progress:
        task = progress.add_task("tokenising")
        for batch, digests, part in _in_order(pool, _read_chunks(source, ledger)):
            writer.write(batch, digests)
            ledger.merge(part)
            _show_rows(progress, task, ledger.rows)
    writer.close()
    return ledger


def _read_chunks(source: DataSource, ledger: Ledger) -> Iterator[_Chunk]:
    for path in source.paths:
        reader, rows = open_rows(source, path, ledger)
        while chunk := list(islice(rows, CHUNK_ROWS)):
            yield _Chunk(path, reader, chunk)


def _in_order(pool: ProcessPoolExecutor, chunks: Iterator[_Chunk]) -> Iterator[Tokenized]:
    """The tokenised chunks in the order of the rows, with a bounded number of them in memory."""
    pending: deque[Future[Tokenized]] = deque()
    limit = CHUNKS_AHEAD * _num_processes()
    for chunk in chunks:
        pending.append(pool.submit(_tokenize_chunk, chunk))
        if len(pending) == limit:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


_worker: list[tuple[DataSource, ChatTokenizer]] = []
"""In a worker process: what its rows are read and tokenised with."""


def _start_worker(source: DataSource, tokenizer: ChatTokenizer) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for each core
    _worker.append((source, tokenizer))


def _tokenize_chunk(chunk: _Chunk) -> Tokenized:
    source, tokenizer = _worker[-1]
    ledger = source.new_ledger()
    trees = []
    for row in chunk.rows:
        read = read_row(source, chunk.path, chunk.reader, row, ledger)
        tree = None if read is None else tokenize_row(tokenizer, *read, ledger)
        if tree is not None:
            trees.append(tree)
    return to_batch(trees), [tree_digest(tree) for tree in trees], ledger


def _num_processes() -> int:
    """Cores of this process, shared with the other ranks of this machine."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _show_rows(progress: Progress, task: object, rows: int) -> None:
    progress.update(task, description=f"tokenised {rows:,} rows")  # type: ignore[arg-type]
