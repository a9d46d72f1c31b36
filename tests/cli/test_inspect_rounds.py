"""``lit-align inspect --rounds``: every round counted, records shown as they are."""

import json

import pytest

from lit_align.__main__ import main


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rounds").mkdir()
    for number in (0, 1, 10):
        asked = {"source": "a.jsonl:1", "round": number, "step": 4 * number, "prompt": "Bird?"}
        told = [
            {
                "source": "OpenAIServer compare",
                "prompt": "x",
                "responses": [0, 1],
                "probability": 0.9,
                "cost": 0.25,
            }
        ]
        rows = [
            {
                "responses": ["[bold]owl", "bat"],
                "pairs": [[0, 1, 0.9, 0.0]],
                "samples": ["crow"],
                "records": told,
            },
            {"responses": ["owl", "owl"], "set_aside": "a tie", "records": []},
        ]
        (tmp_path / "rounds" / f"{number}.jsonl").write_text(
            "".join(json.dumps(asked | row) + "\n" for row in rows)
        )
    return tmp_path


def test_rounds_are_counted_and_records_shown(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    main(["inspect", "--rounds", str(folder)])
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert [line for line in lines if line[-2:] == ["a", "tie"] and line[0].isdigit()] == [
        [number, step, "2", "1", "0.2500", "1", "a", "tie"]
        for number, step in (("0", "0"), ("1", "4"), ("10", "40"))
    ]
    assert "round 10: a.jsonl:1" in out
    assert '(0) "[bold]owl"' in out
    assert 'also sampled: "crow"' in out
    assert "pairs: [[0, 1, 0.9, 0.0]]" in out
    assert "set aside: a tie" in out
    main(["inspect", "--rounds", str(folder), "--round", "1", "--records", "1"])
    out = capsys.readouterr().out
    assert "round 1: a.jsonl:1" in out
    assert "set aside: " not in out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--round=2"], "there is no round 2 in "),
        ([], "there are no rounds in nowhere; give the numbered folder of a"),
    ],
)
def test_a_mistake_gets_one_sentence(more, sentence, folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", "--rounds", str(folder) if more else "nowhere", *more])
    said = capsys.readouterr().err
    assert said.startswith(f"lit-align: {sentence}")
    assert (stopped.value.code, said.count("\n")) == (2, 1)
