"""The committed run of the demo keeps what the demo promises."""

import json
from pathlib import Path

import pytest

PROOF = Path(__file__).parent / "proofs" / "demo.json"


def test_the_demo_teaches_the_behaviour_and_does_not_collapse():
    found = json.loads(PROOF.read_text())
    before, after = found["before"], found["after"]
    assert after["pairs"] >= 20
    assert after["pair_accuracy"] >= 0.8
    assert before["short_answers"] < 0.3
    assert after["short_answers"] >= 0.8
    assert after["distinct_answers"] >= 0.8
    assert after["keyword_hits"] >= before["keyword_hits"]


def test_dpo_runs_away_where_ipo_stops():
    """With one response that always wins: IPO's margin is 1 / (2 beta), DPO's grows on for every beta."""
    found = json.loads((PROOF.parent / "ipo.json").read_text())["margins"]
    for beta in (0.1, 0.5, 1.0):
        assert abs(found[f"IPO {beta}"]["end"] - 1 / (2 * beta)) < 1e-3
        half, end = found[f"DPO {beta}"]["half way"], found[f"DPO {beta}"]["end"]
        assert end > 1.02 * half > 10


def test_the_best_of_more_answers_is_better():
    """A function as the reward: its mean rises with every doubling."""
    curve = json.loads((PROOF.parent / "best_of.json").read_text())["curve"]
    assert [point["n"] for point in curve] == [1, 2, 4, 8, 16]
    rewards = [point["reward"] for point in curve]
    assert rewards == sorted(set(rewards))


def test_an_update_on_policy_costs_less_than_in_trl_and_is_the_same():
    found = json.loads((PROOF.parent / "rl_vs_trl.json").read_text())
    assert max(value for name, value in found["gate"].items() if "differ" in name) < 1e-4
    assert found["ratio"] >= found["aim"] == 1.8


def test_ppo_takes_less_memory_than_in_trl():
    found = json.loads((PROOF.parent / "ppo_memory.json").read_text())
    assert found["ratio"] >= 2


@pytest.mark.parametrize("run", ["PPO, seed 11", "PPO, seed 12", "PPO, seed 13", "RLOO", "GRPO"])
def test_learning_on_policy_earns_more_and_stays_near(run):
    """Reward up by 0.2 on a scale from -1 to 1, on held-out prompts too, within 10 nats a response."""
    found = json.loads((PROOF.parent / "on_policy.json").read_text())
    of = found["runs"][run]
    assert of["last"] - of["first"] >= 0.2
    assert of["held out"]["scores"] - found["before"]["scores"] >= 0.2
    assert max(of["last KL"], of["held out"]["kl"]) <= 10
    assert of["CPU seconds"] <= 360
    assert not of["warnings"]


def test_a_run_that_fools_its_reward_is_told_so():
    of = json.loads((PROOF.parent / "on_policy.json").read_text())["runs"]["RLOO, KL free"]
    assert of["last"] - of["first"] >= 0.2
    assert any("nats a response from its reference" in words for words in of["warnings"])
