"""What a process reward model says of the steps of a beginning, and of a run whose data say nothing of themselves."""

import pytest
from lightning.pytorch import Trainer

from lit_align.data.datamodules import TextDataModule
from lit_align.objectives.step_cross_entropy import StepCrossEntropy
from lit_align.rewards.process import ProcessScore
from lit_align.stages.process_reward_model import ProcessRewardModel
from lit_align.types import Group, LabelKind
from tests.stages.test_exact import stage


class OtherSteps(TextDataModule):
    """A plugin's, which does not describe itself."""

    label_kind = LabelKind.STEPS


def process_reward_model(tiny, folder):
    """A process reward model with random weights, which is saved in ``folder``."""
    module = stage(ProcessRewardModel, StepCrossEntropy(), tiny)
    module.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    module.trainer.datamodule = OtherSteps("rows.jsonl")
    module.save_adapter(folder)
    return module


@pytest.fixture(scope="module")
def reward(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    process_reward_model(tiny, folder)
    return ProcessScore(str(folder))


def test_data_that_do_not_describe_themselves_train_what_is_read(reward):
    assert len(reward.step_scores([Group("2?", ["a\nb"])])[0]) == 2
    assert reward.step_separators() == {"\n"}


@pytest.mark.parametrize("as_chat", [True, False])
def test_the_last_step_of_a_beginning_is_scored_as_if_another_followed(reward, as_chat):
    def scores(text, beginning=None):
        prompt = "2 + 2?"
        response = text
        if as_chat:
            prompt = [{"role": "user", "content": prompt}]
            response = [{"role": "assistant", "content": text.strip()}]
        group = Group(prompt, [response], beginnings=(beginning,))
        (steps,) = reward.step_scores([group])
        return steps

    whole = scores("2 + 2 = 4\nSo 4.")
    (begun,) = scores("2 + 2 = 4\n", "2 + 2 = 4\n")
    assert begun == pytest.approx(whole[0], abs=1e-6)
    (ended,) = scores("2 + 2 = 4")
    assert abs(ended - whole[0]) > 1e-4
    assert scores("2 + 2 = 4\nSo", "2 + 2 = 4\nSo")[0] == pytest.approx(whole[0], abs=1e-6)
    assert len(scores("\n", "\n")) == 1
