"""The entropy bonus: its loss and gradient against all logits, and the coefficient by hand."""

import pytest
import torch

from lit_align.advantages.rloo import RLOO
from lit_align.errors import ConfigError
from lit_align.rl.entropy_bonus import EntropyBonus, EntropyControl
from lit_align.types import Group, Tree
from tests.rl.on_policy import move, policy_in_double, response_logits

TREES = [Tree([40 + k, 50, 51], [], [], Group("", [])) for k in range(2)]


@pytest.fixture(scope="module")
def module(tiny):
    """A policy in float64, but for its norms, that has left its reference."""
    module = policy_in_double(tiny, RLOO())
    move(module, 0)
    return module


def entropies(module, rollouts):
    """Of the policy before each response token, from all logits of a row."""
    values = []
    for logits, _ in response_logits(module, rollouts):
        log_probs = (logits / module.temperature).log_softmax(-1)
        values.append(-(log_probs.exp() * log_probs).sum(-1))
    return values


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_a_bonus_takes_its_share_of_the_entropy_off_the_loss(module, aggregation):
    """L - α mean H, with the gradient through H, over tokens or over responses of their means."""
    module.loss_aggregation = aggregation
    rollouts = module.make_rollouts(TREES)
    assert len(set(rollouts.length.tolist())) > 1
    measured = {}
    for name, bonus in (("without", None), ("with", EntropyBonus(coefficient=0.3))):
        module.entropy_control = EntropyControl(bonus)
        (step,) = module.steps(rollouts)
        loss, sums = module.losses(step.batches[0], statistics=False)
        loss = loss / module.loss_denominator(step)
        weights = list(module.adapters.trainable().values())
        measured[name] = (loss.detach(), torch.autograd.grad(loss, weights), sums)
    values = entropies(module, rollouts)
    mean = torch.cat(values).mean()
    if aggregation == "sequence":
        mean = torch.stack([response.mean() for response in values]).mean()
    loss, gradient, sums = measured["with"]
    plain_loss, plain_gradient, plain_sums = measured["without"]
    torch.testing.assert_close(loss, plain_loss - 0.3 * mean.detach(), rtol=1e-6, atol=1e-8)
    assert "policy/entropy" not in plain_sums
    total, count = sums["policy/entropy"]
    assert float(total / count) == pytest.approx(mean.item(), rel=1e-6)
    of_entropy = torch.autograd.grad(mean, weights)
    for got, plain, part in zip(gradient, plain_gradient, of_entropy, strict=True):
        torch.testing.assert_close(got, plain - 0.3 * part, rtol=1e-4, atol=1e-7)
    assert max(part.abs().max() for part in of_entropy) > 1e-4


def test_the_entropy_coefficient_moves_towards_its_target():
    """From 0.01 by 0.004, between 0 and the limit of 0.012; applied where the entropy before was not above 0.2."""
    control = EntropyControl(EntropyBonus(0.01, target=0.2, step=0.004, limit=0.012))
    applied, coefficients = [], []
    for measured in (0.3, 0.25, 0.5, 0.2, 0.1, 0.15, 0.05, 0.21, 0.1):
        metrics = control.end_iteration(measured)
        applied.append(metrics["objective/entropy_coefficient"])
        coefficients.append(control.coefficient)
    rising = [0.004, 0.008, 0.012, 0.012]
    assert coefficients == pytest.approx([0.006, 0.002, 0.0, *rising, 0.008, 0.012])
    assert applied == pytest.approx([0.0, 0.0, 0.0, 0.0, *rising, 0.0])
    resumed = EntropyControl(control.bonus)
    resumed.restore(control.state())
    assert vars(resumed) == vars(control)
    assert resumed.applied == pytest.approx(0.012)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "a coefficient of 0 and no target"),
        ({"coefficient": -0.1}, "entropy_bonus.coefficient must be at least 0"),
        ({"target": 0.0}, "entropy_bonus.target must be positive"),
        ({"target": 0.2, "step": 0.0}, "entropy_bonus.step must be positive"),
        ({"target": 0.2, "coefficient": 2.0}, "coefficient is 2 and entropy_bonus.limit 1; raise"),
    ],
)
def test_a_bonus_that_would_do_nothing_or_harm_is_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        EntropyBonus(**settings)


def test_a_fixed_coefficient_stays():
    control = EntropyControl(EntropyBonus(0.01))
    assert control.end_iteration(0.1) == {"objective/entropy_coefficient": 0.01}
    assert (control.coefficient, control.applied) == (0.01, 0.01)
    assert EntropyControl(None).end_iteration(0.1) == {}
