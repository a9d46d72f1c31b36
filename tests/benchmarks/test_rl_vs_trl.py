"""Our update on policy and TRL's agree on loss and gradients; nothing here is timed."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import tiny

from . import inputs


def test_loss_and_gradients_are_those_of_grpo(tmp_path: Path) -> None:
    """In the first update, whose old log-probabilities are its own, and in a later one."""
    pytest.importorskip("trl")
    from .rl_vs_trl import Ours, Shape, Theirs, gate, sampled_trees

    model = str(tiny.save(tmp_path / "tiny"))
    inputs.adapter(model, "float32", tmp_path / "adapter", spread=0.5)
    shape = Shape(prompts=2, samples=4, prompt=7, response=5, rows=4)
    trees = sampled_trees(inputs.random_ids(7, 5, 8, 250), shape)
    adapter = load_file(tmp_path / "adapter")
    differences = gate(Theirs(model, trees, shape), Ours(model, trees, shape), adapter)
    assert abs(differences["later update: loss"]) > 1e-3
    assert max(value for name, value in differences.items() if "differ" in name) < 1e-5
