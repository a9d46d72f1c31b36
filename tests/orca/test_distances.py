"""Golden values of distances between data sets, against POT, closed forms and finite differences."""

import math
from dataclasses import replace

import ot
import pytest
import torch
from torch.testing import assert_close

from lit_align.errors import DataError
from lit_align.orca import distances
from lit_align.orca.distances import (
    CORAL,
    L2,
    MMD,
    ORCA,
    OTDD,
    Moments,
    Sinkhorn,
)
from lit_align.orca.transport import DatasetStats, class_distances, transport_cost

EXACT = {"epsilon": 0.0}
TIGHT = {"tolerance": 1e-12, "max_iterations": 3000}


def wave(n, d, k, scale=1.0, shift=0.0):
    """Data without a random generator: scale * sin(k * i) + shift."""
    return (
        scale * torch.sin(k * torch.arange(1, n * d + 1, dtype=torch.float64)).reshape(n, d) + shift
    )


X = torch.cat([wave(4, 3, 0.7), wave(5, 3, 1.3, 1.5, 1.0)])
Y = torch.tensor([0] * 4 + [1] * 5)
U = torch.cat([wave(3, 3, 0.9, 1.0, -0.5), wave(4, 3, 1.7, 2.0, 0.5), wave(3, 3, 2.3, 0.5, 2.0)])
V = torch.tensor([0] * 3 + [1] * 4 + [2] * 3)


def close(value, expected, rtol=1e-5, atol=1e-6):
    assert_close(
        torch.as_tensor(value).double(),
        torch.tensor(expected, dtype=torch.float64),
        rtol=rtol,
        atol=atol,
    )


def squares(a, b):
    return ((a[:, None] - b[None]) ** 2).sum(-1)


def test_the_data_are_the_data():
    close(X.sum(), 18.163953)
    close(U.sum(), 23.515555)


def with_moments(mean, covariance):
    """Rows whose sample mean and covariance are exactly these."""
    d = len(mean)
    basis = torch.linalg.qr(
        torch.cat([torch.ones(d + 1, 1), torch.eye(d + 1)[:, :d]], 1).double()
    ).Q[:, 1:]
    return mean + basis @ torch.linalg.cholesky(covariance).T * math.sqrt(d)


@pytest.mark.parametrize(
    ("m", "s", "expected"),
    [
        (([0.0], [3.0]), ([[1.0]], [[4.0]]), 10.0),  # 3^2 + (2 - 1)^2
        (
            ([0.0, 0.0], [1.0, 2.0]),
            ([[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.3], [-0.3, 3.0]]),
            5.929312,
        ),  # POT, scipy
    ],
)
def test_two_normal_distributions(m, s, expected):
    one, other = (
        with_moments(torch.tensor(a).double(), torch.tensor(b).double())
        for a, b in zip(m, s, strict=True)
    )
    zeros = torch.zeros(len(one)).long()
    close(Moments()(one, zeros, other, zeros).value, expected)


@pytest.mark.parametrize(
    ("labels", "expected"), [("gaussian", 2.189819), ("diagonal", 1.407669), ("means", 1.292900)]
)
def test_fewer_rows_than_dimensions(labels, expected):
    one, other = wave(5, 8, 0.31), wave(6, 8, 0.47, 1.2, 0.3)
    close(Moments(labels)(one, torch.zeros(5).long(), other, torch.zeros(6).long()).value, expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("gaussian", [[0.887623, 6.038208, 12.237773], [7.203667, 2.052078, 6.750836]]),
        ("diagonal", [[0.865488, 3.109567, 11.716572], [5.939792, 1.507160, 6.419062]]),
        ("exact", [[1.918156, 5.155658, 11.829445], [7.534709, 2.797898, 6.260036]]),
    ],
)
def test_distances_between_labels(labels, expected):
    close(
        class_distances(DatasetStats.from_labels(X, Y), DatasetStats.from_labels(U, V), labels),
        expected,
    )


def test_distances_between_labels_are_those_of_pot():
    found = class_distances(DatasetStats.from_labels(X, Y), DatasetStats.from_labels(U, V))
    for c in range(2):
        for k in range(3):
            one, other = X[c == Y], U[k == V]
            root = ot.gaussian.bures_wasserstein_distance(
                one.mean(0), other.mean(0), one.T.cov(), other.T.cov()
            )
            assert_close(found[c, k], root.squeeze() ** 2, rtol=1e-6, atol=1e-6)
    close(
        class_distances(DatasetStats.from_labels(X, Y), DatasetStats.from_labels(X, Y))[0],
        [0.0, 3.485736],
    )


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (Sinkhorn(**EXACT), 2.603209),
        (Sinkhorn(p=1, **EXACT), 1.570495),
        (Sinkhorn(epsilon=0.5, debias=False, **TIGHT), 3.361587),
        (Sinkhorn(epsilon=0.5, **TIGHT), 2.349255),
        (Sinkhorn(epsilon=0.1, **TIGHT), 2.554489),
        (Sinkhorn(epsilon=5.0, **TIGHT), 0.845723),
        (OTDD(**EXACT), 6.571565),
        (OTDD(labels="exact", **EXACT), 6.888909),
        (OTDD(labels="diagonal", **EXACT), 6.014500),
        (OTDD(epsilon=0.1, **TIGHT), 6.514816),
        (OTDD(epsilon=1.0, **TIGHT), 5.936469),
        (OTDD(epsilon=1.0, debias=False, **TIGHT), 7.895390),
        (OTDD(convention="otdd", **TIGHT), 3.227111),
        (OTDD(p=1, labels="exact", **EXACT), 3.494690),
        (OTDD(epsilon=0.1, label_weight=0.0, **TIGHT), 2.554489),
    ],
)
def test_golden_values(distance, expected):
    found = distance(X, Y, U, V)
    close(found.value, expected)
    close(found.parts["distance"], expected ** (1 / distance.p))


@pytest.mark.parametrize(("epsilon", "expected"), [(0.1, 0.569315), (1.0, 1.066219)])
def test_two_points_by_hand(epsilon, expected):
    """{0, 1} to {0, 2}: the plan is [[p, q], [q, p]], p + q = 1/2, q / p = exp(-2 / epsilon), the cost 1/2 + 4q."""
    a, b = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.0], [2.0]]).double()
    q = 0.5 / (1 + math.exp(2 / epsilon))
    by_hand = 0.5 + 4 * q + epsilon * sum(2 * mass * math.log(4 * mass) for mass in (0.5 - q, q))
    assert by_hand == pytest.approx(expected, abs=1e-6)
    found = transport_cost(squares(a, b), epsilon, 1e-12, 3000)
    close(
        found, by_hand, rtol=1e-4 if epsilon < 1 else 1e-5
    )  # at 0.1 an iteration takes off a part in 10^8


def test_what_orca_compares_with():
    zeros = torch.zeros(9).long()
    close(MMD()(X, zeros, U[:9], zeros).value, 0.332590)
    close(L2()(X, zeros, U[:9], zeros).value, 2.057413)
    close(
        L2()(X[:3], zeros[:3], U[:6], zeros[:6]).value,
        float((X[:3].repeat(2, 1) - U[:6] + 1e-6).norm(dim=1).mean()),
    )
    apart = X.T.cov() - U.T.cov()
    close(CORAL()(X, Y, U, V).value, float((apart**2).sum() / 36))


def test_float32_features_lose_little():
    found = OTDD(epsilon=0.1, **TIGHT)(X.float(), Y, U.float(), V).value
    assert found.dtype == torch.float64
    close(found, 6.514816, rtol=1e-4)


def test_a_target_of_one_class():
    """Then labels and features part: OT of the features, and each source class its distance from that class."""
    one = torch.zeros(10).long()
    labels = sum(
        (c == Y).double().mean() * Moments()(X[c == Y], Y[c == Y], U, one).value for c in (0, 1)
    )
    whole = OTDD(**EXACT)(X, Y, U, one).value
    close(whole, 4.987534)
    close(whole, float(Sinkhorn(**EXACT)(X, Y, U, one).value + labels))


def test_orca_is_each_class_against_the_whole_source():
    each = sum(
        float(ot.solve_sample(X, U[c == V], reg=9.0, debias=True, max_iter=3000, tol=1e-12).value)
        * float((c == V).double().mean())
        for c in range(3)
    )
    close(ORCA(epsilon=9.0, **TIGHT)(X, Y, U, V).value, each)
    single = torch.zeros(10).long()
    both = [d(epsilon=9.0, **TIGHT)(X, Y, U, single).value for d in (ORCA, Sinkhorn)]
    close(both[0], float(both[1]))


# ---------------------------------------------------------------- gradients


def gradient(distance, u=U, v=V):
    target = u.clone().requires_grad_()
    return torch.autograd.grad(distance(X, Y, target, v).value, target)[0]


def test_golden_gradients():
    found = gradient(OTDD(epsilon=1.0, **TIGHT))
    close(found[0], [-0.234573, -0.032866, -0.038652])
    close(found.norm(), 1.972625)
    close(
        gradient(OTDD(epsilon=1.0, label_weight=0.0, **TIGHT))[0], [-0.091691, 0.077468, 0.043126]
    )


def test_the_gradient_of_label_distances_is_the_mass_between_classes():
    between = class_distances(
        DatasetStats.from_labels(X, Y), DatasetStats.from_labels(U, V)
    ).requires_grad_()
    value = transport_cost(squares(X, U) + between[Y][:, V], 1.0, 1e-12, 3000)
    mass = torch.autograd.grad(value, between)[0]
    close(mass, [[0.299997, 0.060189, 0.084259], [0.000003, 0.339811, 0.215741]])
    close(mass.sum(1), [4 / 9, 5 / 9])  # every class keeps its weight
    close(mass.sum(0), [0.3, 0.4, 0.3])


@pytest.mark.parametrize(
    "distance",
    [
        OTDD(epsilon=20.0, **TIGHT),
        OTDD(epsilon=20.0, labels="diagonal", **TIGHT),
        OTDD(epsilon=20.0, labels="means", **TIGHT),
        OTDD(epsilon=20.0, labels="exact", **TIGHT),
        OTDD(epsilon=5.0, p=1, **TIGHT),
        OTDD(epsilon=5.0, p=1, labels="exact", **TIGHT),
        OTDD(epsilon=20.0, debias=False, **TIGHT),
        OTDD(convention="otdd", epsilon=20.0, **TIGHT),
        OTDD(**EXACT),
        ORCA(epsilon=20.0, **TIGHT),
        Sinkhorn(epsilon=20.0, **TIGHT),
        Moments(),
        Moments("diagonal"),
        CORAL(),
        L2(),
    ],
    ids=repr,
)
def test_gradients_are_those_of_finite_differences(distance):
    x, y, u, v = (
        X[[0, 1, 2, 4, 5, 6]],
        Y[[0, 1, 2, 4, 5, 6]],
        U[[0, 1, 3, 4, 5]].clone(),
        V[[0, 1, 3, 4, 5]],
    )
    assert torch.autograd.gradcheck(
        lambda a, b: distance(a, y, b, v).value,
        (x.clone().requires_grad_(), u.requires_grad_()),
        atol=1e-5,
    )


def test_the_gradient_of_mmd_holds_its_bandwidth():
    """The bandwidth is a constant to the gradient, so finite differences need one that stays: move nothing but rows."""
    target = U.clone().requires_grad_()
    found = torch.autograd.grad(MMD(kernels=1)(X, Y, target, V).value, target)[0]
    both = torch.cat([X, U])
    width = squares(both, both).sum() / (19 * 18)
    kernels = [
        torch.exp(-squares(a, target) / width).mean() * scale for a, scale in ((target, 1), (X, -2))
    ]
    assert_close(found, torch.autograd.grad(sum(kernels), target)[0])


def test_gradients_where_classes_have_no_variance():
    """A class of one row is a point; a channel that never changes has no variance: both have a gradient."""
    x, u = X.clone(), U.clone()
    x[:, 1], u[:, 1], v = 2.0, 2.0, torch.tensor([0] * 4 + [1] * 5 + [2])
    lone = class_distances(DatasetStats.from_labels(x, Y), DatasetStats.from_labels(u, v))[
        :, 2
    ]  # W2 of N(m, S) to a point is |m - u|^2 + tr S
    for c in range(2):
        close(lone[c], float((x[c == Y].mean(0) - u[9]).square().sum() + x[c == Y].var(0).sum()))
    for labels in ("gaussian", "diagonal", "means", "exact"):
        for p in (1, 2):
            assert gradient(OTDD(p=p, epsilon=1.0, labels=labels), u, v).isfinite().all()


def test_identical_data_need_no_change():
    for distance in (
        OTDD(epsilon=0.1, **TIGHT),
        OTDD(p=1, epsilon=0.1, **TIGHT),
        MMD(),
        CORAL(),
        Moments(),
    ):
        target = X.clone().requires_grad_()
        value = distance(X, Y, target, Y).value
        close(value, 0.0)
        assert_close(torch.autograd.grad(value, target)[0], torch.zeros_like(X), atol=1e-6, rtol=0)


# ---------------------------------------------------------------- what stays from call to call


def test_a_relative_epsilon_is_a_share_of_the_first_mean_cost():
    distance = Sinkhorn(relative_epsilon=0.1)
    first = distance(X, Y, U, V).parts["epsilon"]
    close(first, 0.1 * float(squares(X, U).mean()))
    assert distance(X, Y, 5 * U, V).parts["epsilon"] == first
    assert Sinkhorn(relative_epsilon=0.1)(X, Y, 5 * U, V).parts["epsilon"] != first


def test_the_source_is_measured_once_and_again_when_it_changes():
    settings = {"epsilon": 9.0, **TIGHT}
    distance, source = OTDD(**settings), X.clone()
    distance(source, Y, U, V)
    held = distance._cache.source
    distance(source, Y, U + 1, V)
    assert distance._cache.source is held
    source += wave(9, 3, 0.2)
    assert_close(distance(source, Y, U, V), OTDD(**settings)(source, Y, U, V))
    assert_close(distance(source, 1 - Y, U, V), OTDD(**settings)(source, 1 - Y, U, V))


def test_measuring_without_gradient_first_does_not_spoil_training():
    distance, expected = OTDD(epsilon=1.0, **TIGHT), gradient(OTDD(epsilon=1.0, **TIGHT))
    with torch.inference_mode():
        distance(X, Y, U, V)
    assert_close(gradient(distance), expected)
    with torch.no_grad():
        assert not distance(X, Y, U.clone().requires_grad_(), V).value.requires_grad
        assert not torch.is_grad_enabled()


def test_a_source_may_learn_and_then_stay():
    settings = {"epsilon": 9.0, **TIGHT}
    distance, source = OTDD(**settings), X.clone().requires_grad_()
    for _ in range(2):
        distance(source, Y, U, V).value.backward()
    source.requires_grad_(False)
    assert not distance(source, Y, U, V).value.requires_grad


def test_one_row_is_a_point():
    for distance in (CORAL(), Moments(), OTDD(**EXACT)):
        assert gradient(distance, U[:1], V[:1]).isfinite().all()


def test_the_global_random_generator_is_left_alone():
    before = torch.get_rng_state()
    gradient(OTDD(epsilon=1.0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "distance", [OTDD(epsilon=20.0), OTDD(p=1, epsilon=5.0), ORCA(epsilon=20.0)], ids=repr
)
def test_a_large_cost_is_held_in_float32(distance, monkeypatch):
    distance = replace(distance, tolerance=1e-6)
    value, expected = distance(X, Y, U, V).value, gradient(distance)
    monkeypatch.setattr(distances, "MAX_FLOAT64_ENTRIES", 0)
    assert_close(replace(distance)(X, Y, U, V).value, value, rtol=1e-4, atol=1e-5)
    assert_close(gradient(replace(distance)), expected, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target_x": U.index_fill(0, torch.tensor(3), math.nan)},
            "row 3 of the target is not finite",
        ),
        (
            {"source_x": X.index_fill(0, torch.tensor(0), math.inf)},
            "row 0 of the source is not finite",
        ),
        ({"target_x": U[:, :2]}, r"features of the target are \[10, 2\]; give \[rows, 3\]"),
        ({"target_x": U[:0], "target_y": V[:0]}, "features of the target"),
        ({"target_y": V[:9]}, r"labels of the target are \[9\]"),
        ({"target_y": V.double()}, "LabelQuantizer"),
    ],
)
@pytest.mark.parametrize("distance", [OTDD(), MMD()], ids=repr)
def test_what_cannot_be_measured(distance, change, message):
    with pytest.raises(DataError, match=message):
        distance(**({"source_x": X, "source_y": Y, "target_x": U, "target_y": V} | change))


def test_an_epsilon_is_not_negative():
    for settings in ({"epsilon": -1.0}, {"relative_epsilon": 0.0}):
        with pytest.raises(ValueError, match="epsilon"):
            OTDD(**settings)


def test_a_file_can_name_one():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--distance", type=distances.DatasetDistance)
    found = parser.instantiate(
        parser.parse_args(["--distance=OTDD", "--distance.labels=diagonal", "--distance.p=1"])
    )
    assert found.distance == OTDD(labels="diagonal", p=1)
