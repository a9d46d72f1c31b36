"""Responses that another engine or an older policy samples lead to the same optimum."""

import pytest
import torch

from lit_align.advantages.gae import GAE
from lit_align.advantages.rloo import RLOO
from lit_align.functional.importance import truncated_importance_weights
from lit_align.models.samplers.in_process import InProcess
from lit_align.models.samplers.served import Served
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.objectives.ppo import PPO
from lit_align.rl.kl_control import KLControl
from tests import tiny
from tests.engine import running
from tests.rl.listable import TREE, Noisy, distance, listable, optimum


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return tiny.words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def server(words):
    with running(words) as server:
        yield server


def test_the_mean_weight_is_one_and_weighted_means_are_the_policys():
    """Without a cap E_μ[w] = 1 and E_μ[w f] = E_π[f]: sums over all tokens."""
    random = torch.Generator().manual_seed(0)
    policy = torch.randn(50, generator=random, dtype=torch.float64).log_softmax(-1)
    sampler = torch.randn(50, generator=random, dtype=torch.float64).log_softmax(-1)
    value = torch.randn(50, generator=random, dtype=torch.float64)
    weights = truncated_importance_weights(policy, sampler, cap=None)
    torch.testing.assert_close((sampler.exp() * weights).sum(), torch.tensor(1.0).double())
    torch.testing.assert_close(
        (sampler.exp() * weights * value).sum(), (policy.exp() * value).sum()
    )
    capped = truncated_importance_weights(policy.requires_grad_(), sampler, cap=2.0)
    assert capped.max() == 2.0
    assert not capped.requires_grad
    torch.testing.assert_close(capped, weights.clamp(max=2.0))


@pytest.mark.parametrize(
    ("objective", "advantage", "staleness"),
    [(PPO(), GAE(lam=1.0, whiten=False), 1), (PolicyGradient(), RLOO(), 0)],
    ids=["PPO, a step old", "RLOO"],
)
def test_it_converges_through_a_server_whose_numbers_differ(
    objective, advantage, staleness, words, server
):
    server.plan(noise=0.1)
    module = listable(
        words,
        objective,
        advantage,
        KLControl(0.5),
        staleness=staleness,
        sampler=Served([server.url]),
    )
    wanted = optimum(module)
    assert distance(wanted, module, "reference") > 0.2
    module.learn([TREE], 150, 0.01)
    assert distance(wanted, module) < 0.02


def test_the_policy_that_samples_itself_has_no_weights(words):
    settings = PolicyGradient(), RLOO(), KLControl()
    assert listable(words, *settings).importance is None
    assert listable(words, *settings, staleness=1).importance.cap == 2.0
    assert listable(words, *settings, sampler=Noisy(0.1)).importance.cap == 2.0
    unweighted = listable(words, *settings, sampler=Noisy(0.1), importance_sampling_cap=None)
    assert unweighted.importance is None
    assert "policy/importance_weight" not in unweighted.metric_names
    assert InProcess.is_exact
