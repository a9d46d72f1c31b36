"""Cells that stand for something else: lists of messages as text, words for missing values, numbers as text."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.cell_text import parse_cells
from lit_align.data.formats import built_in
from lit_align.data.read_groups import DataSource, read_groups

CHAT = [{"role": "user", "content": "It's 2 + 2?"}, {"role": "assistant", "content": 'A "4".'}]


def read(path, rows, label_kind):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    source = DataSource([str(path)], label_kind, formats=built_in())
    ledger = source.new_ledger()
    groups = [group for group, _ in read_groups(source, ledger)]
    return groups, dict(ledger.reasons)


@pytest.mark.parametrize(
    "text",
    [json.dumps(CHAT), repr(CHAT), f" {json.dumps(CHAT, indent=1)}", f"[{CHAT[0]}\n {CHAT[1]}]"],
    ids=["JSON", "Python", "indented", "numpy"],
)
def test_messages_as_text_are_messages(tmp_path, text):
    (group,), _ = read(tmp_path / "a.csv", [{"messages": text}], "demonstrations")
    assert group.prompt == CHAT[:1]
    assert group.responses == [CHAT[1:]]
    row = {"prompt": text.replace("assistant", "user"), "chosen": "a", "rejected": "b"}
    (group,), _ = read(tmp_path / "b.csv", [row], "pairs")
    assert [turn["content"] for turn in group.prompt] == [turn["content"] for turn in CHAT]


@pytest.mark.parametrize("column", ["prompt", "chosen"])
def test_messages_that_a_spreadsheet_cut_off_are_malformed(tmp_path, column):
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2
    cut = rows[0] | {column: json.dumps(CHAT)[:-20]}
    groups, reasons = read(tmp_path / "a.csv", [*rows, cut], "pairs")
    assert len(groups) == 2
    part = "prompt" if column == "prompt" else "response"
    reason = f"'{part}' looks like a list of messages written as text, but is not complete"
    assert reasons == {("malformed", reason): 1}


turn = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=9)}
)


@given(st.lists(turn, min_size=1, max_size=3), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_list_of_messages_survives_its_text(turns, as_json):
    text = json.dumps(turns) if as_json else repr(turns)
    assert parse_cells({"messages": text}) == {"messages": turns}


@pytest.mark.parametrize("text", ["[1, 2]", "[{'a': 1}]", "Write [{'role': 'user'}].", "[", ""])
def test_other_text_stays_text(text):
    assert parse_cells({"prompt": text}) == {"prompt": text}


@pytest.mark.parametrize("word", ["nan", "NaN", "N/A", "NULL", "None", "<NA>"])
@pytest.mark.parametrize("column", ["prompt", "chosen"])
def test_words_for_missing_values_are_set_aside(tmp_path, word, column):
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    groups, reasons = read(tmp_path / "a.csv", [row, row | {column: word}], "pairs")
    assert len(groups) == 1
    part = "prompt" if column == "prompt" else "response"
    reason = f"the {part} is {word!r}, a word for a missing value"
    assert reasons == {("set aside", reason): 1}


def test_numbers_and_labels_of_csv_are_read(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": m} for m in ("1.5", "", "nan")
    ]
    groups, reasons = read(tmp_path / "a.csv", rows, "pairs")
    assert [group.pairs[0].margin for group in groups] == [1.5, 0.0]
    assert reasons == {("malformed", "'margin' is not finite (got nan)"): 1}
    rows = [
        {"prompt": "a", "completion": "b", "label": label} for label in ("1", "no", "Yes", "0.0")
    ]
    groups, _ = read(tmp_path / "b.csv", rows, "desirable")
    assert [group.desirable[0] for group in groups] == [True, False, True, False]
    rows = [{"prompt": "a", "response": "b", "helpfulness": "3", "verbosity": ""}]
    groups, _ = read(tmp_path / "c.csv", rows, "ratings")
    assert groups[0].ratings == ({"helpfulness": 3.0},)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "-inf", True])
def test_margins_are_finite(tmp_path, value):
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "margin": value}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    source = DataSource([str(path)], "pairs", formats=built_in())
    ledger = source.new_ledger()
    assert not list(read_groups(source, ledger))
    assert ledger.fates["malformed"] == 1
