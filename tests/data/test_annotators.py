"""Whose labels a row has: in every layout, under any name of the column, in files and digests; and their hashes."""

import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lit_align import annotators
from lit_align.annotators import AnnotatorFilter, annotator_key, local_salt
from lit_align.data.column_fates import ColumnSettings
from lit_align.data.digest import tree_digest
from lit_align.data.formats import built_in
from lit_align.data.formats.groups import Groups, as_row
from lit_align.data.ledger import Ledger
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.data.tree_store import group_from_json, group_to_json
from lit_align.errors import ConfigError, DataError
from lit_align.feedback import FeedbackResult
from lit_align.online.records import IDS_COLUMN, group_from_record, make_record
from lit_align.types import Group, LabelKind, Pair, Tree

LAYOUTS = {
    "pairs": {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "desirable": {"prompt": "2 + 2?", "completion": "4", "label": True},
    "ranking": {"prompt": "2 + 2?", "responses": ["4", "5", "6"], "ranking": [1, 2, 3]},
    "ratings": {"prompt": "2 + 2?", "response": "4", "helpfulness": 4},
    "demonstrations": {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]},
}  # fmt: skip


def groups_of(tmp_path, rows, kind, **settings):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ColumnSettings(**settings)
    ledgers = []
    source = DataSource(
        [str(file)], LabelKind(kind), None, built_in(), on_ledger=ledgers.append, columns=columns
    )
    return load_groups(source), ledgers[0]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_carries_it_under_any_name(kind, tmp_path):
    for column, names in (("annotator", {}), ("worker", {"annotator": "worker"})):
        rows = [{**LAYOUTS[kind], column: name} for name in ("ada", 7, None)]
        groups, ledger = groups_of(tmp_path, rows, kind, names=names)
        assert [group.annotator for group in groups] == ["ada", "7", ""]
        assert column not in ledger.unread


def test_a_column_of_several_people_is_nobodys_and_said_to_be_unread(tmp_path):
    rows = [{**LAYOUTS["pairs"], "annotator": ["ada", "bob"]}]
    groups, ledger = groups_of(tmp_path, rows, "pairs")
    assert groups[0].annotator == ""
    assert ledger.unread["annotator"] == 1


def test_rows_of_others_are_set_aside_by_name_or_by_hash(tmp_path):
    rows = [
        {**LAYOUTS["pairs"], "annotator": name} for name in ("ada", "bob", annotator_key("ada"))
    ]
    for only in ("ada", annotator_key("ada")):
        groups, _ = groups_of(tmp_path, rows, "pairs", annotators=AnnotatorFilter(only=only))
        assert [group.annotator for group in groups] == ["ada", annotator_key("ada")]
    groups, ledger = groups_of(
        tmp_path, rows, "pairs", annotators=AnnotatorFilter(without=("ada",))
    )
    assert [group.annotator for group in groups] == ["bob"]
    assert "of an annotator who is left out" in ledger.table()
    assert "ada" not in ledger.table()
    assert not ledger.notes
    with pytest.raises(DataError):
        groups_of(tmp_path, rows, "pairs", annotators=AnnotatorFilter(only="eve"))
    with pytest.raises(ConfigError, match="who is among"):
        AnnotatorFilter("ada", ("ada",))


def test_a_name_that_is_nobodys_is_said_to_leave_nobody_out(tmp_path):
    rows = [{**LAYOUTS["pairs"], "annotator": name} for name in ("ada", "bob", "cid")]
    left_out = AnnotatorFilter(without=("bob", "Ada", annotator_key("bob"), "cid "))
    groups, ledger = groups_of(tmp_path, rows, "pairs", annotators=left_out)
    assert [group.annotator for group in groups] == ["ada", "cid"]
    names = [f"data.without_annotators[{place}]" for place in (1, 3)]
    assert [note.split(", ")[0] for note in ledger.notes] == [
        f"no row is of the annotator {name}" for name in names
    ]
    assert f"note: no row is of the annotator {names[0]}" in ledger.table()
    assert Ledger.from_state(ledger.to_state()).reasons == ledger.reasons
    both = AnnotatorFilter("ada", ("bob",))
    groups, ledger = groups_of(tmp_path, rows, "pairs", annotators=both)
    assert ([group.annotator for group in groups], ledger.notes) == (["ada"], [])


def test_numbers_with_gaps_between_them_are_numbers_still(tmp_path):
    """A column of ids in which some rows have none is of floats in Parquet files that pandas has written."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {**dict.fromkeys(("prompt", "chosen", "rejected"), "x"), "annotator": [7, None, 8]}
    )
    frame["chosen"] = ["a", "b", "c"]
    assert frame["annotator"].dtype == "float64"
    file = tmp_path / "rows.parquet"
    frame.to_parquet(file)
    columns = ColumnSettings(annotators=AnnotatorFilter(without=("7",)))
    source = DataSource([str(file)], LabelKind.PAIRS, None, built_in(), columns=columns)
    assert [group.annotator for group in load_groups(source)] == ["", "8"]


def test_it_survives_files_and_rows():
    group = Group("a", ["b"], annotator="ada")
    assert group_from_json(group_to_json(group)) == group
    assert as_row(group)["annotator"] == "ada"
    # the column may have come under another name, beside one of that name that says something else
    for extra in ({}, {"annotator": " ada "}, {"annotator": "bob"}, {"annotator": ["ada", "bob"]}):
        assert Groups()(as_row(group._replace(extra=extra))).annotator == "ada"
    assert as_row(Group("a", ["b"], annotator="7", extra={"annotator": 7}))["annotator"] == 7
    assert Groups()(as_row(Group("a", ["b"]))).annotator == ""


def test_a_record_of_a_round_gives_the_group_back_with_whose_labels_they_are():
    group = Group("a", ["b", "c"], annotator="ada", extra={IDS_COLUMN: [[1], [2]]}, source="x:1")
    result = FeedbackResult(group._replace(pairs=(Pair(1, 0),)))
    again = group_from_record(json.loads(json.dumps(make_record(group, result))))
    assert again.annotator == "ada"
    assert (again.pairs, again.source) == ((Pair(1, 0),), "x:1")


def test_it_counts_for_the_digest():
    group = Group("a", ["b"], annotator="ada")
    tree = Tree([1], [[2]], [[True]], group)
    other = tree._replace(group=group._replace(annotator="bob"))
    nobody = tree._replace(group=group._replace(annotator=""))
    assert len({tree_digest(one) for one in (tree, other, nobody)}) == 3


@given(some.text(min_size=1), some.text(min_size=1))
def test_hashes_differ_where_names_do_and_stand_for_themselves(first, second):
    keys = [annotator_key(name, "salt") for name in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)
    assert [annotator_key(key, "other") for key in keys] == keys


def test_the_salt_is_drawn_once_and_for_this_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(annotators, "SALT_FILE", tmp_path / "config/salt")
    salt = local_salt({})
    assert len(salt) == 64
    assert local_salt({}) == salt
    assert stat.S_IMODE(os.stat(tmp_path / "config/salt").st_mode) == 0o600
    assert [path.name for path in (tmp_path / "config").iterdir()] == ["salt"]
    assert local_salt({"LIT_ALIGN_SALT": "shared"}) == "shared"


def test_a_place_that_holds_no_salt_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(annotators, "SALT_FILE", tmp_path / "file/salt")
    with pytest.raises(ConfigError, match="LIT_ALIGN_SALT"):
        local_salt({})
