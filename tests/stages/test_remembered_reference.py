"""The reference reads each row once in a run; what it said is forgotten when it moves."""

from collections import Counter

import lightning.pytorch as lightning
import pytest
import torch

from lit_align.data.datamodules import Comparisons
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.models.reference_memory import ENTRY_NUMBERS, ReferenceMemory
from lit_align.models.tree_forward import TreeForward
from lit_align.objectives.dpo import DPO
from lit_align.online.datamodule import Online
from lit_align.stages.preference import Preference
from lit_align.types import Group, Tree
from tests.stages.runs import write_pairs

ROWS, STEPS = 6, 3  # rows of the data, and steps of an epoch


class ByToken(DPO):
    """DPO that reads the tokens of its reference; their sums are its log-probabilities."""

    token_fields = frozenset({"reference"})

    def __call__(self, chosen, rejected):
        assert chosen.tokens.reference is not None
        torch.testing.assert_close(chosen.tokens.reference.sum(1), chosen.reference)
        return super().__call__(chosen, rejected)


class CountingForward(TreeForward):
    """Counts the responses that each role reads."""

    def count(self, adapters) -> None:
        self.adapters, self.read = adapters, Counter()

    def hidden(self, trees):
        self.read[self.adapters.active] += trees.responses
        return super().hidden(trees)


class Trace(lightning.Callback):
    """Responses that the reference has read by the end of each epoch, and the loss of each step."""

    def __init__(self, moving: bool) -> None:
        self.moving, self.read, self.losses = moving, [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.losses.append(trainer.callback_metrics["loss"].item())

    def on_train_epoch_start(self, trainer, module):
        """Before the first step, read some rows as a report does, in micro-batches of its own."""
        if trainer.current_epoch == 0:
            loader = trainer.datamodule.step_loader("train", shuffle=False, resumes=False)
            (batch,) = next(iter(loader)).batches
            module.label_losses(batch, module.tree_forward(batch.trees))
            module.tree_forward.read.clear()
            assert module._reference.state() == {}

    def on_train_epoch_end(self, trainer, module):
        self.read.append(module.tree_forward.read["reference"])
        if self.moving:
            module.adapters.interpolate("reference", "policy")


def fit(objective, tiny, folder, *, remembers=True, moving=False, epochs=3):
    """A run of three epochs without the command, validated after each."""
    module = Preference(
        objective, base=Base(str(tiny), "none", "float32"), lora=Lora(r=4, dropout=0.1),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )  # fmt: skip
    module.configure_model()
    module._tree_forward = CountingForward(module.adapters.model)
    module._tree_forward.count(module.adapters)
    pairs = str(write_pairs(folder / "pairs.jsonl", rows=ROWS))
    data = Comparisons(pairs, validation=pairs, batch_size=2, token_budget=256, max_length=256)
    if not remembers:
        data.repeats_rows = False
    trace = Trace(moving)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, callbacks=[trace],
        enable_progress_bar=False, default_root_dir=folder, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, data)
    return module, trace


@pytest.mark.parametrize("objective", [DPO(), ByToken()], ids=["by response", "by token"])
def test_each_row_is_read_once(objective, tiny, tmp_path):
    """12 responses in the first epoch, 12 in the first validation; the same losses as without memory."""
    module, trace = fit(objective, tiny, tmp_path)
    assert trace.read == [24, 24, 24]
    _, plain = fit(objective, tiny, tmp_path, remembers=False)
    assert plain.read == [24, 48, 72]
    assert trace.losses == pytest.approx(plain.losses, abs=2e-6)
    assert len(set(plain.losses)) == 3 * STEPS
    state = module._reference.state()
    assert state["sizes"].sum() == len(state["values"])
    assert len(state["sizes"]) == ROWS


def test_a_reference_that_moves_is_read_again(tiny, tmp_path):
    _, trace = fit(DPO(), tiny, tmp_path, moving=True)
    assert trace.read == [24, 48, 72]
    _, plain = fit(DPO(), tiny, tmp_path, moving=True, remembers=False)
    assert trace.losses == pytest.approx(plain.losses, abs=2e-6)


def test_rounds_do_not_repeat_their_rows():
    assert Comparisons.repeats_rows
    assert not Online.repeats_rows


def tree(k):
    return Tree([k], [[k + 1], [k + 2]], [[True], [True]], Group("", ["", ""]))


def test_what_does_not_fit_is_computed_again():
    """Two of three rows fit; the first number of a row is the one that counts."""
    memory = ReferenceMemory(max_numbers=2 * (2 + ENTRY_NUMBERS))
    trees = [tree(10), tree(20), tree(30)]
    first, second = torch.arange(6.0), torch.arange(6.0) + 100
    assert memory.get_or_compute(trees, [2, 2, 2], lambda: first).tolist() == first.tolist()
    again = memory.get_or_compute(trees, [2, 2, 2], lambda: second)
    assert again.tolist() == [0, 1, 2, 3, 104, 105]
    assert len(memory) == 2


def test_a_restored_memory_is_the_saved_one():
    memory, restored = ReferenceMemory(), ReferenceMemory()
    assert memory.state() == {}
    restored.restore({}, torch.device("cpu"))
    memory.get_or_compute([tree(1)], [2], lambda: torch.tensor([0.1, 0.2], dtype=torch.float64))
    memory.get_or_compute([tree(4)], [2], lambda: torch.tensor([0.3, 0.4], dtype=torch.float64))
    restored.restore(memory.state(), torch.device("cpu"))
    values = restored.get_or_compute([tree(4), tree(1)], [2, 2], None)
    assert values.tolist() == [0.3, 0.4, 0.1, 0.2]
    assert values.dtype == torch.float64
    for name, saved in memory.state().items():
        assert torch.equal(restored.state()[name], saved)
