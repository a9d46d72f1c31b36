"""Every row is found with its line, and what cannot be read is a row with a reason or a refusal that names the file."""

import csv
import gzip
import io
import json
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.csv_reader import find_delimiter
from lit_align.data.hub_reader import NAME
from lit_align.data.readers import read_rows
from lit_align.errors import DataError, Malformed


def rows(path):
    return [
        (source.removeprefix(f"{path}:"), str(row) if isinstance(row, Malformed) else row)
        for source, row in read_rows(str(path))
    ]


LINES = (
    b'\xef\xbb\xbf{"a": 1}\n\n[1]\r\n{"a": \n{"a": "\xff"}\n'
    + b"[" * 100_000
    + b'\n{"a": "\xc3\xa9"}'
)
READ = [
    ("1", {"a": 1}),
    ("3", "not an object with columns (got list)"),
    ("4", "not JSON"),
    ("5", "not UTF-8 (it looks like CP1252)"),
    ("6", "nested deeper than 100 levels"),
    ("7", {"a": "é"}),
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES, mtime=0) if name.endswith("gz") else LINES)
    assert rows(path) == READ


def test_json_array_knows_its_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[\n  {"a":\n   1},\n {"a": true}, 3\n,\n{}]\n')
    found = [
        ("2", {"a": 1}),
        ("4", {"a": True}),
        ("4", "not an object with columns (got int)"),
        ("6", {}),
    ]
    assert rows(path) == found


def test_json_lines_named_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\n{"a": 1}\n{"a": 2}\n')
    assert rows(path) == [("2", {"a": 1}), ("3", {"a": 2})]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ('{"version": "1.1",\n "n": 2, "data" : [\n  {"a": 1},\n {"a": [{}]}]}\n', ("3", "4")),
        ('{"rows": [{"a": 1}, {"a": [{}]}]}', ("1", "1")),
    ],
)
def test_an_object_with_one_list_of_rows(tmp_path, content, lines):
    path, keys = tmp_path / "a.json", []
    path.write_text(content)
    assert rows(path) == [(lines[0], {"a": 1}), (lines[1], {"a": [{}]})]
    assert len(list(read_rows(str(path), keys.append))) == 2
    assert keys in (["data"], ["rows"])


def test_one_row_on_one_line_stays_a_row(tmp_path):
    path = tmp_path / "a.json"
    for row in (
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"prompt": "a", "responses": [{"text": "b"}]},
    ):
        path.write_text(json.dumps(row))
        assert rows(path) == [("1", row)]


@pytest.mark.parametrize("content", ["[]", "[ ]\n"])
def test_an_empty_array_has_no_rows(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    assert rows(path) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"a": 1},\n{"a": }]', r"a.json:2 is not JSON"),
        ("a.json", b'[{"a": 1},\n{"a": 2}', r"row at line 2 is followed by neither"),
        (
            "a.json",
            b'{\n"data": [1]\n}',
            r"is one object, not rows \(its keys: data\); save the array",
        ),
        ("a.json", b'{\n"prompt": "a", "answers": [{"text": 1}]\n}', r"is one object, not rows"),
        ("a.json", b'{\n"messages": [{"role": "user", "content": "a"}]\n}', r"is one object, not"),
        ("a.json", b'{\n"data": [{"a": 1}], "data": [1]\n}', r"is one object, not rows"),
        (
            "a.json",
            b'{"train": [{"a": 1}],\n"test": [{"a": 2}]}',
            r"with several lists of rows: train, test; .* as in: jq .train .*a.json > rows.json",
        ),
        ("a.json", b"hello", r"neither a JSON array of rows nor one row a line"),
        ("a.json", b"", r"neither a JSON array of rows nor one row a line"),
        (
            "a.json",
            b'["\xff"]',
            r"a.json is not UTF-8 and looks like CP1252; convert it: iconv -f CP1252.* > a-utf8",
        ),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], r"is broken"),
        ("a.csv", b'a,b\n1,2\n"3', r"a.csv:3 cannot be read"),
        ("a.parquet", b"PAR1", r"is broken after row 0"),
        ("a.txt", b"hello", r"use one of .json, .jsonl"),
    ],
)
def test_files_broken_as_a_whole_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(str(path)))


def test_csv_counts_lines_inside_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n"1\n2",x\n3\n4,5,6\n7,' + b"y" * 200_000 + b"\n")
    wrong = "not as many cells as columns"
    assert rows(path) == [
        ("2", {"a": "1\n2", "b": "x"}),
        ("4", wrong),
        ("5", wrong),
        ("6", {"a": "7", "b": "y" * 200_000}),
    ]


SEMICOLONS = 'prompt;answer\n"a; b, c";d, e, f\ng;h\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", SEMICOLONS),
        ("a.csv", SEMICOLONS.replace(";", "\t")),
        ("a.csv", SEMICOLONS.replace(";", "|")),
        ("a.csv", 'prompt,answer\n"a; b, c","d, e, f"\ng,h\n'),
        ("a.tsv", SEMICOLONS.replace(";", "\t")),
    ],
)
def test_csv_delimiters_are_found(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    (_, first), (line, second) = rows(path)
    assert list(first) == ["prompt", "answer"]
    assert first["answer"] == "d, e, f"
    assert (line, second) == ("3", {"prompt": "g", "answer": "h"})


texts = st.text(st.sampled_from("ab ,;|\t\n'\""), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=6),
    st.sampled_from(",;|\t"),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_quoted_text_never_hides_the_delimiter(records, delimiter, quote_all):
    """Whatever the cells hold, the header's delimiter is found, since it gives every record as many cells."""
    file = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=delimiter, quoting=quoting).writerows(
        [("prompt", "chosen", "rejected"), *records]
    )
    assert find_delimiter(file.getvalue()) == delimiter


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.csv.gz"])
def test_utf_16_is_named_with_the_remedy(tmp_path, name):
    path = tmp_path / name
    content = '[{"a": 1}]'.encode("utf-16")
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(DataError, match=r"looks like UTF-16; convert it: .*iconv -f UTF-16"):
        list(read_rows(str(path)))


def test_windows_csv_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("prompt,answer\na,b\ncafé,d\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"looks like CP1252; convert it: iconv -f CP1252"):
        list(read_rows(str(path)))


def test_repeated_names_are_refused(tmp_path):
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"a": 1, "a": 2}\n{"b": {"c": 1, "c": 1}}\n{"a": 1}')
    array = tmp_path / "a.json"
    array.write_text(f"[{lines.read_text().replace(chr(10), ', ')}]")
    for path in (lines, array):
        assert [row for _, row in rows(path)] == [
            "an object with the key 'a' twice",
            "an object with the key 'c' twice",
            {"a": 1},
        ]
    table = tmp_path / "a.csv"
    table.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match="several columns called 'a'"):
        rows(table)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    given = [{"a": [{"role": "user", "content": "x"}], "b": None}, {"a": [], "b": True}]
    parquet.write_table(pyarrow.Table.from_pylist(given), path)
    assert rows(path) == [("1", given[0]), ("2", given[1])]


@pytest.mark.parametrize(
    "path", ["no/such/file.jsonl", "./nothing", "missing.json", "/tmp/no such", "a/b/c/d"]
)
def test_a_missing_path_is_not_looked_for_on_the_hub(path):
    with pytest.raises(DataError, match=r"there is no file .*correct the path"):
        read_rows(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder; name the files in it"):
        read_rows(str(tmp_path))


def test_a_hub_name_without_the_hub_is_refused_in_one_sentence():
    with pytest.raises(
        DataError,
        match=r"lit-align-tests/none \(split test\) is neither a file nor a data set on the hub",
    ):
        list(read_rows("lit-align-tests/none:test"))


def test_hub_rows_come_with_split_and_number(tmp_path, monkeypatch):
    """A data set repository of the hub is a folder of files, which the library reads the same way from here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "pairs").mkdir(parents=True)
    (tmp_path / "someone" / "pairs" / "test.jsonl").write_text(json.dumps({"a": 1}) + "\n")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert list(read_rows("someone/pairs:test")) == [("someone/pairs:test:1", {"a": 1})]


def test_hub_configurations_and_folders(tmp_path, monkeypatch):
    """A configuration of the data set's card, or a folder of it, each with a split."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "someone" / "birds"
    for name in ("owls", "crows"):
        (folder / name).mkdir(parents=True)
        (folder / name / "rows.jsonl").write_text(json.dumps({"a": name}) + "\n")
    card = "---\nconfigs:\n- config_name: main\n  data_files: owls/*.jsonl\n- config_name: other\n"
    (folder / "README.md").write_text(card + "  data_files: crows/*.jsonl\n---\n")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert list(read_rows("someone/birds/main:train")) == [
        ("someone/birds/main:train:1", {"a": "owls"})
    ]
    assert list(read_rows("someone/birds/crows:train")) == [
        ("someone/birds/crows:train:1", {"a": "crows"})
    ]
    with pytest.raises(
        DataError, match=r"Config name is missing.*main.*name/config:split@revision"
    ):
        list(read_rows("someone/birds:train"))


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("gsm8k", ("gsm8k", None, None, None)),
        ("openai/gsm8k/main", ("openai/gsm8k", "/main", None, None)),
        ("openai/gsm8k:test[:10%]@refs/pr/1", ("openai/gsm8k", None, "test[:10%]", "refs/pr/1")),
        ("a/b/c:d@1.0", ("a/b", "/c", "d", "1.0")),
        ("a/b@main", ("a/b", None, None, "main")),
    ],
)
def test_names_on_the_hub(path, parts):
    match = NAME.fullmatch(path)
    assert match.group("name", "config", "split", "revision") == parts


def test_real_rows_of_mixed_types_survive(shared_data):
    path = shared_data / "pandalm" / "testset-v1.json"
    found = rows(path)
    assert [row for _, row in found] == json.loads(path.read_text())
    assert (
        sum(isinstance(row[side], bool) for _, row in found for side in ("response1", "response2"))
        == 6
    )
    lines = path.read_text().splitlines()
    assert all(lines[int(line) - 1].strip() == "{" for line, _ in found)


def test_rows_under_a_key_are_in_memory_one_at_a_time(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"data": [{"a": k} for k in range(20_000)]}, indent=1))
    tracemalloc.start()
    try:
        reading = read_rows(str(file))
        assert next(reading)[1] == {"a": 0}
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (
        size < 4 * file.stat().st_size
    )  # the rows as objects are ten times as large as their text
    assert sum(1 for _ in reading) == 19_999


def test_a_file_of_a_similar_name_in_the_folder_is_named(tmp_path):
    for name in ("paare.csv", "antworten.jsonl", "paare.txt"):
        (tmp_path / name).write_text("a\n")
    closest = re.escape(f"did you mean {tmp_path / 'paare.csv'}?")
    with pytest.raises(DataError, match=closest):
        read_rows(str(tmp_path / "parre.csv"))
    with pytest.raises(DataError, match="correct the path"):
        read_rows(str(tmp_path / "votes.csv"))
    with pytest.raises(DataError, match="correct the path"):
        read_rows(str(tmp_path / "none" / "paare.csv"))
