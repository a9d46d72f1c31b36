"""Policy losses and advantages against their definitions, and where they are the plain policy gradient."""

import pytest
import torch
from lit_align_zoo.batch_grpo import BatchGRPO
from lit_align_zoo.gmpo import GMPO
from lit_align_zoo.max_rl import MaxRL
from lit_align_zoo.optimal_token_baseline import OptimalTokenBaseline
from lit_align_zoo.reinforce_plus_plus import ReinforcePlusPlus
from lit_align_zoo.sapo import SAPO
from lit_align_zoo.vespo import VESPO
from torch.testing import assert_close

from lit_align.advantages import Rollouts
from lit_align.objectives import PolicyTokens
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.testing import check_objective


@pytest.mark.parametrize("objective", [SAPO(), GMPO(), VESPO()], ids=repr)
def test_it_conforms(objective):
    check_objective(objective)


@pytest.mark.parametrize("objective", [SAPO(), GMPO(), VESPO()], ids=repr)
def test_in_the_first_update_it_is_the_policy_gradient(objective):
    """At r = 1, over responses whose tokens share an advantage."""
    logps = torch.tensor([-0.3, -2.0, -1.0, -0.1, -0.7], dtype=torch.float64, requires_grad=True)
    old, owner = logps.detach(), torch.tensor([0, 0, 0, 1, 1])
    advantages = torch.tensor([1.5, -0.5], dtype=torch.float64)[owner]
    tokens = PolicyTokens(logps, old, old, owner)
    found, plain = (
        torch.autograd.grad(loss(tokens, advantages).sum(), logps)[0]
        for loss in (objective, PolicyGradient())
    )
    assert_close(found, plain)


def drawn(seed):
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(5) < torch.tensor([3, 1, 4, 2, 5])[:, None]
    rewards = torch.rand(5, 5, generator=draw, dtype=torch.float64) * mask
    logps = -torch.rand(5, 5, generator=draw, dtype=torch.float64) * mask
    collision = 1.8 * logps  # at least the square of the token's own probability
    return Rollouts(
        rewards, mask, torch.tensor([0, 0, 0, 1, 1]), 0 * rewards, torch.tensor(0.0),
        old_logps=logps, collision=collision,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_optimal_token_baseline_is_its_sum(seed):
    given = drawn(seed)
    found = OptimalTokenBaseline()(given)
    for i in range(5):
        for t in range(5):
            if not given.mask[i, t]:
                assert found[i, t] == 0
                continue
            above = below = 0.0
            for j in range(5):
                if given.prompt[j] == given.prompt[i] and given.mask[j, t]:
                    weight = sum(
                        1 - 2 * given.old_logps[j, s].exp() + given.collision[j, s].exp()
                        for s in range(t + 1)
                    )
                    above += weight * given.rewards[j, t:].sum()
                    below += weight
            assert found[i, t].item() == pytest.approx(
                (given.rewards[i, t:].sum() - above / below).item()
            )


def test_advantages_of_groups_against_their_definitions():
    given = drawn(0)
    totals = given.rewards.sum(1)
    for part in (slice(0, 3), slice(3, 5)):
        mine = totals[part]
        assert_close(MaxRL()(given)[part, 0], (mine - mine.mean()) / mine.mean())
        assert_close(BatchGRPO()(given)[part, 0], (mine - mine.mean()) / (totals.std() + 1e-4))
        assert_close(ReinforcePlusPlus()(given)[part, 0], mine - mine.mean())


def test_max_rl_learns_nothing_where_nothing_succeeds_and_refuses_losses():
    given = drawn(0)
    assert (MaxRL()(given._replace(rewards=0 * given.rewards)) == 0).all()
    with pytest.raises(ValueError, match="needs rewards of at least 0"):
        MaxRL()(given._replace(rewards=-given.rewards))
