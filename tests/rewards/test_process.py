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


@pytest.fixture(scope="module")
def reward(tiny, tmp_path_factory):
    module = stage(ProcessRewardModel, StepCrossEntropy(), tiny)
    module.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    module.trainer.datamodule = OtherSteps("rows.jsonl")
    folder = tmp_path_factory.mktemp("adapter")
    module.save_adapter(folder)
    return ProcessScore(str(folder))


def test_data_that_do_not_describe_themselves_train_what_is_read(reward):
    assert len(reward.step_scores([Group("2?", ["a\nb"])])[0]) == 2
