"""``lit-align evaluate tournament`` and two turns: on a real run and its base, with judges that are known."""

import json

import pytest

import lit_align
from lit_align.__main__ import main
from lit_align.evaluation.suite.multi_turn import MultiTurn
from lit_align.evaluation.tournament import make_duels, outcome, rate
from lit_align.judges.openai_server import OpenAIServer
from tests.evaluation.real import write
from tests.judges.servers import serving

ROWS = [
    {"question_id": 1, "category": "a", "turns": ["Name bees?", "And now rain?"]},
    {"question_id": 2, "category": "a", "turns": ["Slate or moss?", "Why?"]},
    {"prompt": "Only one turn?"},
]
SHORTER = ("--feedback=FromReward", "--feedback.reward=Length", "--feedback.reward.max_words=1")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")


def compete(folder, *more: str) -> tuple[dict, list[dict]]:
    """Run the command; the ratings and the duels."""
    main(["evaluate", "tournament", f"--run={folder}", "--max_new_tokens=6", *more])
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    duels = [json.loads(line) for line in (newest / "duels.jsonl").read_text().splitlines()]
    return json.loads((newest / "tournament.json").read_text()), duels


def test_a_run_against_its_base_over_two_turns(sft, tmp_path, capsys):
    runs = ("--runs", "base", f"sft={sft}", f"again={sft}")
    data = f"--data={write(tmp_path / 'rows.jsonl', ROWS)}"
    report, duels = compete(tmp_path / "runs", *runs, data, *SHORTER)
    assert report["duels"] == len(duels) == 3 * (2 + 2 + 1)
    for duel in duels:
        words = [len(text.split()) for text in duel["responses"]]
        expected = (words[0] < words[1]) + 0.5 * (words[0] == words[1])
        expected = 0.5 if max(words) <= 1 else expected
        assert duel["first_wins"] == expected
        if (duel["first"], duel["second"]) == ("sft", "again"):
            assert duel["first_wins"] == 0.5  # the same answers
    # the second turn is asked after the model's own first answer
    stage = lit_align.load(sft)
    turns = ROWS[0]["turns"]
    messages = [{"role": "user", "content": turns[0]}]
    answers = []
    for turn in (None, turns[1]):
        if turn:
            messages += [
                {"role": "assistant", "content": answers[0]},
                {"role": "user", "content": turn},
            ]
        prompt = stage.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        answers += stage.responder.answer([prompt], max_new_tokens=6, temperature=0.0)
    second = next(d for d in duels if d["turn"] == 2 and d["second"] == "sft")
    assert (
        second["responses"][1] == f"{answers[0]}\n\n[user] {turns[1]}\n\n[assistant] {answers[1]}"
    )
    ratings = report["ratings"]
    assert ratings.keys() == {"all turns", "turn 1", "turn 2"}
    assert (ratings["turn 1"]["prompts"], ratings["turn 2"]["prompts"]) == (3, 2)
    models = ratings["all turns"]["models"]
    assert models["sft"]["log_strength"] == pytest.approx(models["again"]["log_strength"])
    assert sum(model["log_strength"] for model in models.values()) == pytest.approx(0)
    low, high = models["sft"]["interval"]
    assert low < models["sft"]["above_first"] < high
    assert "turn 2, 2 prompts" in capsys.readouterr().out


def test_a_judge_that_only_sees_the_position_makes_ties(sft, tmp_path):
    with serving() as server:  # always A
        judge = (
            "--feedback=Judge",
            "--feedback.model=OpenAIServer",
            f"--feedback.model.url={server.url}",
        )
        more = (
            "--feedback.model.model=judge",
            f"--feedback.model.cache={tmp_path / 'judge.sqlite'}",
        )
        data = f"--data={write(tmp_path / 'rows.jsonl', ROWS[:1])}"
        runs = ("--runs", "base", f"sft={sft}")
        report, duels = compete(tmp_path / "runs", *runs, data, *judge, *more)
    assert {duel["first_wins"] for duel in duels} == {0.5}
    assert report["asked"]["questions"] == 2 * sum(
        duel["responses"][0] != duel["responses"][1] for duel in duels
    )


def test_duels_are_rated_by_turn_and_unread_ones_left_out():
    rows = [{"turns": ["1?", "2?"]}] * 4
    duels = make_duels(rows, [[["a", "b"]] * 4, [["c", "d"]] * 4])
    report = rate(duels, [1.0, 1.0, 1.0, 0.5, 1.0, 0.0, 0.5, None], ["x", "y"])
    assert report["unread"] == 1
    assert report["pairs"] == [{"first": "x", "second": "y", "wins": 4, "ties": 2, "losses": 1}]
    first = report["ratings"]["turn 1"]["models"]["y"]
    assert first["above_first"] < 0
    assert [outcome(p, 0.1) for p in (0.61, 0.6, 0.4, 0.39)] == [1.0, 0.5, 0.5, 0.0]


def test_a_judge_rates_both_turns(tmp_path):
    """The rating of the second turn is given with the first one in sight."""

    def say(question):
        return "9" if "[user] And?" in question else "4"

    with serving(say=say) as server:
        judge = OpenAIServer(server.url, "judge", cache=None)
        task = MultiTurn([write(tmp_path / "rows.jsonl", [{"turns": ["1?", "And?"]}])], judge=judge)
        [item] = task.grade(task.read(), [["yes", "no"]])
    assert item.sums == {"all turns": (13.0, 2.0), "turn 1": (4.0, 1.0), "turn 2": (9.0, 1.0)}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--runs", "a"], "runs is a alone; a tournament has two runs or more"),
        (["--runs", "a", "b", "--tie_margin=0.5"], "tie_margin is 0.5; it is from 0 to less than"),
    ],
)
def test_a_mistake_gets_one_sentence(more, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit):
        compete(tmp_path / "runs", *more, *SHORTER, "--data=rows.jsonl")
    assert sentence in capsys.readouterr().err
