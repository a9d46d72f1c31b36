"""Our update on policy and TRL's agree on loss and gradients; nothing here is timed."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import tiny

from . import inputs


def test_loss_and_gradients_are_those_of_grpo(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from .rl_vs_trl import SAMPLES, Ours, Theirs, gate, rollouts

    model = str(tiny.save(tmp_path / "tiny"))
    inputs.adapter(model, "float32", tmp_path / "adapter", spread=0.5)
    adapter, tree = load_file(tmp_path / "adapter"), rollouts(inputs.random_ids(7, 5, SAMPLES, 250))
    found = gate(Theirs(model, tree, adapter), Ours(model, tree, adapter), adapter)
    assert abs(found["loss"]) > 1e-3
    assert max(value for name, value in found.items() if "differ" in name) < 1e-5
