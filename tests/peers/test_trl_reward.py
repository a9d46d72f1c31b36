"""Bradley-Terry against the code of TRL's RewardTrainer, in double precision."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from lit_align.batch_labels import PairLabels
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.stages.preference_losses import pairwise_losses
from lit_align.types import Logps

pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")
PAIRS = 6


def trl_loss(
    scores: torch.Tensor, margin: torch.Tensor | None, centre: float | None
) -> torch.Tensor:
    """``RewardTrainer.compute_loss`` on scores that are given, ``[2 * pairs]``: the chosen ones first."""
    from trl.trainer.reward_trainer import RewardTrainer

    reads = SimpleNamespace(
        model=torch.nn.Identity(),
        args=SimpleNamespace(center_rewards_coefficient=centre),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "attention_mask": torch.ones(2 * PAIRS, 3),
        **({} if margin is None else {"margin": margin}),
    }
    return RewardTrainer.compute_loss(
        reads, lambda **inputs: SimpleNamespace(logits=scores[:, None]), inputs
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_margin", [False, True])
@pytest.mark.parametrize("centre", [None, 0.01])
def test_loss_and_gradient_are_those_of_trl(seed, with_margin, centre):
    draw = torch.Generator().manual_seed(seed)
    scores = (4 * torch.randn(2 * PAIRS, generator=draw, dtype=torch.float64)).requires_grad_()
    margin = torch.rand(PAIRS, generator=draw, dtype=torch.float64) if with_margin else None
    index = torch.arange(2 * PAIRS)
    nothing, sure = torch.zeros(PAIRS, dtype=torch.float64), torch.ones(PAIRS, dtype=torch.float64)
    labels = PairLabels(
        index[:PAIRS], index[PAIRS:], sure, nothing if margin is None else margin, index[:PAIRS]
    )
    one = Logps(scores, torch.zeros_like(scores), torch.ones_like(scores))
    ours = pairwise_losses(
        BradleyTerry(centre=centre or 0.0), labels, one, label_noise=0.0
    ).losses.mean()
    other = trl_loss(scores, margin, centre)
    torch.testing.assert_close(ours, other, rtol=1e-12, atol=0)
    (mine,), (found,) = (torch.autograd.grad(loss, scores) for loss in (ours, other))
    torch.testing.assert_close(mine, found, rtol=1e-12, atol=1e-15)
