"""A gold reward of weight 0: drawn beside the score, and named when the two part, and only then."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lit_align.advantages.gdpo import GDPO
from lit_align.rewards import Reward, Scores
from lit_align.rewards.cosine_length import CosineLength
from lit_align.rewards.length import Length
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.weighted import Weighted
from lit_align.rl.diagnostics import RunDiagnostics
from lit_align.rl.gold_reward import GoldPoint, find_parting, gold_names
from lit_align.rl.rollouts import RolloutBatch
from lit_align.types import Group, Tree

ITERATIONS = 60


def observe(golds, scores=None, diagnostics=None):
    """Diagnostics of a run whose gold reward was ``golds``."""
    diagnostics = diagnostics or RunDiagnostics()
    begin = len(diagnostics.kl_and_score)
    for step, gold in enumerate(golds, begin):
        metrics = {
            "objective/kl": 0.7 * step,
            "objective/scores": float(step if scores is None else scores[step]),
            "objective/length": 12.0,
            "objective/entropy": 2.0,
            "rewards/Nouns": float(gold),
        }
        diagnostics.observe(metrics, step, ("Nouns",))
    return diagnostics


def turning(seed):
    """Gold as Gao et al. found it in RL, with noise: d (0.9 - 0.5 log d); it turns at 3.6 nats."""
    d = np.sqrt(0.7 * np.arange(ITERATIONS) + 0.01)
    noise = np.random.default_rng(seed).normal(0, 0.1, ITERATIONS)
    return d * (0.9 - 0.5 * np.log(d)) + noise


def test_a_run_whose_gold_turns_is_told_of_once():
    with pytest.warns(UserWarning, match="have parted") as told:
        observe(turning(0))
    (message,) = [str(warning.message) for warning in told if "parted" in str(warning.message)]
    assert message.startswith("step ")
    assert "the reward and Nouns, which has weight 0, have parted" in message
    assert "raise kl.coefficient" in message


@pytest.mark.parametrize("seed", range(5))
def test_healthy_runs_are_silent(seed, recwarn):
    noise = np.random.default_rng(seed).normal(0, 0.3, 3 * ITERATIONS)
    observe(noise)
    observe(np.arange(3 * ITERATIONS) / 20 + noise)
    observe(3 * (1 - np.exp(-np.arange(3 * ITERATIONS) / 20)) + noise)
    assert not [warning for warning in recwarn if "parted" in str(warning.message)]


def test_a_score_that_falls_with_gold_is_another_story(recwarn):
    golds = turning(0)
    observe(golds, scores=golds)
    assert not [warning for warning in recwarn if "parted" in str(warning.message)]


def test_the_sentence_has_the_levels_of_five_iterations():
    golds = [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6]
    points = [GoldPoint(t, float(t), 2.0 * t, float(gold)) for t, gold in enumerate(golds)]
    sentence = find_parting(points, "Nouns")
    best = max(range(18), key=lambda t: sum(golds[t : t + 5]))
    assert f"from {best + 2:.1f} to 19.0 nats" in sentence
    assert f"the score rose from {2 * (best + 2):.2f} to 38.00" in sentence
    assert f"Nouns fell from {sum(golds[best : best + 5]) / 5:.2f} to -4.00" in sentence
    assert f"best near step {best + 2}" in sentence


def test_gold_is_what_has_weight_zero():
    rewards = [Pattern("a"), Length(max_words=2), Pattern("b")]
    assert gold_names(Weighted(rewards, [1.0, 0.0, 0.0])) == ("Length", "Pattern2")
    assert gold_names(Weighted(rewards, [1.0, 0.5, 0.1])) == gold_names(Pattern("a")) == ()


def test_gold_has_the_name_of_a_reward_before_any_part_of_another():
    reward = Weighted([CosineLength(Pattern("owl"), 4), Pattern("bat")], [1.0, 0.0])
    scores = reward([Group("", ["a bat", "an owl"])])
    (gold,) = gold_names(reward)
    assert scores.parts[gold].tolist() == [1.0, 0.0]
    assert scores.parts["Pattern0"].tolist() == [0.0, 1.0]
    assert set(scores.parts) == {"CosineLength", "Pattern0", "Pattern"}


def test_what_the_advantage_learns_from_is_no_gold():
    reward = Weighted([Pattern("a"), Length(max_words=2)], [1.0, 0.0])
    assert gold_names(reward, GDPO({"Length": 1.0, "Pattern": 0.0}).read_parts) == ()


@dataclass(frozen=True)
class Unsure(Reward):
    """Scores what has an e."""

    def __call__(self, groups):
        texts = [text for group in groups for text in group.responses]
        scored = torch.tensor(["e" in text for text in texts])
        return Scores(torch.full((len(texts),), 3.0), {"odd": torch.ones(len(texts))}, None, scored)


def test_gold_that_abstains_changes_nothing_that_is_learned():
    groups = [Group("", ["owl", "eagle", "bat"])]
    scores = Weighted([Pattern("b"), Unsure()], [1.0, 0.0])(groups)
    assert scores.scored is None
    assert scores.total.tolist() == [0.0, 0.0, 1.0]
    for name, value in (("Unsure", 3.0), ("odd", 1.0)):
        assert scores.parts[name].isnan().tolist() == [True, False, True]
        assert scores.parts[name][1] == value
    tree = Tree([1], [[1], [2], [3]], [], groups[0])
    ended, logps = torch.ones(3, dtype=torch.bool), torch.zeros(3, 1)
    rollouts = RolloutBatch([tree], groups, ended, logps, scores)
    for name in ("old_logps", "ref_logps", "entropy", "rewards", "advantages"):
        rollouts.tokens[name] = torch.zeros(3, 1)
    metrics = rollouts.metrics(0.0, False)
    assert metrics["rewards/Unsure"] == 3.0
    assert metrics["rewards/Pattern"] == pytest.approx(1 / 3)


def test_both_are_drawn(tmp_path):
    diagnostics = observe([1.0, 2.0, 1.5])
    diagnostics.draw_reward_kl(tmp_path / "both.png")
    diagnostics.gold.clear()
    diagnostics.draw_reward_kl(tmp_path / "score.png")
    both, score = ((tmp_path / f"{name}.png").read_bytes() for name in ("both", "score"))
    assert both.startswith(b"\x89PNG")
    assert both != score


def test_a_resumed_run_knows_what_it_has_seen():
    """The warning comes at the same step as in a run that nobody stopped."""
    from dataclasses import asdict

    golds = turning(0)
    with pytest.warns(UserWarning, match="have parted") as whole:
        observe(golds)
    stopped = RunDiagnostics(**asdict(observe(golds[:15])))
    with pytest.warns(UserWarning, match="have parted") as resumed:
        observe(golds[15:], diagnostics=stopped)
    said = [
        [str(w.message) for w in each if "parted" in str(w.message)] for each in (whole, resumed)
    ]
    assert said[0] == said[1]
    assert math.isfinite(stopped.gold["Nouns"][-1][3])
