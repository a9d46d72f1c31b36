"""Losses that bound the ratio in several ways, against TRL's own code on the same log-probabilities, with gradients."""

import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lit_align.objectives import PolicyTokens
from lit_align.objectives.cispo import CISPO
from lit_align.objectives.ppo import PPO
from tests.peers.trl_code import grpo_loss, grpo_reads

ZOO = Path(__file__).parents[2] / "plugins/lit-align-zoo"
if str(ZOO) not in sys.path:
    sys.path.append(str(ZOO))

from lit_align_zoo.gmpo import GMPO  # noqa: E402 - from its folder
from lit_align_zoo.sapo import SAPO  # noqa: E402
from lit_align_zoo.vespo import VESPO  # noqa: E402

pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")
LONGEST = 7


class Drawn:
    """Ragged responses whose log-probabilities have moved by up to a nat or so, with an advantage each."""

    def __init__(self, seed):
        draw = torch.Generator().manual_seed(seed)
        self.length = torch.tensor([3, 7, 1, 5, 2, 4])
        self.mask = (torch.arange(LONGEST) < self.length[:, None]).long()
        shape = self.mask.shape
        self.old = -3 * torch.rand(shape, generator=draw, dtype=torch.float64) * self.mask
        moves = torch.randn(shape, generator=draw, dtype=torch.float64)
        self.policy = ((self.old + moves) * self.mask).requires_grad_()
        self.advantages = torch.tensor([1.5, -0.7, 0.3, -2.0, 0.0, 0.9], dtype=torch.float64)

    def losses(self, objective):
        """Loss of each token, ``[responses, longest]``."""
        there = self.mask.bool()
        owner = there.nonzero()[:, 0]
        old = self.old[there]
        tokens = PolicyTokens(self.policy[there], old, old, owner)
        losses = objective(tokens, self.advantages[owner])
        return torch.zeros_like(self.old).masked_scatter(there, losses)


def trl_loss(given, trainer=None, **settings):
    """``_compute_loss`` of a trainer of TRL where the policy has these log-probabilities."""
    arguments = dict(
        sapo_temperature_pos=1.0, sapo_temperature_neg=1.05,
        vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0, vespo_lambda_neg=2.0,
    )  # fmt: skip
    reads = grpo_reads(arguments=arguments, max_completion_length=LONGEST, **settings)
    inputs = {
        "completion_mask": given.mask,
        "advantages": given.advantages,
        "old_per_token_logps": given.old,
    }
    return grpo_loss(reads, inputs, given.policy, 0 * given.old, trainer)


def of_tokens(losses, given):
    return losses.sum() / given.mask.sum()


def of_sequences(losses, given):
    return (losses.sum(1) / given.length).mean()


def of_sums(losses, given):
    """``loss_aggregation: constant``, times the limit of a response."""
    return losses.sum() / (len(losses) * LONGEST) * LONGEST


KINDS = {
    "cispo": (CISPO(cap=1.5), of_tokens, {"epsilon_high": 1.5}),
    "sapo": (SAPO(), of_sequences, {}),
    "vespo": (VESPO(), of_tokens, {}),
    "luspo": (PPO(ratio="sequence"), of_sums, {"importance_sampling_level": "sequence"}),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("loss_type", KINDS)
def test_loss_and_gradient_are_those_of_trl(loss_type, seed):
    objective, reduce, settings = KINDS[loss_type]
    given = Drawn(seed)
    ours = reduce(given.losses(objective), given)
    theirs = trl_loss(given, loss_type=loss_type, **settings)
    assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(loss, given.policy)[0] for loss in (ours, theirs)]
    assert gradients[0].abs().max() > 1e-2
    assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gmpo_is_that_of_trl(seed):
    from trl.experimental.gmpo.gmpo_trainer import GMPOTrainer

    given = Drawn(seed)
    ours = of_sequences(given.losses(GMPO()), given)
    theirs = trl_loss(given, GMPOTrainer, loss_type="grpo", epsilon_low=0.4, epsilon_high=0.4)
    assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(loss, given.policy)[0] for loss in (ours, theirs)]
    assert_close(*gradients, rtol=1e-9, atol=1e-12)
