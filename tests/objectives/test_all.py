"""Every registered objective keeps the promises of its family; DPO and IPO are what TRL computes."""

from collections import defaultdict
from importlib.metadata import version
from math import exp, log
from types import SimpleNamespace

import pytest
import torch

from lit_align.objectives import Logps, PairwiseObjective, SupervisedObjective
from lit_align.objectives.dpo import DPO
from lit_align.objectives.ipo import IPO
from lit_align.plugins import load_plugins
from lit_align.testing import check_objective

OBJECTIVES = load_plugins().objectives
PAIRWISE = [name for name in OBJECTIVES if issubclass(OBJECTIVES[name], PairwiseObjective)]
SUPERVISED = [name for name in OBJECTIVES if issubclass(OBJECTIVES[name], SupervisedObjective)]


def test_every_objective_is_of_a_family():
    assert sorted(PAIRWISE + SUPERVISED) == list(OBJECTIVES)


@pytest.mark.parametrize("name", PAIRWISE)
def test_pairwise(name):
    check_objective(OBJECTIVES[name]())


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised(name):
    objective = OBJECTIVES[name]()
    logps = torch.tensor([-1e4, -3.0, -1e-6, 0.0], dtype=torch.float64, requires_grad=True)
    losses = objective(logps)
    assert losses.shape == logps.shape
    assert losses.isfinite().all()
    torch.autograd.gradcheck(objective, logps)
    (gradient,) = torch.autograd.grad(losses.sum(), logps)
    assert (gradient < 0).all()  # descending makes every token likelier


def test_length_averaged_ipo_is_an_objective_too():
    check_objective(IPO(length_average=True))


def test_dpo_at_points_with_round_margins():
    """Margins of 0, 10 and 20 nats: 0.4 - 0.4; 20.1 - (-9.9) ... as log(1 + e^-x) with x = 0, 1, 2."""
    chosen = Logps.of([-0.5, -10.0, -1.0], [-0.5, -10.1, -0.1])
    rejected = Logps.of([-0.1, -30.0, -21.0], [-0.1, -20.1, -0.1])
    wanted = torch.tensor([log(1 + exp(-x)) for x in (0, 1, 2)])
    torch.testing.assert_close(DPO(beta=0.1)(chosen, rejected), wanted)


class Recorded:
    """A causal LM whose log-probabilities of the tokens are given."""

    def __init__(self, logps):
        self.logps = logps

    def __call__(self, **inputs):
        nothing = torch.zeros_like(self.logps)
        top1 = nothing.bool()
        return SimpleNamespace(log_probs=self.logps, entropy=nothing, mean_logits=nothing, is_top1=top1)


def trl_loss(loss_type, beta, policy, reference, mask):
    """TRL's own ``DPOTrainer._compute_loss`` on given log-probabilities, ``[2 * pairs, tokens]``."""
    DPOTrainer = pytest.importorskip("trl.trainer.dpo_trainer").DPOTrainer
    reads = SimpleNamespace(
        model=SimpleNamespace(training=True),
        ref_model=Recorded(reference),
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    before = torch.zeros(len(mask), 1, dtype=mask.dtype)  # the first token is never predicted
    ref_chosen, ref_rejected = reference.sum(1).chunk(2)
    completion_mask = torch.cat([before, mask], dim=1)
    inputs = {
        "input_ids": torch.zeros_like(completion_mask),
        "attention_mask": torch.ones_like(completion_mask),
        "completion_mask": completion_mask,
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    return DPOTrainer._compute_loss(reads, Recorded(policy), inputs, return_outputs=False)


@pytest.mark.parametrize(
    ("objective", "loss_type"),
    [(DPO(beta=0.1), "sigmoid"), (DPO(beta=0.7), "sigmoid"), (IPO(beta=0.1, length_average=True), "ipo")],
    ids=repr,
)
def test_parity_with_trl(objective, loss_type):
    pytest.importorskip("trl")
    assert version("trl") == "1.16.0"
    draw = torch.Generator().manual_seed(1)
    pairs, tokens = 6, 9
    length = torch.randint(1, tokens + 1, (2 * pairs,), generator=draw)
    mask = (torch.arange(tokens) < length[:, None]).long()
    policy, reference = (-8 * torch.rand(2 * pairs, tokens, generator=draw, dtype=torch.float64) for _ in range(2))
    policy, reference = (policy * mask).requires_grad_(), reference * mask

    theirs = trl_loss(loss_type, objective.beta, policy, reference, mask)
    sides = [
        Logps(p.sum(1), r.sum(1), n)
        for p, r, n in zip(policy.chunk(2), reference.chunk(2), length.chunk(2), strict=True)
    ]
    ours = objective(*sides).mean()

    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    (wanted,), (found,) = (torch.autograd.grad(loss, policy) for loss in (theirs, ours))
    torch.testing.assert_close(found * mask, wanted * mask, rtol=1e-8, atol=1e-8)
