"""JSON and JSON Lines files round-trip, and their bytes are those that were asked for."""

import datetime

from lit_align.jsonl import append_jsonl, read_json, read_jsonl, write_json, write_jsonl

ROWS = [{"text": "caf\u00e9\u2028two"}, {"text": "", "number": 0.1}]


def test_rows_come_back_even_with_odd_line_separators_in_them(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, ROWS[:1])
    append_jsonl(path, ROWS[1:])
    assert read_jsonl(path) == ROWS
    assert path.read_bytes().count(b"\n") == 2


def test_ascii_only_escapes_everything_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, ROWS, ascii_only=True)
    assert path.read_bytes().isascii()
    assert read_jsonl(path) == ROWS


def test_a_date_is_written_as_text(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"day": datetime.date(2026, 1, 2)})
    assert path.read_bytes() == b'{\n  "day": "2026-01-02"\n}\n'
    assert read_json(path) == {"day": "2026-01-02"}
