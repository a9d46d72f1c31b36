"""Solutions that people share, against closed forms of quadratic losses."""

import pytest
import torch

from lit_align.functional.mixtures import shared_minima, spread_out
from lit_align.functional.shrinkage import shrunk_minimum


def quadratic(*people):
    """Minus the log-likelihood of each one's observations, so many at a centre with variance 1."""
    centres = torch.tensor([centre for centre, _ in people]).double()
    weights = torch.tensor([weight for _, weight in people]).double()
    return lambda delta: weights / 2 * (delta - centres).square().sum(1)


def test_two_camps_are_two_solutions_each_shrunk_by_its_observations():
    """A camp's solution is Σ n m / (Σ n + κ), whatever the other camp thinks."""
    camps = [([3.0, 0.0], 20), ([3.0, 1.0], 10), ([-3.0, 0.0], 40)]
    starts = [torch.tensor([1.0, 0.0]).double(), torch.tensor([-1.0, 0.0]).double()]
    solutions, memberships = shared_minima(quadratic(*camps), starts, 5.0)
    first = torch.tensor([20 * 3 + 10 * 3, 10 * 1.0]).double() / (30 + 5)
    second = torch.tensor([-40 * 3, 0.0]).double() / (40 + 5)
    torch.testing.assert_close(solutions, torch.stack([first, second]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(memberships, torch.tensor([[1, 0], [1, 0], [0, 1]]).double())


def test_one_solution_is_the_minimum_of_all():
    losses = quadratic(([1.0], 3), ([5.0], 1))
    solutions, memberships = shared_minima(losses, [torch.zeros(1).double()], 2.0)
    pooled = shrunk_minimum(lambda delta: losses(delta).sum(), torch.zeros(1), 2.0)
    assert solutions[0].item() == pytest.approx(8 / 6)
    assert solutions[0].item() == pytest.approx(pooled.item())
    assert memberships.tolist() == [[1.0], [1.0]]


def test_someone_without_an_opinion_is_as_the_others_are():
    """No observation leaves the shares of the components, of which this person's membership is a part."""
    losses = quadratic(([4.0], 30), ([4.0], 30), ([-4.0], 30), ([0.0], 0))
    starts = [torch.tensor([1.0]).double(), torch.tensor([-1.0]).double()]
    _, memberships = shared_minima(losses, starts, 1.0, max_rounds=200)
    # the fixed point of p = (2 + p) / 4
    assert memberships[3, 0].item() == pytest.approx(2 / 3, abs=1e-4)


def test_starts_are_far_apart():
    points = torch.tensor([[1.0, 0], [1.1, 0], [0, 1], [-2, 0]])
    assert spread_out(points, 3) == [3, 1, 2]
