"""How often a step would make the host wait for a GPU, of every stage and kind of loss."""

import pytest
import torch
from lightning.pytorch import Trainer

from lit_align.data.datamodules import TextDataModule
from lit_align.models.adapter_set import Lora
from lit_align.models.generate import sample
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.objectives.kto import KTO
from lit_align.objectives.mix import Mix
from lit_align.objectives.plackett_luce_dpo import PlackettLuceDPO
from lit_align.objectives.regression import Regression
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from lit_align.stages.sft import SFT
from lit_align.types import Group, LabelKind, Pair, Tree

from .host_waits import GPU, HostWaits, pretend_on_gpu

WAITS_PER_STEP = 1
"""All metrics, the loss and the gradient norm are read together."""
WAITS_PER_FURTHER_MICRO_BATCH = 0
WAITS_PER_TOKEN = 1
"""Of responses that are sampled together on a CPU, where each token is looked at; a GPU is asked once in sixteen."""


@pytest.mark.parametrize(
    ("waits", "action"),
    [
        (1, lambda values, flags: values.sum().item()),
        (1, lambda values, flags: values.tolist()),
        (1, lambda values, flags: bool(flags.any())),
        (1, lambda values, flags: float(values[0])),
        (1, lambda values, flags: values[flags]),
        (1, lambda values, flags: flags.nonzero()),
        (1, lambda values, flags: torch.bincount(flags.long())),
        (1, lambda values, flags: values.new_tensor(3.0)),
        (1, lambda values, flags: torch.tensor(3.0, device=values.device)),
        (1, lambda values, flags: torch.ones(3).to(values.device)),
        (1, lambda values, flags: values[torch.tensor([2, 0])]),
        (1, lambda values, flags: values.cpu()),
        (0, lambda values, flags: torch.ones(3).to(values.device, non_blocking=True)),
        (0, lambda values, flags: values[torch.arange(2, device=values.device)]),
        (0, lambda values, flags: (values * flags).sum() + values.new_zeros(3).sum()),
        (0, lambda values, flags: torch.ones(3).tolist()),  # of the host
        (0, lambda values, flags: torch.ones(3)[torch.tensor([True, False, True])].sum().item()),
    ],
)
def test_what_counts_as_a_wait(waits, action):
    weights = torch.nn.Linear(3, 1)
    pretend_on_gpu(weights)
    with HostWaits() as found:
        values = weights.bias.new_ones(3)
        action(values, values > 0)
    assert found.total == waits, found.found


class _Counted:
    """A stage on the pretended GPU that counts the waits of each of its steps."""

    def training_step(self, step, batch_idx):
        pretend_on_gpu(self.adapters)
        self._device = GPU
        with HostWaits() as waits:
            moved = self.datamodule.transfer_batch_to_device(step, GPU, 0)
            super().training_step(moved, batch_idx)
        self.waits.append((len(step.batches), waits))


def _trees(**labels) -> list[Tree]:
    """Eight trees of ragged lengths, with the labels of ``labels``."""
    draw = torch.Generator().manual_seed(0)
    ids = lambda n: torch.randint(5, 250, (n,), generator=draw).tolist()  # noqa: E731
    trees = []
    for number in range(8):
        responses = [ids(3 + number), ids(9 - number)]
        scored = [[True] * len(response) for response in responses]
        trees.append(Tree(ids(5), responses, scored, Group("", ["", ""], **labels)))
    return trees


PAIRS = {"pairs": (Pair(0, 1, 0.9),)}
CASES = {
    "SFT": (SFT, CrossEntropy(), LabelKind.DEMONSTRATIONS, {}),
    "DPO": (Preference, DPO(), LabelKind.PAIRS, PAIRS),
    "tokens": (Preference, Mix([DPO(), CrossEntropy()], [1.0, 1.0]), LabelKind.PAIRS, PAIRS),
    "KTO": (Preference, KTO(), LabelKind.DESIRABLE, {"desirable": (True, False)}),
    "rankings": (Preference, PlackettLuceDPO(), LabelKind.RANKING, {"ranking": (2, 1)}),
    "rewards": (RewardModel, BradleyTerry(), LabelKind.PAIRS, PAIRS),
    "ratings": (
        RewardModel, Regression(["helpfulness"]), LabelKind.RATINGS,
        {"ratings": ({"helpfulness": 3.0}, {})},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_step_makes_the_host_wait_once(name, tiny, tmp_path):
    stage_class, objective, kind, labels = CASES[name]

    class Stage(_Counted, stage_class):
        __module__ = stage_class.__module__

    class Data(TextDataModule):
        label_kind = kind

    stage = Stage(
        objective,
        base=Base(str(tiny), "none", "float32"),
        lora=Lora(r=4),
        gradient_checkpointing=False,  # it would compare the pretended device with the real one
    )
    stage.waits = []
    data = Data(train="none.jsonl", batch_size=4, token_budget=40, shuffle=False)
    data.trees["train"] = _trees(**labels)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=2, log_every_n_steps=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(stage, data)
    assert len(stage.waits) == 2
    for micro_batches, waits in stage.waits:
        assert micro_batches > 1
        further = (micro_batches - 1) * WAITS_PER_FURTHER_MICRO_BATCH
        assert waits.total <= WAITS_PER_STEP + further, waits.found


def test_a_sampled_token_makes_the_host_wait_a_few_times(tiny):
    base = Base(str(tiny), "none", "float32")
    model, tokenizer = load_model(base), load_tokenizer(base)
    pretend_on_gpu(model)

    def waits_of(tokens: int) -> int:
        with HostWaits() as waits:
            responses = sample(model, tokenizer, [[5, 6, 7], [8]], max_new_tokens=tokens, seed=3)
        assert all(len(response[0].ids) == tokens for response in responses)  # none has ended
        return waits.total

    assert waits_of(9) - waits_of(4) <= 5 * WAITS_PER_TOKEN
