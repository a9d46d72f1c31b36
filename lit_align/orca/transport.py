"""Statistics of labelled data sets, distances between their classes, and the cost of optimal transport."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Labels = Literal["gaussian", "diagonal", "means", "exact"]


class DatasetStats(NamedTuple):
    """A data set and the statistics of each class.

    Args:
        x: features, ``[n, d]``.
        y: classes 0, 1, ..., ``[n]``.
        means: of each class, ``[classes, d]``.
        factors: of each class, ``[r, d]`` with r at most d; its covariance is ``factor.T @ factor``, and zero for a
            class of one row.
    """

    x: Tensor
    y: Tensor
    means: Tensor
    factors: tuple[Tensor, ...]

    @classmethod
    def from_labels(cls, x: Tensor, y: Tensor) -> DatasetStats:
        """Statistics of ``x`` by the classes ``y``."""
        names, index = torch.unique(y, return_inverse=True)
        classes = [x[index == c] for c in range(len(names))]
        factors = []
        for rows in classes:
            degrees_of_freedom = max(len(rows) - 1, 1)
            deviations = rows - rows.mean(0)
            scaled = deviations / math.sqrt(degrees_of_freedom)
            factors.append(_reduce_rows(scaled))
        means = torch.stack([rows.mean(0) for rows in classes])
        return cls(x, index, means, tuple(factors))


def _reduce_rows(rows: Tensor) -> Tensor:
    """At most d rows with the same Gram matrix and the same gradient of it: a rotation within their span."""
    if rows.shape[0] <= rows.shape[1]:
        return rows
    basis: Tensor = torch.linalg.qr(rows.detach()).Q
    return basis.T @ rows


def safe_sqrt(square: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero; rounding errors below zero count as zero."""
    positive = square > 0
    return torch.where(positive, square, 1.0).sqrt() * positive


def nuclear_norm(a: Tensor, b: Tensor) -> Tensor:
    r"""Nuclear norm of :math:`AB^\top`; of Gram matrices S and S' it is the trace of :math:`(S^{1/2}S'S^{1/2})^{1/2}`.

    Example:
        >>> float(nuclear_norm(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.eye(2)))
        5.0
    """
    product = a @ b.T
    with torch.no_grad():
        left, singular, right = torch.linalg.svd(product, full_matrices=False)
        precision = torch.finfo(singular.dtype).eps
        threshold = singular[0] * max(product.shape) * precision
        rank = singular > threshold  # the directions of the others are arbitrary
        gradient = left[:, rank] @ right[rank]
    norm: Tensor = (gradient * product).sum()
    return norm


def pairwise_powers(a: Tensor, b: Tensor, p: int) -> Tensor:
    """Euclidean distances between all rows to the power p, 1 or 2, ``[n, m]``."""
    if p == 1:  # the gradient where two rows coincide is zero
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    square_norms_a = a.square().sum(1)
    square_norms_b = b.square().sum(1)
    squares = square_norms_a[:, None] + square_norms_b - 2 * a @ b.T
    return squares.clamp_min(0)


def class_distances(
    a: DatasetStats, b: DatasetStats, labels: Labels = "gaussian", p: int = 2
) -> Tensor:
    r"""Distance between each class of a and each class of b to the power p, ``[classes of a, classes of b]``.

    .. math:: W_2^2 = \lVert m-m'\rVert^2 + \lVert A\rVert_F^2 + \lVert A'\rVert_F^2 - 2\lVert AA'^\top\rVert_*

    ``labels`` are as for `OTDD`; for p of 1, all but exact give the root of the formula.
    """
    symmetric = a is b  # then a class is at distance zero from itself, to the last digit
    pairs: list[tuple[int, int]] = []
    values: list[Tensor] = []
    for c in range(len(a.means)):
        for k in range(len(b.means)):
            if not symmetric or c < k:
                pairs.append((c, k))
                values.append(_class_distance(a, c, b, k, labels, p))
    matrix = a.means.new_zeros(len(a.means), len(b.means))
    if not values:
        return matrix
    rows, columns = torch.tensor(pairs, device=matrix.device).T
    matrix = matrix.index_put((rows, columns), torch.stack(values))
    return matrix + matrix.T if symmetric else matrix


def _class_distance(
    a: DatasetStats, c: int, b: DatasetStats, k: int, labels: Labels, p: int
) -> Tensor:
    """Distance between class c of a and class k of b, to the power p."""
    if labels == "exact":
        rows_a = a.x[a.y == c]
        rows_b = b.x[b.y == k]
        return transport_cost(pairwise_powers(rows_a, rows_b, p), 0.0)
    mean_difference = a.means[c] - b.means[k]
    square = mean_difference.square().sum()
    factor_a = a.factors[c]
    factor_b = b.factors[k]
    if labels == "gaussian":
        variances = factor_a.square().sum() + factor_b.square().sum()
        bures = variances - 2 * nuclear_norm(factor_a, factor_b)
        square = square + bures.clamp_min(0)
    elif labels == "diagonal":
        std_a = safe_sqrt(factor_a.square().sum(0))
        std_b = safe_sqrt(factor_b.square().sum(0))
        square = square + (std_a - std_b).square().sum()
    return square if p == 2 else safe_sqrt(square)


def transport_cost(
    cost: Tensor, epsilon: float, tolerance: float = 1e-4, max_iterations: int = 300
) -> Tensor:
    r"""Optimal transport cost from n rows to m rows of uniform weight.

    .. math:: \min_\pi \langle\pi, C\rangle + \epsilon\,KL(\pi\,\|\,a\otimes b)

    ``epsilon`` is in the units of the cost, and 0 is exact; other settings are those of `Transport`.

    Example:
        >>> cost = torch.cdist(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])) ** 2
        >>> float(transport_cost(cost, 0.0))
        0.5
    """
    import ot

    if epsilon == 0:
        return ot.solve(cost).value  # type: ignore[no-any-return]
    solution = ot.solve(
        cost, reg=epsilon, reg_type="KL", grad="envelope", tol=tolerance, max_iter=max_iterations
    )
    return solution.value.double()  # type: ignore[no-any-return]
