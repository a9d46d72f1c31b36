"""Our step and TRL's own trainer agree on loss and gradients; nothing here is timed."""

from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict

from lit_align.data.packing import pack
from lit_align.models.load import Base, load_model
from tests import tiny

from . import inputs, our_side, report
from .vs_trl import PROOF


@pytest.mark.parametrize("layout", ["trees", "rows"])
def test_loss_and_gradients_are_those_of_trl(tmp_path: Path, layout: str) -> None:
    pytest.importorskip("trl")
    from safetensors.torch import load_file

    from . import trl_side

    model = str(tiny.save(tmp_path / "tiny"))
    inputs.adapter(model, "float32", tmp_path / "adapter.safetensors", spread=0.5)
    job = {
        "model": model,
        "device": "cpu",
        "dtype": "float32",
        "attention": None,
        "checkpointing": False,
        "reference": "each",
        "layout": layout,
        "pairs": 5,
        "lr": 1e-3,
        "beta": 0.5,
        "max_grad_norm": 1.0,
        "adapter": load_file(tmp_path / "adapter.safetensors"),
    }
    rows = [
        inputs.random_ids(3 + 2 * k, 1 + k, 1, 250)[0] | {"chosen_ids": [*range(9, 9 + 3 * k + 1)]}
        for k in range(5)
    ]

    trainer = trl_side.trainer(
        load_model(Base(model, quantization="none", dtype="float32")), job, rows
    )
    trainer.model.train()
    theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    theirs.backward()

    stage = our_side.stage(job)
    stage.adapters.peft.train()
    ours = torch.zeros(())
    for batch in pack([our_side.tree(row) for row in rows], budget=64, dense=True):
        loss = stage.losses(batch, statistics=False)[0] / len(rows)
        loss.backward()
        ours += loss.detach()

    assert abs(theirs.item() - 0.6931) > 0.02  # the policy is not the reference
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
    gradients = [_gradients(trainer.model, "default"), _gradients(stage.adapters.peft, "policy")]
    assert gradients[0].keys() == gradients[1].keys()
    a, b = (torch.cat([g.flatten() for g in one.values()]) for one in gradients)
    assert (a - b).norm() < 1e-5 * a.norm()


def test_the_committed_figures_become_a_table() -> None:
    if not PROOF.exists():
        pytest.skip("no figures yet; run python -m tests.benchmarks.vs_trl")
    assert "| ours: trees |" in report.table(PROOF)


def _gradients(peft: torch.nn.Module, adapter: str) -> dict[str, torch.Tensor]:
    gradients = {name: p.grad for name, p in peft.named_parameters() if p.requires_grad}
    return get_peft_model_state_dict(peft, state_dict=gradients, adapter_name=adapter)
