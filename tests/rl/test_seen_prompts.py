"""Prompts that the reward model has seen: scored apart, and named if their scores part from the others'."""

import json

import numpy as np
import pytest
import torch

from lit_align.cli.main import main
from lit_align.data.trained_prompts import prompt_keys
from lit_align.functional.trends import FALSE_ALARM, watched_trend
from lit_align.rl.diagnostics import RunDiagnostics
from lit_align.rl.rollouts import RolloutBatch
from lit_align.rl.seen_prompts import SeenPoint, find_overlap_effect, seen_metrics
from lit_align.types import Group, Scores, Tree
from tests.rl.test_diagnostics import with_reward
from tests.stages.runs import arguments, folder_of, write_pairs


def rollouts_of(prompts, scores, parts, scored=None):
    groups = [Group(prompt, ["x", "y"]) for prompt in prompts]
    trees = [Tree([1], [[2], [3]], [[True], [True]], group) for group in groups]
    count = len(scores)
    scored = None if scored is None else torch.tensor(scored)
    return RolloutBatch(
        trees,
        groups,
        torch.ones(count, dtype=torch.bool),
        torch.zeros(count, 1),
        Scores(torch.tensor(scores), {"Gold": torch.tensor(parts)}, scored=scored),
    )


def test_means_are_over_the_responses_to_seen_and_to_other_prompts():
    nan = float("nan")
    rollouts = rollouts_of(
        ["a", "b", "c"],
        [1.0, 2.0, 3.0, 5.0, 7.0, 100.0],
        [1.0, nan, 0.0, 0.0, 1.0, 1.0],
        [True, True, True, True, True, False],
    )
    trained = frozenset(prompt_keys(["a", "z"]))
    assert seen_metrics(rollouts, trained, ["Gold", "Absent"]) == pytest.approx(
        {
            "reward/seen": 1.5,
            "reward/unseen": 5.0,
            "reward/seen/Gold": 1.0,
            "reward/unseen/Gold": 1 / 3,
        }
    )
    assert seen_metrics(rollouts, frozenset()) == {}
    assert list(seen_metrics(rollouts, frozenset(prompt_keys(["z"])))) == ["reward/unseen"]


def autoregressive(correlation, seed, count=400, points=100):
    """Series of a lag-1 correlation, each from its stationary distribution on, ``[count, points]``."""
    draws = np.random.default_rng(seed).normal(size=(count, points))
    series = [draws[:, 0] / (1 - correlation**2) ** 0.5]
    for draw in draws.T[1:]:
        series.append(correlation * series[-1] + draw)
    return np.stack(series, 1)


def alarms(series):
    """How many of the series raise an alarm at any look."""
    looks = [watched_trend(series[:, :n]).is_significant for n in range(3, series.shape[1] + 1)]
    return np.any(looks, 0).sum()


# 13 or more of 400 have a chance of 0.03 % at a rate of 1 %, and the plain error alarms of 300 at 0.9
@pytest.mark.parametrize(("correlation", "most"), [(0.0, 8), (0.5, 8), (0.9, 12)])
def test_a_series_that_is_always_watched_rarely_raises_a_false_alarm(correlation, most):
    """400 series of 100 values each, looked at 98 times: about the chance that was allowed."""
    assert alarms(2.0 * autoregressive(correlation, 0) + 3.0) <= most
    assert FALSE_ALARM == 0.01


def test_a_trend_is_told_from_what_is_merely_alike():
    """A change of 52 times the values' own deviation over the series is always told."""
    assert alarms(autoregressive(0.5, 1) + 0.6 * np.arange(100)) == 400


def test_the_line_is_that_of_scipy():
    from scipy.stats import linregress

    series = autoregressive(0.4, 1, count=1, points=30)[0]
    line, trend = linregress(np.arange(30), series), watched_trend(series)
    assert trend.slope == pytest.approx(line.slope)
    left = series - line.slope * np.arange(30) - line.intercept
    plain = left[1:] @ left[:-1] / (left @ left)
    unbiased = plain + (2 + 4 * plain) / 30
    rho = unbiased + ((1 - unbiased**2) / 30) ** 0.5
    assert trend.correlation == pytest.approx(rho)
    size = 30 * (1 - rho) / (1 + rho)
    assert trend.t == pytest.approx(line.slope / line.stderr * (size / 30) ** 0.5)
    # two-sided p at the bar is what the 28th look may spend
    from scipy.stats import t

    assert 2 * t.sf(trend.bar, size - 2) == pytest.approx(0.01 / (28 * 29))


def test_a_constant_series_has_no_trend():
    assert not watched_trend(np.full(29, 0.1)).is_significant
    assert not watched_trend(np.zeros(29)).is_significant
    assert watched_trend(np.arange(29) * 0.1).is_significant
    assert not watched_trend(np.arange(19) * 0.1).is_significant
    assert watched_trend(np.zeros(0)).slope == 0


def points(seen_slope, unseen_slope, seed=0, count=40, start=0.0):
    noise = np.random.default_rng(seed).normal(0, 0.3, (count, 2))
    return [
        SeenPoint(t, start + seen_slope * t + noise[t, 0], unseen_slope * t + noise[t, 1])
        for t in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_rise_alike_are_no_parting_whatever_they_start_from(seed):
    series = points(0.05, 0.05, seed, start=2.0)
    assert all(find_overlap_effect(series[:n], {}) is None for n in range(len(series)))


def test_a_gold_reward_that_parts_too_says_that_the_prompts_differ():
    parted = points(0.1, 0.01)
    assert find_overlap_effect(parted, {"Gold": points(0.1, 0.01, 1)}) is None
    told = find_overlap_effect(parted, {"Gold": points(0.01, 0.01, 1)})
    by_hand = [39 * np.polyfit(range(40), column, 1)[0] for column in np.array(parted).T[1:]]
    assert (
        "from step 0 to 39 they changed by {:+.2f} on those and by {:+.2f}".format(*by_hand) in told
    )
    assert "; Gold, which has weight 0, by +0." in told
    assert find_overlap_effect(parted, {"Gold": points(0.01, 0.05, 1)}) is not None


def observe(diagnostics, series):
    for step, seen, unseen in series:
        metrics = {
            "objective/kl": 0.1,
            "objective/scores": (seen + unseen) / 2,
            "objective/length": 12.0,
            "objective/entropy": 2.0,
            "reward/seen": seen,
            "reward/unseen": unseen,
        }
        diagnostics.observe(metrics, step)


def test_a_run_says_so_once_and_goes_on_counting_after_a_restart():
    series = points(0.1, 0.01)
    diagnostics = RunDiagnostics()
    observe(diagnostics, series[:10])
    restored = RunDiagnostics(**json.loads(json.dumps(vars(diagnostics))))
    with pytest.warns(UserWarning, match="scores of prompts that the reward model was") as told:
        observe(restored, series[10:])
    assert len([w for w in told if "trained on and of others part" in str(w.message)]) == 1


def test_a_healthy_run_is_silent(recwarn):
    observe(RunDiagnostics(), points(0.05, 0.05))
    assert not [w for w in recwarn if "of others part" in str(w.message)]


def test_a_run_logs_both(tiny, tmp_path, caplog):
    """Half of the prompts of RL are those of the reward model's comparisons."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", 4)
    other = {
        "--model=Preference": "--model=RewardModel",
        "--model.objective=DPO": "--model.objective=BradleyTerry",
    }
    args = arguments(tiny, pairs, tmp_path / "reward", "--trainer.max_steps=1")
    main([other.get(word, word) for word in args])
    adapter = folder_of(tmp_path / "reward") / "adapter"
    prompts = [json.loads(line)["prompt"][0]["content"] for line in pairs.open()]
    rows = [{"prompt": prompts[k]} for k in range(2)]
    rows += [{"prompt": f"Another question {k}?"} for k in range(2)]
    mixed, fresh = tmp_path / "mixed.jsonl", tmp_path / "fresh.jsonl"
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fresh.write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
    reward = ("--model.reward=RewardModelScore", f"--model.reward.path={adapter}")
    for file, seen in ((mixed, True), (fresh, False)):
        caplog.clear()
        main(with_reward(tiny, file, tmp_path / file.stem, *reward))
        with (folder_of(tmp_path / file.stem) / "metrics.csv").open() as metrics:
            names = next(metrics).strip().split(",")
        assert ("reward/seen" in names) == seen
        assert "reward/unseen" in names
        told = [record.message for record in caplog.records]
        assert any("to 0 of these 2 prompts (0%)" in text for text in told) != seen
