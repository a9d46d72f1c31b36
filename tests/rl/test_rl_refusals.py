"""What on-policy learning refuses, and what it leaves behind to look at."""

import json
import math
from dataclasses import dataclass

import lightning.pytorch as lightning
import pytest
import torch

from lit_align.cli.main import main
from lit_align.data.datamodules import Prompts
from lit_align.errors import ConfigError, TrainingError
from lit_align.rewards.base import Reward
from lit_align.rewards.pattern import Pattern
from lit_align.rl.critic import Critic
from lit_align.types import Scores
from tests.rl.on_policy import rl_arguments, stage, write_prompts
from tests.stages.runs import folder_of


@dataclass(frozen=True)
class Broken(Reward):
    """Does what it should not."""

    how: str = "nan"

    def __call__(self, groups):
        count = sum(len(group.responses) for group in groups)
        if self.how == "raises":
            raise KeyError("answer")
        if self.how == "short":
            return Scores(torch.zeros(count - 1))
        if self.how == "tokens":
            return Scores(torch.zeros(count), tokens=torch.zeros(1))
        return Scores(torch.tensor([0.0] * (count - 1) + [math.nan]))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (
            "nan",
            r"gave nan to \[\{'role': 'assistant', .*, a response to .*prompts.jsonl:",
        ),
        ("short", r"gave \[15\] scores for 16 responses; each has one"),
        (
            "raises",
            r"Broken\(how='raises'\) failed: KeyError\('answer'\) at tests/.*; the prompts and responses, from .*l:",
        ),
        (
            "tokens",
            r"Broken\(how='tokens'\) gave \[1\] scores by token, 1 of them finite, for responses of \d+ tokens",
        ),
    ],
)
def test_a_broken_reward_is_named_and_what_it_was_asked_is_kept(how, says, tiny, tmp_path):
    module = stage(tiny, Broken(how), max_new_tokens=4)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=tmp_path / "run",
    )  # fmt: skip
    data = Prompts(str(write_prompts(tmp_path / "prompts.jsonl")), batch_size=4)
    with pytest.raises(TrainingError, match=says):
        trainer.fit(module, data)
    rows = [json.loads(line) for line in (tmp_path / "run/bad_reward.jsonl").open()]
    assert [len(row["responses"]) for row in rows] == [4] * 4
    assert all(
        row["prompt"][0]["role"] == "user" and "prompts.jsonl:" in row["source"] for row in rows
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"num_generations": 1},
            "RLOO compares at least 2 responses to a prompt; raise num_generations",
        ),
        ({"num_iterations": 0}, "num_iterations must be positive, got 0"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        (
            {"critic": Critic(init_from="rm")},
            "critic.init_from is 'rm', and RLOO needs no critic; set it to null",
        ),
    ],
)
def test_settings_that_would_mislead_are_refused(settings, says, tiny):
    with pytest.raises(ConfigError, match=says):
        stage(tiny, Pattern("a"), **settings)


def test_a_prompt_that_is_too_long_is_on_record(tiny, tmp_path, capsys):
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    prompts.open("a").write(json.dumps({"prompt": [{"role": "user", "content": "x" * 300}]}) + "\n")
    main(rl_arguments(tiny, prompts, tmp_path / "run", "--trainer.max_steps=1"))
    ledger = json.loads((folder_of(tmp_path / "run") / "ledger.json").read_text())["train"]
    assert ledger["fates"] == {
        "kept": 8,
        "truncated": 0,
        "malformed": 0,
        "set aside": 0,
        "overlong": 1,
    }
    with pytest.raises(SystemExit):
        main(rl_arguments(tiny, prompts, tmp_path / "run", "--data.token_budget=20"))
    assert (
        "over the token_budget of 20; raise token_budget or lower max_length"
        in capsys.readouterr().err
    )
