"""``lit-align judge``: labels that can be read again, what they cost, and how far they agree with those in the data."""

import json

import pytest

from lit_align.__main__ import main
from lit_align.data.formats.groups import Groups, as_row
from lit_align.feedback.agreement import label_groups, measure_agreement
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.recorded import Recorded
from lit_align.rewards.length import Length
from tests.evaluation.real import write
from tests.judges.servers import serving

ROWS = [
    {"prompt": "Short?", "responses": ["one two", "one"], "pairs": [[1, 0]], "level": 3},
    {"prompt": "Long?", "responses": ["one two", "one"], "pairs": [[0, 1, 0.75]]},
    {"prompt": "Even?", "responses": ["one two", "two one"], "pairs": [[0, 1]]},
    {"prompt": "None?", "responses": ["one", "two one"]},
]
SHORTER = ("--feedback=FromReward", "--feedback.reward=Length", "--feedback.reward.max_words=1")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def rows(tmp_path) -> str:
    return write(tmp_path / "rows.jsonl", ROWS)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_records_and_agreement(rows, tmp_path, capsys):
    main(["judge", *SHORTER, f"--data={rows}", f"--run={tmp_path / 'runs'}", "--batch_size=2"])
    folder = tmp_path / "runs" / "0"
    labelled = lines(folder / "labelled.jsonl")
    assert [row["pairs"] for row in labelled] == [
        [[1, 0, 1.0, 1.0]],
        [[1, 0, 1.0, 1.0]],
        [[0, 1, 1.0, 1.0]],
    ]
    assert labelled[0]["level"] == 3
    assert [Groups()(row).pairs[0][:2] for row in labelled] == [(1, 0), (1, 0), (0, 1)]
    assert len(lines(folder / "records.jsonl")) == 4
    found = json.loads((folder / "judge.json").read_text())
    assert found["asked"]["set_aside"] == {"a tie": 1}
    of = found["agreement"]
    assert (of["comparisons"], of["accuracy"], of["ties"], of["unread"]) == (
        3,
        0.5,
        1,
        0,
    )  # right, wrong, tie
    out = capsys.readouterr().out
    assert "50.0 % of 3 comparisons agree" in out
    assert "3 of 4 groups have a label, from 4 questions" in out
    assert "1 set aside: a tie" in out


def test_a_server_is_paid_once_and_the_price_is_shown(rows, tmp_path, capsys):
    with serving() as server:
        served = [
            f"--feedback.model.url={server.url}",
            "--feedback.model.model=m",
            f"--feedback.model.cache={tmp_path / 'a'}",
        ]
        prices = ["--feedback.model.prices=[1000,500]"]
        command = [
            "judge",
            "--feedback=Judge",
            "--feedback.model=OpenAIServer",
            *served,
            *prices,
            f"--data={rows}",
        ]
        main([*command, f"--run={tmp_path / 'runs'}"])
        out = capsys.readouterr().out
        assert (
            "8 attempts at a server, 0 answers from the file, cost 0.0880" in out
        )  # 8 (10 * 1000 + 2 * 500) / 1e6
        assert (
            "100.0 % of pairs depend on their order; 100.0 % of verdicts are for the first" in out
        )
        main([*command, f"--run={tmp_path / 'runs'}"])
        assert (
            "0 attempts at a server, 8 answers from the file, cost 0.0000"
            in capsys.readouterr().out
        )
        assert sum(server.calls.values()) == 8


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "there is no feedback; give a YAML that sets it with -c FILE"),
        (["--feedback=Jugde"], "nothing is called 'Jugde'; did you mean Judge?"),
        (
            ["--feedback=Length"],
            "Length is of another kind than what is needed here; it is a reward, which model.reward takes",
        ),
        (["--feedback=Judge"], "Judge needs model; set it in the YAML or on the command line"),
        (
            [*SHORTER, "--label_kind=prompts"],
            "label_kind is 'prompts'; choose from 'pairs', 'desirable', 'ranking', ",
        ),
        (["--data.column={}"], "unknown key 'data.column'; did you mean columns?"),
        (["--data.overlong=drop"], "unknown key 'data.overlong'; there are batch_size, columns, "),
        (["--run.x=3"], "unknown key 'run.x'; run has no settings below it"),
        (["--batch_size.x=3"], "unknown key 'batch_size.x'; batch_size has no settings below it"),
        (["--label_kind.x=3"], "unknown key 'label_kind.x'; label_kind has no settings below it"),
        (["--column={a: b}"], "unknown key 'column'; did you mean columns?"),
    ],
)
def test_a_mistake_gets_one_sentence(more, sentence, rows, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["judge", f"--data={rows}", f"--run={tmp_path / 'runs'}", *more])
    said = capsys.readouterr().err
    assert said.startswith(f"lit-align: {sentence}")
    assert (stopped.value.code, said.count("\n")) == (2, 1)
    assert not (tmp_path / "runs").exists()


def test_agreement_of_a_judge_that_is_always_right_and_of_one_that_never_is():
    groups = [
        Groups()({"prompt": f"{k}?", "responses": ["one two", "one"], "pairs": [[1, 0]]})
        for k in range(40)
    ]
    right, wrong = FromReward(Length(max_words=1)), FromReward(Length(max_words=9, min_words=9))
    for judge, accuracy, kappa in ((right, 1.0, 1.0), (Recorded(), 1.0, 1.0), (wrong, 0.0, -1.0)):
        of = measure_agreement(groups, label_groups(judge, groups, "pairs", 7))
        assert of["accuracy"] == accuracy
        assert of["kappa"] == pytest.approx(kappa)
    assert (
        measure_agreement(
            [group._replace(pairs=()) for group in groups], label_groups(right, groups, "pairs", 7)
        )
        is None
    )


@pytest.mark.parametrize(
    "row",
    [
        *ROWS,
        {"prompt": "?", "responses": ["a", "b"], "ranking": [1, 2], "target": 1},
        {"prompt": "?", "responses": ["a"], "desirable": [True], "ratings": [{"x": 1.0}]},
    ],
)
def test_a_group_is_written_as_it_is_read(row):
    assert Groups()(as_row(Groups()(row))) == Groups()(row)


def test_columns_are_named_with_and_without_data(tmp_path, capsys):
    """An option as fit has it; and the remedy for other columns names the option of this command."""
    path = tmp_path / "rows.jsonl"
    row = {"Frage": "Hello?", "gut": "Hi", "schlecht": "What is it", "id": 1}
    path.write_text(json.dumps(row) + "\n")
    command = ["judge", *SHORTER, f"--data={path}", f"--run={tmp_path / 'runs'}"]
    columns = "{prompt: Frage, chosen: gut, rejected: schlecht}"
    for prefix in ("", "data."):
        main([*command, f"--{prefix}columns={columns}", f"--{prefix}ignore_columns=[id]"])
        assert "1 of 1 groups have a label" in capsys.readouterr().out
    main([*command, "--data.columns", columns, "--data.max_malformed", "0.5"])
    assert "1 of 1 groups have a label" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1"):
        main(command)
    remedy = capsys.readouterr().err
    assert (
        "lists them) with --columns, list those that are not to be read in --ignore_columns"
        in remedy
    )
    assert "data.columns" not in remedy
