"""A judge in training: it marks what PPO samples, on the one base that is in memory."""

import csv

import pytest
import torch

from lit_align.cli.main import main
from lit_align.feedback.from_reward import FromReward
from lit_align.judges.local_model import LocalModel
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.rewards.judge_score import JudgeScore
from lit_align.types import Group
from tests.rl.on_policy import rl_arguments, write_prompts
from tests.stages.runs import folder_of


@pytest.fixture
def marking(tmp_path) -> str:
    """Short, since the tiny model reads bytes."""
    path = tmp_path / "mark.j2"
    path.write_text("{{ prompt }}\n{{ response | quoted }}\n{{ low }}-{{ high }}:")
    return str(path)


def test_ppo_learns_from_marks_of_its_own_base(tiny, marking, tmp_path):
    given = rl_arguments(
        tiny, write_prompts(tmp_path / "prompts.jsonl"), tmp_path / "run", "--trainer.max_steps=2"
    )
    given = [word for word in given if not word.startswith("--model.reward")]
    at = given.index("--model=RL") + 1
    graded = [
        "--model.reward=JudgeScore",
        "--model.reward.model=LocalModel",
        f"--model.reward.template={marking}",
    ]
    main([*given[:at], *graded, *given[at:]])
    with (folder_of(tmp_path / "run") / "metrics.csv").open() as file:
        marks = [
            float(row["objective/scores"])
            for row in csv.DictReader(file)
            if row.get("objective/scores")
        ]
    assert len(marks) == 2
    assert all(1 < mark < 10 for mark in marks)


def test_a_policy_that_rewards_itself(tiny, marking):
    """Self-rewarding: the same words earn other marks once the policy is another one; the base's marks stay."""
    base = Base(str(tiny), quantization="none", dtype="float32")
    adapters, said = (
        AdapterSet(load_model(base), Lora(), gradient_checkpointing=False),
        [Group("Bird?", ["An owl.", "A bat.", "No."])],
    )
    sources = {
        role: FromReward(JudgeScore(LocalModel(role=role), template=marking))
        for role in ("policy", "reference")
    }
    for source in sources.values():
        source.attach(adapters, load_tokenizer(base))

    def marks(role: str) -> list[float]:
        return sources[role](said, "pairs")[0].records[0]["scores"]

    before = marks("policy")
    assert before == pytest.approx(marks("reference"))  # an adapter begins as nothing
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.normal_(0, 0.2)
    assert marks("policy") != pytest.approx(before, abs=1e-3)
    assert marks("reference") == pytest.approx(before)
