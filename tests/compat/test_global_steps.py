"""Several optimizer steps that Lightning counts as one global step."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from lit_align.compat.lightning import count_global_step, step_optimizer_uncounted


class ThreeUpdates(LightningModule):
    """One weight that falls by its learning rate with each update, three times in a training step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for _ in range(3):
            self.weight.grad = torch.ones(())
            step_optimizer_uncounted(self)
        assert self.global_step == batch_idx
        count_global_step(self.trainer)

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.1)


class CountHooks(Callback):
    """How often Lightning announces an optimizer step."""

    calls = 0

    def on_before_optimizer_step(self, *_):
        self.calls += 1


def test_three_updates_are_announced_and_count_as_one_global_step(tmp_path):
    hooks, module = CountHooks(), ThreeUpdates()
    trainer = Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=tmp_path, callbacks=[hooks],
    )  # fmt: skip
    trainer.fit(module, DataLoader(range(5)))
    assert (trainer.global_step, hooks.calls) == (2, 6)
    torch.testing.assert_close(module.weight.detach(), torch.tensor(0.4))
