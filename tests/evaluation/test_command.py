"""``lit-align evaluate reward-bench`` from the command line: its table, its folder, and what it says to mistakes."""

import json

import pytest
import yaml

from lit_align.__main__ import main
from tests.evaluation import real

PNG = b"\x89PNG\r\n\x1a\n"
ROWS = (
    ("hep-go", "Short?", "one two", "one two three"),
    ("hep-go", "Short?", "one two", "one two three four"),
    ("hep-go", "Long?", "one two three", "one"),
    ("donotanswer", "Even?", "one two", "two one"),
)


@pytest.fixture
def rows(tmp_path):
    """Four comparisons in the benchmark's layout, and a line that is none."""
    models = {"chosen_model": "a", "rejected_model": "b"}
    made = [
        {
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "subset": subset,
            "id": k,
            **models,
        }
        for k, (subset, prompt, chosen, rejected) in enumerate(ROWS)
    ]
    path = real.write(tmp_path / "rows.jsonl", made)
    with open(path, "a") as file:
        file.write("{broken\n")
    return path


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("COLUMNS", "100")


def evaluate(folder, *more) -> dict:
    """Run the command; what it wrote."""
    main(["evaluate", "reward-bench", f"--run={folder}", *more])
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    assert {path.name for path in newest.iterdir()} == {
        "config.yaml",
        "ledger.json",
        "ledger_rows.jsonl",
        "reward_bench.json",
        "scores.png",
        "reliability.png",
    }
    assert all(path.read_bytes().startswith(PNG) for path in newest.glob("*.png"))
    return json.loads((newest / "reward_bench.json").read_text())


SHORTER = ("--reward=Length", "--reward.max_words=1")  # -(words - 1): fewer are better


def test_figures_ledger_and_table(rows, tmp_path, capsys):
    found = evaluate(
        tmp_path / "runs", *SHORTER, "--max_malformed=0.2", "--batch_size=3", "--data", rows
    )
    go, even = found["subsets"]["hep-go"], found["subsets"]["donotanswer"]
    assert (go["comparisons"], go["prompts"], go["accuracy"]) == (3, 2, pytest.approx(2 / 3))
    assert go["longer_wins"] == pytest.approx(1 / 3)
    assert go["length_correlation"] == pytest.approx(-1)
    assert (even["accuracy"], even["ties"], even["length_correlation"]) == (0.5, 1, None)
    assert found["all"]["accuracy"] == pytest.approx(2.5 / 4)
    assert found["sections"].keys() == {"Safety", "Reasoning"}
    assert found["reward"] == "Length(max_words=1, min_words=0)"
    book = json.loads((tmp_path / "runs" / "0" / "ledger.json").read_text())
    assert book["fates"] == {
        "kept": 4,
        "truncated": 0,
        "malformed": 1,
        "set aside": 0,
        "overlong": 0,
    }
    table = capsys.readouterr().out
    notice = "preferring the shorter response is right in 62.5 %: length explains its accuracy"
    assert notice in " ".join(table.split())
    assert "not JSON" in table
    assert "tokens" not in table
    lines = {line.split("  ")[0]: line.split() for line in table.splitlines()}
    assert lines["hep-go"][:3] == ["hep-go", "3", "66.7"]
    assert lines["Safety (1 of 5)"][4:] == ["50.0", "5.5\u201394.5"]  # Wilson's of one tie: ± 0.445


def test_a_judge_of_pairs_is_judged_as_a_reward_is(rows, tmp_path, capsys):
    """Who prefers the shorter response, with certainty: its accuracy is the reward's, and its questions are counted."""
    more = ("--max_malformed=0.2", "--data", rows)
    reward = evaluate(tmp_path / "reward", *SHORTER, *more)
    found = evaluate(
        tmp_path / "judge",
        "--feedback=FromReward",
        *(word.replace("--", "--feedback.") for word in SHORTER),
        *more,
    )
    for part in ("subsets", "sections"):
        assert {name: of["accuracy"] for name, of in found[part].items()} == {
            name: of["accuracy"] for name, of in reward[part].items()
        }
    assert found["asked"]["questions"] == 4
    assert found["asked"]["set_aside"] == {"a tie": 1}
    assert found["calibration"]["bins"][-1]["sure"] == pytest.approx(1, abs=1e-5)
    assert "3 of 4 groups have a label, from 4 questions" in capsys.readouterr().out


def test_a_yaml_and_the_settings_it_saves_give_the_same_figures(rows, tmp_path):
    settings = {
        "reward": {"class_path": "Length", "init_args": {"max_words": 1}},
        "data": [rows],
        "max_malformed": 0.2,
    }
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(settings))
    runs = tmp_path / "runs"
    first = evaluate(runs, "-c", str(tmp_path / "judge.yaml"))
    again = evaluate(runs, "-c", str(runs / "0" / "config.yaml"))
    assert first == again
    assert sorted(path.name for path in runs.iterdir()) == ["0", "1"]


SETS = {
    "llmbar": real.llmbar,
    "pandalm": real.pandalm,
    "llmfao": real.llmfao,
    "hh_harmless": real.hh_harmless,
}


@pytest.mark.parametrize("name", SETS)
def test_on_real_comparisons_the_judge_of_length_is_the_baseline(name, shared_data, tmp_path):
    data = SETS[name](shared_data, tmp_path)
    longer = evaluate(
        tmp_path / "longer",
        "--reward=Length",
        "--reward.max_words=100000",
        "--reward.min_words=100000",
        f"--data={data}",
    )
    shorter = evaluate(tmp_path / "shorter", *SHORTER, f"--data={data}")
    for found, baseline in ((longer, "longer_wins"), (shorter, "shorter_wins")):
        for of in [found["all"], *found["subsets"].values()]:
            assert of["accuracy"] == pytest.approx(of[baseline])
            low, high = of["interval"]
            assert low < of["accuracy"] < high
            assert abs(of["length_correlation"]) == pytest.approx(1)
    assert longer["all"]["accuracy"] + shorter["all"]["accuracy"] == pytest.approx(1)
    if name == "llmbar":
        assert longer["subsets"].keys() == {"Base_9", "Base_10", "Constraint", "Negation", "Normal"}


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--reward=Lenght"], "nothing is called 'Lenght'; did you mean Length?"),
        (["--reward=DPO"], "DPO is of another kind than what is needed here; it is an objective, "),
        (["--reward=Length"], "Length needs max_words; set it in the YAML or on the command line"),
        ([*SHORTER, "--reward.mst=2"], "Length takes no 'mst'; there are max_words, min_words"),
        (
            ["--reward=Length", "--reward.max_words=0"],
            "min_words must be from 0 to max_words, and max_words at least 1, got 0 and 0",
        ),
        (
            ["--reward=os.system"],
            "os.system may not be named in settings, since it can run anything; remove it",
        ),
        (
            [*SHORTER, "--format=RewardBensh"],
            "nothing is called 'RewardBensh'; did you mean RewardBench?",
        ),
        ([*SHORTER, "--batchsize=2"], "unknown key 'batchsize'; did you mean batch_size?"),
        (
            [*SHORTER, "--batch_size=0"],
            "batch_size is 0 and max_malformed 0.01; they are at least 1, and from 0 to 1",
        ),
        (
            [*SHORTER, "--max_malformed=much"],
            "max_malformed is 'much', which is no float; write a number",
        ),
        (["-c", "nowhere.yaml"], "there is no file "),
        ([], "there is no judge; give --reward or --feedback"),
        ([*SHORTER, "--feedback=Recorded"], "there are two judges; give --reward or --feedback"),
    ],
)
def test_a_mistake_gets_one_sentence(more, sentence, rows, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "reward-bench", f"--data={rows}", f"--run={tmp_path / 'runs'}", *more])
    said = capsys.readouterr().err
    assert said.startswith(f"lit-align: {sentence}")
    assert said.count("\n") == 1
    assert stopped.value.code == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("args", "code"), [(["evaluate"], 2), (["evaluate", "rewardbench"], 2)])
def test_what_can_be_evaluated_is_said(args, code, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == code
    names = "cross-modal, frontier, personal, reward-bench, suite, tournament, win-rate"
    assert capsys.readouterr().err.endswith(f"; there are {names}\n")


def test_help_says_what_can_be_evaluated(capsys):
    main(["evaluate", "--help"])
    assert (
        capsys.readouterr().out
        == "lit-align evaluate frontier | personal | reward-bench | suite | tournament | win-rate | cross-modal; each "
        "of them has --help\n"
    )


def test_too_many_malformed_rows_stop_it_after_the_table(rows, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "reward-bench", f"--data={rows}", f"--run={tmp_path / 'runs'}", *SHORTER])
    assert stopped.value.code == 1
    out, error = capsys.readouterr()
    assert "malformed            1" in out
    assert "are malformed, over max_malformed 1.00%" in error
    assert (tmp_path / "runs" / "0" / "ledger.json").exists()
