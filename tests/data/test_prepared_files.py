"""Large files: the same trees and the same ledger as in memory, tokenised once, read back one by one."""

import json
import shutil
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data import prepare as prepare_module
from lit_align.data import prepared_files
from lit_align.data.digest import tree_digest, trees_digest
from lit_align.data.formats.base import built_in
from lit_align.data.ledger import Ledger
from lit_align.data.loader import StepLoader
from lit_align.data.prepare import prepare
from lit_align.data.prepared_files import load_prepared
from lit_align.data.read_groups import DataSource
from lit_align.data.tokenize import ChatTokenizer
from lit_align.data.tree_store import (
    TreeStore,
    TreeWriter,
    forward_size,
    group_from_json,
    group_to_json,
    to_batch,
    totals_of,
)
from lit_align.errors import DataError
from lit_align.types import Group, LabelKind, Pair
from tests import tiny
from tests.strategies import trees

ROWS = 1300  # more than two chunks


@pytest.fixture
def file(tmp_path) -> Path:
    """Comparisons, with malformed rows, duplicates and columns that nothing reads."""
    lines = []
    for k in range(ROWS):
        row = {"prompt": f"{k % 900}?", "chosen": f"yes {k % 900}", "rejected": "no", "id": k}
        if k % 100 == 7:
            del row["rejected"]
        lines.append("{" if k % 400 == 5 else json.dumps(row))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def large(monkeypatch) -> None:
    monkeypatch.setattr(prepare_module, "LARGE_BYTES", 0)


def source(*paths: Path) -> DataSource:
    names = [str(path) for path in paths]
    return DataSource(names, LabelKind.PAIRS, formats=built_in(), max_malformed=1.0)


def tokenizer(**settings) -> ChatTokenizer:
    return ChatTokenizer(tiny.tokenizer(), max_length=64, **settings)


def test_trees_and_ledger_are_those_of_memory(file, tmp_path, large):
    expected, in_memory = prepare(source(file), tokenizer())
    cache = tmp_path / "cache"
    first, written = prepare(source(file), tokenizer(), cache)
    second, loaded = prepare(source(file), tokenizer(), cache)
    assert isinstance(first, TreeStore)
    assert [*first] == [*second] == expected
    assert first[-1] == expected[-1]
    assert first[3:5] == expected[3:5]
    assert first.sizes.tolist() == [forward_size(tree) for tree in expected]
    assert in_memory.to_dict() == written.to_dict() == loaded.to_dict()
    assert in_memory.table() == loaded.table()
    assert in_memory.places == [*loaded.places]
    assert in_memory.findings.duplicates > 300
    assert len([*cache.glob("*/")]) == 1


def test_what_the_rows_depend_on_names_the_folder(file, tmp_path, large):
    cache = tmp_path / "cache"
    prepare(source(file), tokenizer(), cache)
    prepare(source(file), tokenizer(overlong="truncate"), cache)
    file.write_text(file.read_text().replace("yes 3", "yes three"))
    prepare(source(file), tokenizer(), cache)
    assert len([*cache.glob("*/ledger.json")]) == 3


def test_steps_are_those_of_memory(file, tmp_path, large):
    expected, _ = prepare(source(file), tokenizer())
    stored, _ = prepare(source(file), tokenizer(), tmp_path / "cache")
    options = {"batch_size": 32, "token_budget": 2048, "seed": 3}
    for ours, theirs in zip(
        StepLoader(expected, **options), StepLoader(stored, **options), strict=True
    ):
        assert [batch.source for batch in ours.batches] == [
            batch.source for batch in theirs.batches
        ]


def test_a_killed_preparation_starts_over(file, tmp_path, large):
    cache = tmp_path / "cache"
    expected = [*prepare(source(file), tokenizer(), cache)[0]]
    [folder] = cache.glob("*/")
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(folder)
    temporary.mkdir()
    (temporary / prepared_files.TREES).write_bytes(b"half")
    assert [*prepare(source(file), tokenizer(), cache)[0]] == expected
    assert not temporary.exists()
    assert load_prepared(temporary) is None


def test_a_folder_that_cannot_be_written_is_named(file, tmp_path, large):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be kept in .*cache: .*; make room there"):
        prepare(source(file), tokenizer(), tmp_path / "cache")


def test_an_error_of_the_data_comes_from_the_processes(file, tmp_path, large):
    with pytest.raises(DataError, match="over max_length"):
        prepare(
            source(file),
            ChatTokenizer(tiny.tokenizer(), max_length=8, overlong="error"),
            tmp_path / "cache",
        )
    assert not [*(tmp_path / "cache").glob("*/")]


@settings(deadline=None)  # the first example imports pyarrow
@given(st.lists(trees(), min_size=1, max_size=5))
def test_every_tree_is_read_back(tmp_path_factory, given_trees):
    path = tmp_path_factory.mktemp("store") / "trees.arrow"
    writer = TreeWriter(path)
    writer.write(to_batch(given_trees), map(tree_digest, given_trees))
    writer.write(to_batch(given_trees[:1]), [tree_digest(given_trees[0])])
    writer.close()
    store = TreeStore(path)
    assert [*store] == [*given_trees, given_trees[0]]
    assert store.digest == trees_digest(store)
    assert totals_of(store) == totals_of([*store])


def test_every_field_of_a_group_is_read_back():
    messages = [{"role": "user", "content": "a\ud800", "name": "N"}]
    group = Group(
        messages,
        [[{"role": "assistant", "content": None, "tool_calls": [{"x": 1.5}]}], messages],
        (Pair(0, 1, 0.75, -2.5),),
        (True, False),
        (1, 0),
        ({"a": 1.0}, {}),
        1,
        "rows:1",
        {"x": float("inf"), "y": [1, None]},
        ({"name": "f"},),
        {"enable_thinking": False},
        True,
    )
    assert group_from_json(group_to_json(group)) == group
    with pytest.raises(TypeError):
        group_to_json(group._replace(extra={"day": date(2020, 1, 1)}))


def test_ledgers_add_up(file):
    whole, parts = Ledger("x"), Ledger("x")
    for k in range(12):
        part = Ledger("x")
        for ledger in (whole, part):
            ledger.rows += 1
            ledger.add(f"x:{k}", "malformed" if k % 3 else "kept", f"reason {k % 2}")
            ledger.add_unread("id")
            ledger.findings.add("x", Group(f"{k % 5}", ["a", "bb"], (Pair(0, 1),)))
        parts.merge(part)
    assert parts.to_dict() == whole.to_dict()
    assert parts.findings == whole.findings
    assert Ledger.from_state(json.loads(json.dumps(whole.to_state()))).to_dict() == whole.to_dict()
