"""Tokenised rows in a file: of a million of them, only those in use are in memory."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lit_align.data.digest import join_digests, trees_digest
from lit_align.data.lazy_sequence import LazySequence
from lit_align.data.packing import separate_branches
from lit_align.types import Branch, Group, Pair, SolutionStep, Tree

if TYPE_CHECKING:
    import pyarrow as pa

DIGESTS = ".digests"
EMPTY = Group("", [])


class Totals(NamedTuple):
    """Sizes of a data set.

    Args:
        tokens: of all trees.
        scored: of all trees, those that are scored.
        largest: tokens of the largest tree.
    """

    tokens: int
    scored: int
    largest: int


class TreeStore(LazySequence[Tree]):
    """The trees of a file that `TreeWriter` wrote, read from disk one by one.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path = path
        self.digest = join_digests(_read_digests(path.with_suffix(DIGESTS)))
        """The same as `trees_digest` of the trees."""
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        counts = [0]
        columns: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int64)] for name in COUNTS}
        for number in range(self._reader.num_record_batches):
            batch = self._reader.get_batch(number)
            counts.append(batch.num_rows)
            for name, parts in columns.items():
                parts.append(batch.column(name).to_numpy())
        self._starts = np.cumsum(counts).tolist()
        self.sizes, tokens, num_scored = map(np.concatenate, columns.values())
        """Tokens of the largest forward pass of each tree: its own, or those of one of its branches."""
        self.totals = Totals(int(tokens.sum()), int(num_scored.sum()), int(tokens.max(initial=0)))

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, index: int) -> Tree:
        """A tree from the file."""
        number = bisect_right(self._starts, index) - 1
        batch = self._reader.get_batch(number)
        row = index - self._starts[number]
        values = {name: batch.column(name)[row].as_py() for name in COLUMNS}
        return _tree_from_columns(values)


class TreeWriter:
    """Writes trees into a file, batch by batch.

    Args:
        path: of the new file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._file = pa.ipc.new_file(str(path), _schema())
        self._digests = path.with_suffix(DIGESTS).open("wb")

    def write(self, batch: pa.RecordBatch, digests: Iterable[bytes]) -> None:
        """Add a batch of `to_batch`, and the `tree_digest` of each of its trees."""
        self._file.write_batch(batch)
        self._digests.writelines(digests)

    def close(self) -> None:
        """Complete the files."""
        self._file.close()
        self._digests.close()


def _read_digests(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while content := file.read(2**20):
            yield content  # they are joined end to end


COUNTS = ("size", "tokens", "num_scored")
COLUMNS = ("prompt", "responses", "scored", "branches", "group")


def to_batch(trees: Sequence[Tree]) -> pa.RecordBatch:
    """Trees as a batch for `TreeWriter`.

    Raises:
        TypeError: if a group holds something that JSON has no type for.
    """
    import pyarrow as pa

    schema = _schema()
    prompts = [tree.prompt for tree in trees]
    branches = [[branch._asdict() for branch in tree.branches] for tree in trees]
    groups = [group_to_json(tree.group).encode("utf-8", "surrogatepass") for tree in trees]
    columns = [
        _list_array(prompts, _flat_array(prompts, np.int32)),
        _nested_list_array([tree.responses for tree in trees], np.int32),
        _nested_list_array([tree.scored for tree in trees], np.bool_),
        pa.array(branches, schema.field("branches").type),
        pa.array(groups, pa.large_binary()),
        pa.array(map(forward_size, trees), pa.int64()),
        pa.array([tree.tokens for tree in trees], pa.int64()),
        pa.array([tree.num_scored for tree in trees], pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _flat_array(lists: Sequence[Sequence[Any]], dtype: type) -> pa.Array:
    """All items of the lists; by way of numpy, since Arrow looks at the type of every item of a list."""
    import pyarrow as pa

    size = sum(map(len, lists))
    return pa.array(np.fromiter(chain.from_iterable(lists), dtype, size))


def _list_array(lists: Sequence[Sequence[Any]], items: pa.Array) -> pa.ListArray:
    """The lists as an array, of which ``items`` are the items."""
    import pyarrow as pa

    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum([*map(len, lists)], out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), items)


def _nested_list_array(lists: Sequence[Sequence[Sequence[Any]]], dtype: type) -> pa.ListArray:
    inner = [*chain.from_iterable(lists)]
    return _list_array(lists, _list_array(inner, _flat_array(inner, dtype)))


def group_to_json(group: Group) -> str:
    """A group as JSON text, without fields that have their default; `group_from_json` gives an equal one.

    Raises:
        TypeError: if it holds something that JSON has no type for, such as a date.
    """
    fields = {
        name: value
        for name, value in group._asdict().items()
        if value != getattr(EMPTY, name) or name in ("prompt", "responses")
    }
    return json.dumps(fields, ensure_ascii=False)


def group_from_json(text: str) -> Group:
    """The group that `group_to_json` wrote.

    Example:
        >>> group = Group("Name a bird.", ["An owl.", "A bat."], (Pair(0, 1, margin=0.5),))
        >>> group_from_json(group_to_json(group)) == group
        True
    """
    fields = json.loads(text)
    if "pairs" in fields:
        fields["pairs"] = tuple(Pair(*pair) for pair in fields["pairs"])
    if "steps" in fields:
        steps = []
        for response in fields["steps"]:
            steps.append(tuple(SolutionStep(*step) for step in response))
        fields["steps"] = tuple(steps)
    for name in ("desirable", "ranking", "ratings", "tools"):
        if name in fields:
            fields[name] = tuple(fields[name])
    return Group(**fields)


def forward_size(tree: Tree) -> int:
    """Tokens of the largest forward pass that the tree needs: those of the trees that the loader packs."""
    packed = separate_branches([tree])
    return max((part.tokens for part in packed), default=tree.tokens)


def _tree_from_columns(values: dict[str, Any]) -> Tree:
    group = group_from_json(values["group"].decode("utf-8", "surrogatepass"))
    branches = tuple(Branch(**fields) for fields in values["branches"])
    return Tree(values["prompt"], values["responses"], values["scored"], group, branches=branches)


def _schema() -> pa.Schema:
    import pyarrow as pa

    ids, mask = pa.list_(pa.int32()), pa.list_(pa.bool_())
    branch = pa.struct([("response", pa.int32()), ("prompt", ids), ("ids", ids), ("scored", mask)])
    return pa.schema(
        [
            ("prompt", ids),
            ("responses", pa.list_(ids)),
            ("scored", pa.list_(mask)),
            ("branches", pa.list_(branch)),
            ("group", pa.large_binary()),
            ("size", pa.int64()),
            ("tokens", pa.int64()),
            ("num_scored", pa.int64()),
        ]
    )


def digest_of(trees: Sequence[Tree]) -> str:
    """Digest of the rows of an epoch: the stored one where there is one."""
    return trees.digest if isinstance(trees, TreeStore) else trees_digest(trees)


def totals_of(trees: Sequence[Tree]) -> Totals:
    """Sizes of all trees: the stored ones where there are some.

    Example:
        >>> totals_of([Tree([1, 2], [[3]], [[True]], EMPTY), Tree([1], [[2]], [[False]], EMPTY)])
        Totals(tokens=5, scored=1, largest=3)
    """
    if isinstance(trees, TreeStore):
        return trees.totals
    tokens = [tree.tokens for tree in trees]
    return Totals(sum(tokens), sum(tree.num_scored for tree in trees), max(tokens, default=0))
