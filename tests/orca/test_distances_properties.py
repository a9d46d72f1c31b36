"""What holds of a distance between any two data sets."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from lit_align.orca.distances import OTDD, Moments
from lit_align.orca.transport import DatasetStats, class_distances

TIGHT = {"tolerance": 1e-9, "max_iterations": 500}


@st.composite
def clouds(draw):
    """Rows of 2 or 3 classes; a class may have one row, or fewer or more rows than dimensions."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    counts = draw(st.lists(st.integers(1, 5), min_size=2, max_size=3))
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = torch.randn(len(y), 3, generator=generator, dtype=torch.float64)
    return x + torch.randn(len(counts), 3, generator=generator, dtype=torch.float64)[y], y


def otdd(*data, epsilon=20.0, **fields):
    return OTDD(epsilon=epsilon, **TIGHT, **fields)(*data).value


def same(one, other):
    assert_close(one, other, rtol=1e-6, atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(
    clouds(),
    st.sampled_from([0.0, 20.0, 50.0]),
    st.sampled_from(["gaussian", "diagonal", "means", "exact"]),
)
def test_a_data_set_is_at_no_distance_from_itself_and_at_twice_the_square_of_a_shift(
    cloud, epsilon, labels
):
    x, y = cloud
    shift = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    same(otdd(x, y, x, y, epsilon=epsilon, labels=labels), torch.zeros(()).double())
    same(
        otdd(x, y, x + shift, y, epsilon=epsilon, labels=labels), 2 * shift.square().sum()
    )  # 2 * 0.38


@settings(max_examples=10, deadline=None)
@given(clouds(), clouds(), st.randoms(use_true_random=False))
def test_order_names_sides_and_axes_do_not_matter(one, other, random):
    (x, y), (u, v) = one, other
    expected = otdd(x, y, u, v)
    order = torch.tensor(random.sample(range(len(x)), len(x)))
    same(otdd(x[order], y[order], u, v), expected)
    same(otdd(x, 7 - 2 * y, u, v), expected)
    same(otdd(u, v, x, y), expected)
    turn = torch.linalg.qr(x.T @ x + torch.eye(3)).Q
    same(otdd(x @ turn, y, u @ turn, v), expected)
    same(otdd(3 * x, y, 3 * u, v, epsilon=180.0), 9 * expected)


@settings(max_examples=50, deadline=None)
@given(clouds(), clouds())
def test_the_more_of_a_class_is_known_the_farther_it_is(one, other):
    a, b = DatasetStats.from_labels(*one), DatasetStats.from_labels(*other)
    means, diagonal, full = (
        class_distances(a, b, labels) for labels in ("means", "diagonal", "gaussian")
    )
    spread = [torch.stack([f.square().sum() for f in side.factors]) for side in (a, b)]
    slack = 1e-9
    assert (means <= diagonal + slack).all()
    assert (diagonal <= full + slack).all()
    assert (full <= means + spread[0][:, None] + spread[1] + slack).all()


@settings(max_examples=10, deadline=None)
@given(clouds(), clouds())
def test_a_distance_by_transport_is_never_negative(one, other):
    assert otdd(*one, *other) > -1e-8
    assert Moments()(*one, *other).value >= 0
