"""Warnings of RL: each provoked, and none on a healthy run; prompts that a reward model was trained on."""

import json
import warnings

import pytest
import torch

from lit_align.cli.main import main
from lit_align.data.trained_prompts import PROMPTS_FILE, prompt_keys, read_prompt_keys
from lit_align.rewards.length import Length
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.rewards.weighted import Weighted
from lit_align.rl.diagnostics import find_problems
from tests.rl.on_policy import rl_arguments, write_prompts
from tests.stages.runs import arguments, folder_of, write_pairs

HEALTHY = {
    "objective/scores": 0.5,
    "objective/scores_std": 0.2,
    "objective/length": 20.0,
    "objective/entropy": 2.0,
    "objective/kl": 1.0,
    "objective/kl_error": 0.2,
    "objective/eos_rate": 0.9,
    "objective/frac_scores_zero_std": 0.2,
    "policy/max_advantage": 1.3,
    "policy/sampler_kl": 0.0,
    "val/explained_variance": 0.4,
}

PROBLEMS = [
    ("length", {"objective/scores": 0.9, "objective/length": 60.0}, "3.0 times as long"),
    ("scores", {"objective/frac_scores_zero_std": 1.0}, "none is better, so nothing is learned"),
    ("eos", {"objective/eos_rate": 0.0}, "100% of responses were cut off after 20 tokens"),
    ("advantages", {"policy/max_advantage": 0.0}, "all advantages are 0 although scores differ"),
    ("entropy", {"objective/entropy": 0.1}, "entropy fell from 2.00 to 0.10"),
    ("kl", {"objective/kl": 80.0}, "80 nats a response"),
    ("negative kl", {"objective/kl": -1.0}, "5.0 standard errors below 0, which no divergence is"),
    ("critic", {"val/explained_variance": -1.0}, "worse than none"),
    ("sampler", {"policy/sampler_kl": 0.3}, "0.30 nats a token from the policy"),
]


@pytest.mark.parametrize(("name", "changes", "words"), PROBLEMS)
def test_each_problem_is_named_and_no_other(name, changes, words):
    problems = find_problems(HEALTHY, {**HEALTHY, **changes})
    assert list(problems) == [name]
    assert words in problems[name]


def test_what_is_healthy_has_no_problem():
    assert find_problems(HEALTHY, HEALTHY) == {}
    by_chance = {**HEALTHY, "objective/kl": -0.5}  # 2.5 standard errors
    assert find_problems(HEALTHY, by_chance) == {}


@pytest.mark.parametrize("from_policy", [True, False])
def test_a_kl_is_negative_where_others_sampled(from_policy):
    """The mean of log π/ρ over samples of π estimates a divergence; over samples of ρ it is minus another one."""
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 20, generator=generator).log_softmax(1)
    sampled = policy if from_policy else reference
    tokens = torch.multinomial(sampled.exp(), 400, replacement=True, generator=generator)
    ratios = (policy - reference)[tokens].view(100, 4).sum(1)
    kl = {"objective/kl": ratios.mean().item(), "objective/kl_error": ratios.std().item() / 10}
    assert ("negative kl" in find_problems(HEALTHY, {**HEALTHY, **kl})) is not from_policy


def warned(args) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        main(args)
    return [str(warning.message) for warning in caught]


GRPO = (
    "--model.advantage=GRPO",
    "--model.num_generations=4",
    "--model.kl.coefficient=0",
    "--model.num_iterations=1",
)


def with_reward(tiny, prompts, run, *reward) -> list[str]:
    """One iteration with another reward."""
    usual = rl_arguments(tiny, prompts, run, "--trainer.max_steps=1")
    rest = [word for word in usual if not word.startswith("--model.reward")]
    at = rest.index("--model=RL") + 1
    return [*rest[:at], *reward, *rest[at:]]


def test_clipped_scores_leave_no_advantage(tiny, tmp_path):
    """Scores differ and are all above the clip: after it they are alike."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", rows=4)
    reward = "--model.reward=tests.rl.test_diagnostics.Letters"
    healthy = [*with_reward(tiny, prompts, tmp_path / "run", reward), *GRPO]
    assert not any("advantages are 0" in text for text in warned(healthy))
    clipped = [*healthy, "--model.reward_clip=0.5"]
    assert any("all advantages are 0 although scores differ" in text for text in warned(clipped))


class Letters(Length):
    """Sum of the characters of a response, at least 1: different for nearly every sample of a random model."""

    def __init__(self) -> None:
        super().__init__(max_words=1)

    def __call__(self, groups):
        from lit_align.rewards import Scores
        from lit_align.rewards.base import response_text

        texts = [response_text(response) for group in groups for response in group.responses]
        return Scores(torch.tensor([1.0 + sum(map(ord, text)) for text in texts]))


def test_prompts_that_the_reward_model_was_trained_on(tiny, tmp_path):
    """Half of the prompts of RL are those of its comparisons, in plain text instead of turns."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", 4)
    other = {
        "--model=Preference": "--model=RewardModel",
        "--model.objective=DPO": "--model.objective=BradleyTerry",
    }
    args = arguments(tiny, pairs, tmp_path / "reward", "--trainer.max_steps=1")
    main([other.get(word, word) for word in args])
    adapter = folder_of(tmp_path / "reward") / "adapter"
    prompts = [json.loads(line)["prompt"] for line in pairs.read_text().splitlines()]
    assert read_prompt_keys(adapter) == set(prompt_keys(prompts))
    assert (folder_of(tmp_path / "reward") / "checkpoints/last.adapter" / PROMPTS_FILE).is_file()
    trained = RewardModelScore(str(adapter))
    assert Weighted([trained, Length(max_words=1)], [1.0, 1.0]).trained_prompts()
    assert not Weighted([trained, Length(max_words=1)], [0.0, 1.0]).trained_prompts()
    rows = [{"prompt": prompts[k][0]["content"]} for k in range(2)]
    rows += [{"prompt": f"Another question {k}?"} for k in range(2)]
    mixed, fresh = tmp_path / "mixed.jsonl", tmp_path / "fresh.jsonl"
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fresh.write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
    reward = ("--model.reward=RewardModelScore", f"--model.reward.path={adapter}")
    for file, expected in ((mixed, "2 of these 4 prompts (50%)"), (fresh, None)):
        texts = warned(with_reward(tiny, file, tmp_path / "rl", *reward))
        about = [text for text in texts if "was trained on responses to" in text]
        assert len(about) == (expected is not None)
        assert expected is None or expected in about[0]
