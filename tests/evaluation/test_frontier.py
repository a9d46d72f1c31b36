"""``lit-align evaluate frontier``: its curves, and runs of every kind on one axis."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import yaml
from scipy.optimize import curve_fit, minimize_scalar

from lit_align.cli.frontier_rewards import Rewards, differences, is_same_reward
from lit_align.cli.frontier_runs import read_frontier_run
from lit_align.cli.main import main
from lit_align.errors import ConfigError, DataError
from lit_align.evaluation.frontier import (
    BEST_OF_N,
    RL_ITERATIONS,
    FrontierPoint,
    describe,
    fit_curve,
)
from lit_align.rewards import Reward, Scores
from lit_align.rewards.abstention import Abstention
from lit_align.rewards.base import response_text
from lit_align.rewards.length import Length
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.weighted import Weighted
from tests.rl.on_policy import rl_arguments, write_prompts
from tests.stages.runs import arguments, write_pairs

GOLD = ("--gold=Pattern", "--gold.regex=e")
WEIGHTED = """
model:
  class_path: {stage}
  init_args:
    {place}
      class_path: Weighted
      init_args:
        rewards: [tests.evaluation.test_frontier.Letters, {{class_path: Pattern, init_args: {{regex: e}}}}]
        weights: [1.0, 0.0]
"""


class Letters(Reward):
    """The number of letters of a response."""

    def __call__(self, groups):
        texts = [response_text(response) for group in groups for response in group.responses]
        return Scores(torch.tensor([float(len(text)) for text in texts]))


@dataclass(frozen=True)
class Stored(Letters):
    """A reward with a file."""

    path: str


FORMS = {
    BEST_OF_N: lambda kl, start, a, b: start + np.sqrt(kl) * (a - b * np.sqrt(kl)),
    RL_ITERATIONS: lambda kl, start, a, b: start + np.sqrt(kl) * (a - b * np.log(np.sqrt(kl))),
}


@pytest.mark.parametrize("method", FORMS)
def test_the_fit_is_that_of_a_general_optimiser(method):
    """On noisy points: coefficients, the standard error of beta, and the highest point of the curve."""
    generator = np.random.default_rng(0)
    kl = np.linspace(0.5, 12, 15)
    reward = FORMS[method](kl, 1.0, 1.5, 0.6) + generator.normal(0, 0.05, 15)
    best, covariance = curve_fit(FORMS[method], kl, reward, p0=(0, 1, 1))
    curve = fit_curve(kl.tolist(), reward.tolist(), method)
    assert (curve.start, curve.alpha, curve.beta) == pytest.approx(best, abs=1e-5)
    assert curve.beta_error == pytest.approx(math.sqrt(covariance[2, 2]), rel=1e-3)
    highest = minimize_scalar(
        lambda x: -FORMS[method](x, *best), bounds=(0.1, 50), method="bounded"
    )
    assert curve.turn == pytest.approx(highest.x, rel=1e-3)
    assert curve.reward(kl) == pytest.approx(FORMS[method](kl, *best), abs=1e-4)


def test_noise_is_no_turn_and_few_points_have_no_curve():
    generator = np.random.default_rng(1)
    flat = [FrontierPoint(float(t), 0.0, g) for t, g in enumerate(generator.normal(size=20))]
    turn = describe(flat, RL_ITERATIONS)["turn"]
    assert turn is None or not turn["seen"]
    rising = [FrontierPoint(float(t), 0.0, math.sqrt(t)) for t in range(20)]
    turn = describe(rising, BEST_OF_N)["turn"]
    assert turn is None or not turn["seen"]
    falling = [FrontierPoint(float(t), 0.0, g) for t, g in enumerate([0, 2, 3, 3, 2, 1, 0, -1])]
    assert describe(falling, RL_ITERATIONS)["turn"]["seen"]
    assert fit_curve([0, 1, 2], [0, 1, 2], BEST_OF_N) is None
    assert fit_curve([1, 1, 1, 1], [0, 1, 2, 3], BEST_OF_N) is None


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """A run of RL and a predict with a gold reward of weight 0, and an SFT run that knows of neither."""
    at = tmp_path_factory.mktemp("frontier")
    write_prompts(at / "prompts.jsonl")
    write_pairs(at / "pairs.jsonl", rows=6)
    for stage, place in (("RL", "reward:"), ("Preference", "best_of: {n: 6, keep_all: true}")):
        text = WEIGHTED.format(stage=stage, place=place)
        if stage == "Preference":
            text = text.replace(place, "best_of:\n      n: 4\n      reward:")
            text = text.replace("      class_path: Weighted", "        class_path: Weighted")
            text = text.replace(
                "      init_args:\n        rewards", "        init_args:\n          rewards"
            )
            text = text.replace("        weights", "          weights")
        (at / f"{stage}.yaml").write_text(text)
    usual = rl_arguments(tiny, at / "prompts.jsonl", at / "rl", "--trainer.max_epochs=3")
    usual = [argument for argument in usual if not argument.startswith("--model.reward")]
    main([usual[0], *usual[1:], "-c", str(at / "RL.yaml")])
    sampled = ("--model.temperature=1.0", "--model.max_new_tokens=8")
    pairs = arguments(
        tiny, at / "pairs.jsonl", at / "best", f"--data.validation={at / 'pairs.jsonl'}", *sampled
    )
    main(["predict", *pairs[1:], "-c", str(at / "Preference.yaml")])
    main([*arguments(tiny, at / "pairs.jsonl", at / "dpo"), "--trainer.max_steps=2"])
    return at


def evaluate(at, *more):
    main(["evaluate", "frontier", f"--run={at / 'out'}", *GOLD, *more])
    newest = max((at / "out").iterdir(), key=lambda path: int(path.name))
    assert (newest / "frontier.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((newest / "frontier.json").read_text())


def test_runs_of_every_kind_are_on_one_axis(runs, capsys):
    table = runs / "figures.jsonl"
    table.write_text('{"kl": 1.0, "proxy": 2.0, "gold": 3.0}\n')
    paths = [str(runs / "rl/0"), str(runs / "best/0"), str(runs / "dpo/0"), str(table)]
    prompts = ("--data", str(runs / "prompts.jsonl"), "--max_new_tokens=6")
    figures = evaluate(
        runs, "--runs", *paths, *prompts, "--proxy=tests.evaluation.test_frontier.Letters"
    )
    rl, best, dpo, given = figures["runs"]
    assert [run["method"] for run in figures["runs"]] == ["RL", "best-of-n", "trained", "figures"]
    rows = (runs / "rl/0/metrics.csv").read_text().splitlines()
    assert len(rl["points"]) == len(rows) - 1
    assert rl["points"][0]["kl"] == 0
    assert [point["label"] for point in best["points"]] == ["n = 1", "n = 2", "n = 4"]
    answers = [
        json.loads(line) for line in (runs / "best/0/answers.jsonl").read_text().splitlines()
    ]
    first = best["points"][0]
    golds = [value for row in answers for value in row["rewards"]["Pattern"]]
    scores = [value for row in answers for value in row["scores"]]
    assert first["gold"] == pytest.approx(sum(golds) / len(golds))
    assert (first["kl"], first["proxy"]) == pytest.approx((0, sum(scores) / len(scores)))
    assert 0 < best["points"][2]["kl"] <= math.log(4) - 3 / 4
    assert best["points"][2]["proxy"] >= first["proxy"]
    initial, trained = dpo["points"]
    assert (initial["kl"], initial["label"], trained["label"]) == (0, "initial", "trained")
    assert math.isfinite(trained["kl"])
    assert trained["kl"] != 0
    assert given["points"] == [{"kl": 1.0, "proxy": 2.0, "gold": 3.0, "label": f"{table}:1"}]
    assert f"{paths[1]}: too few points for a curve of Pattern" in capsys.readouterr().out


def test_gold_of_answers_that_were_kept_is_computed(runs):
    folder = runs / "kept"
    folder.mkdir()
    row = {"source": "a:1", "prompt": "?", "scores": [1.0, 2.0], "answers": ["bee", "cat"]}
    (folder / "answers.jsonl").write_text(json.dumps(row) + "\n")
    figures = evaluate(runs, "--runs", str(folder))
    assert [point["gold"] for point in figures["runs"][0]["points"]] == [0.5, 0.0]


def test_answers_without_a_score_or_gold_are_left_out(tmp_path):
    scores = {"source": "a:1", "prompt": "?", "scores": [1.0, None, 2.0, 0.0]}
    rows = [
        {**scores, "rewards": {"Pattern": [3.0, 9.0, 5.0, None]}},
        {**scores, "scores": [None] * 4, "rewards": {"Pattern": [1.0] * 4}},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    points = read_frontier_run(str(tmp_path), Rewards(Pattern("e"), None), None).points
    assert [(point.label, point.proxy, point.gold) for point in points] == [
        ("n = 1", 1.5, 4.0),
        ("n = 2", 2.0, 5.0),
    ]
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(DataError, match="no answer with both a score and Pattern"):
        read_frontier_run(str(tmp_path), Rewards(Pattern("e"), None), None)


def test_gold_sees_the_columns_of_the_data_and_not_the_answer_of_the_model(tmp_path):
    """The model's answer to 2 + 2 is 5, and the data's is 4: only the other candidate is right."""
    row = {"source": "a:1", "prompt": "?", "answer": "5", "score": 2.0, "scores": [1.0, 2.0]}
    row |= {"answers": ["It is 4", "It is 5"], "data.answer": ["4"], "level": 1}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    rewards = Rewards(Abstention(column="answer"), None)
    run = read_frontier_run(str(tmp_path), rewards, None)
    assert [point.gold for point in run.points] == [
        0.0,
        -1.0,
    ]  # n = 1, and the 5 that the proxy prefers


def write_parts(folder, **parts) -> str:
    """What best-of-n records, with these parts."""
    row = {"source": "a:1", "prompt": "?", "answer": "b", "score": 2.0, "scores": [1.0, 2.0]}
    (folder / "answers.jsonl").write_text(json.dumps({**row, "rewards": parts}) + "\n")
    return str(folder)


def test_a_part_that_cannot_be_told_apart_is_refused(tmp_path):
    path = write_parts(tmp_path, Pattern=[1.0, 2.0], Pattern1=[5.0, 6.0])
    with pytest.raises(ConfigError, match="recorded Pattern, Pattern1, and which of them is the"):
        read_frontier_run(path, Rewards(Pattern("e"), None), None)
    path = write_parts(tmp_path, Pattern=[1.0, 2.0])
    with pytest.raises(ConfigError, match="gold and proxy are both of that class"):
        read_frontier_run(path, Rewards(Pattern("e"), Pattern("b")), None)


def test_a_proxy_that_was_not_recorded_is_not_the_total(tmp_path):
    path = write_parts(tmp_path, Pattern=[1.0, 2.0], Length=[5.0, 7.0])
    with pytest.raises(ConfigError, match="recorded no Letters, only Pattern, Length; leave proxy"):
        read_frontier_run(path, Rewards(Pattern("e"), Letters()), None)
    points = read_frontier_run(path, Rewards(Pattern("e"), Length(max_words=1)), None).points
    assert [point.proxy for point in points] == [6.0, 7.0]
    points = read_frontier_run(path, Rewards(Pattern("e"), None), None).points
    assert [point.proxy for point in points] == [1.5, 2.0]


def write_config(folder, *rewards) -> None:
    """The configuration of a predict that chose its answers by a weighted sum, the first of whose rewards counts."""
    weights = [1.0, *(0.0 for _ in rewards[1:])]
    settings = [{"class_path": f"lit_align.{name}", "init_args": each} for name, each in rewards]
    weighted = {"class_path": "Weighted", "init_args": {"rewards": settings, "weights": weights}}
    config = {"model": {"class_path": "SFT", "init_args": {"best_of": {"reward": weighted}}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_settings_tell_rewards_of_one_class_apart(tmp_path):
    """Two targets of length are two rewards: found by their settings, refused with run and setting."""
    path = write_parts(tmp_path, Length=[1.0, 2.0], Length1=[5.0, 7.0])
    write_config(tmp_path, ("Length", {"max_words": 4}), ("Length", {"max_words": 8}))
    points = read_frontier_run(path, Rewards(Length(8), Length(4)), None).points
    assert [(point.proxy, point.gold) for point in points] == [(1.5, 6.0), (2.0, 7.0)]
    points = read_frontier_run(path, Rewards(Length(4), None), None).points
    assert [(point.proxy, point.gold) for point in points] == [(1.5, 1.5), (2.0, 2.0)]
    sentence = (
        r"recorded Length with max_words 4 \(not 9\) and max_words 8 \(not 9\): another .* the gold"
    )
    with pytest.raises(ConfigError, match=f"{path} has {sentence}"):
        read_frontier_run(path, Rewards(Length(9), None), None)
    with pytest.raises(ConfigError, match=r"min_words 0 \(not 2\).* another reward than the proxy"):
        read_frontier_run(path, Rewards(Length(8), Length(8, min_words=2)), None)


def test_another_gold_than_the_recorded_is_computed_where_texts_are_kept(tmp_path):
    row = {"source": "a:1", "prompt": "?", "scores": [1.0, 2.0], "rewards": {"Length": [0.0, 0.0]}}
    answers = {"answers": ["one two three", "one"]}
    (tmp_path / "answers.jsonl").write_text(json.dumps({**row, **answers}) + "\n")
    write_config(tmp_path, ("Length", {"max_words": 4}))
    points = read_frontier_run(str(tmp_path), Rewards(Length(2), None), None).points
    assert [point.gold for point in points] == [-0.25, 0.0]


def test_nested_settings_and_paths_are_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge = {"class_path": "Stored", "init_args": {"path": str(tmp_path / "rm")}}
    assert not differences(judge, Stored("rm"))
    weights = {"rewards": [judge], "weights": [1.0]}
    recorded = {"class_path": "Weighted", "init_args": weights}
    assert not differences(recorded, Weighted([Stored("rm")], [1.0]))
    assert differences(recorded, Weighted([Stored("other")], [1.0]))
    assert differences({"class_path": "Pattern"}, Length(2)) == ["Pattern (not Length)"]


def test_runs_with_other_proxies_are_told(tmp_path, capsys):
    for name, words in (("a", 4), ("b", 8)):
        (tmp_path / name).mkdir()
        write_parts(tmp_path / name, Length=[1.0, 2.0], Pattern=[0.0, 1.0])
        write_config(tmp_path / name, ("Length", {"max_words": words}), ("Pattern", {"regex": "e"}))
    figures = evaluate(tmp_path, "--runs", str(tmp_path / "a"), str(tmp_path / "b"))
    [note] = figures["notes"]
    assert f"{tmp_path / 'a'}: 1.0 Length(max_words=4); {tmp_path / 'b'}: 1.0 Length(" in note
    assert note in capsys.readouterr().out


def test_a_setting_that_only_one_version_has_is_no_other_proxy_where_it_is_the_default(
    tmp_path, capsys
):
    for name, settings in (("a", {}), ("b", {"min_words": 0}), ("c", {"min_words": 1})):
        (tmp_path / name).mkdir()
        write_parts(tmp_path / name, Length=[1.0, 2.0], Pattern=[0.0, 1.0])
        length = ("Length", {"max_words": 4, **settings})
        write_config(tmp_path / name, length, ("Pattern", {"regex": "e"}))
    runs = [str(tmp_path / name) for name in "abc"]
    for order in (runs[:2], runs[1::-1]):
        assert evaluate(tmp_path, "--runs", *order)["notes"] == []
    [note] = evaluate(tmp_path, "--runs", *runs)["notes"]
    assert "Length(max_words=4, min_words=1)" in note
    unknown = {"class_path": "Gone", "init_args": {"a": 1}}
    assert is_same_reward(unknown, unknown)
    assert not is_same_reward(unknown, {"class_path": "Gone"})


def test_what_lacks_gold_is_refused_with_the_remedy(runs):
    with pytest.raises(SystemExit):
        main(["evaluate", "frontier", "--runs", str(runs / "dpo/0"), *GOLD])
    rewards = Rewards(Pattern("e"), None)
    with pytest.raises(
        ConfigError, match="recorded no Pattern beside its KL; train or predict with Weighted"
    ):
        read_frontier_run(str(runs / "dpo/0"), rewards, None)
    table = runs / "wrong.jsonl"
    table.write_text('{"kl": 1.0, "proxy": "much", "gold": 3.0}\n')
    with pytest.raises(DataError, match=r"wrong\.jsonl:1 has no numbers kl, proxy, gold"):
        read_frontier_run(str(table), rewards, None)
