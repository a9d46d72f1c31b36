"""Every row is found with its line, and what cannot be read is a row with a reason or a refusal that names the file."""

import gzip
import json

import pytest

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
    ("5", "not UTF-8"),
    ("6", "not JSON"),
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
        ("a.json", b'{\n"data": [{"a": 1}]\n}', r"is one object, not rows"),
        ("a.json", b"hello", r"neither a JSON array of rows nor one row a line"),
        ("a.json", b"", r"neither a JSON array of rows nor one row a line"),
        ("a.json", b'["\xff"]', r"is broken.*UTF-8"),
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


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    given = [{"a": [{"role": "user", "content": "x"}], "b": None}, {"a": [], "b": True}]
    parquet.write_table(pyarrow.Table.from_pylist(given), path)
    assert rows(path) == [("1", given[0]), ("2", given[1])]


@pytest.mark.parametrize(
    "path", ["no/such/file.jsonl", "./nothing", "missing.json", "/tmp/no such", "a/b/c"]
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
