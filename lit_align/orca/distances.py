r"""How far apart two labelled data sets are, as a loss: OTDD (Alvarez-Melis & Fusi, 2020, https://arxiv.org/abs/2002.02923).

What differs from that paper's package, and from ORCA (Shen et al., 2023, https://arxiv.org/abs/2302.05738), which uses
it: both sides keep their labels, label distances carry their gradient, costs are whole squares unless ``convention``
says otherwise, and Sinkhorn runs until it has converged. Every gradient is that of an optimum (Danskin): of a transport
the plan, of a nuclear norm :math:`UV^\top`; no iteration is kept and no decomposition differentiated.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import DataError

LARGE = 2**24
"""Entries of a cost matrix from which it is held in float32; a solver needs about six times as much."""

Labels = Literal["gaussian", "diagonal", "means", "exact"]


class Distance(NamedTuple):
    """How far apart two data sets are: ``value``, in float64 with its gradient, and parts of it to log, without."""

    value: Tensor
    parts: dict[str, Tensor] = {}  # noqa: RUF012 - never written to


class DatasetDistance(ABC):
    """How far a target is from a source: a frozen dataclass whose fields are its settings."""

    def __call__(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Distance:
        """Measure; gradients reach whatever of ``x`` and ``u`` asks for them.

        Args:
            x: features of the source, ``[n, d]``.
            y: its classes, ``[n]``, as whole numbers.
            u: features of the target, ``[m, d]``.
            v: its classes, ``[m]``, which need not be the source's.
        """
        for name, features, labels in (("source", x, y), ("target", u, v)):
            if features.dim() != 2 or not len(features) or features.shape[1] != x.shape[1]:
                raise DataError(
                    f"features of the {name} are {list(features.shape)}; give [rows, {x.shape[-1]}]"
                )
            if labels.shape != features.shape[:1] or labels.is_floating_point():
                found = f"{list(labels.shape)} {labels.dtype} for {len(features)} rows"
                raise DataError(
                    f"labels of the {name} are {found}; give classes, which LabelQuantizer makes of others"
                )
            if not bool((finite := features.isfinite().all(1)).all()):
                raise DataError(
                    f"row {int((~finite).nonzero()[0])} of the {name} is not finite; mend or drop it"
                )
        return self.measure(x, y, u, v)

    @abstractmethod
    def measure(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Distance:
        """The distance between data that were found sound; arguments as above."""


class Side(NamedTuple):
    """A data set ``[n, d]`` and its classes 0, 1, ...: means ``[classes, d]``, and a factor of each covariance.

    A factor is ``[r, d]``, r at most d, and the covariance ``factor.T @ factor``; that of a single row is zero.
    """

    x: Tensor
    y: Tensor
    means: Tensor
    factors: tuple[Tensor, ...]

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Side:
        """Statistics of ``x`` by the classes ``y``."""
        names, index = torch.unique(y, return_inverse=True)
        members = [x[index == c] for c in range(len(names))]
        factors = [_low((one - one.mean(0)) / math.sqrt(max(len(one) - 1, 1))) for one in members]
        return cls(x, index, torch.stack([one.mean(0) for one in members]), tuple(factors))


def _low(rows: Tensor) -> Tensor:
    """At most d rows with the same Gram matrix and the same gradient of it: turned within the span they have now."""
    if rows.shape[0] <= rows.shape[1]:
        return rows
    span: Tensor = torch.linalg.qr(rows.detach()).Q
    return span.T @ rows


def root(square: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero; rounding below zero counts as zero."""
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
        left, size, right = torch.linalg.svd(product, full_matrices=False)
        kept = (
            size > size[0] * max(product.shape) * torch.finfo(size.dtype).eps
        )  # the others have no direction
        turn = left[:, kept] @ right[kept]
    norm: Tensor = (turn * product).sum()
    return norm


def _powers(a: Tensor, b: Tensor, p: int) -> Tensor:
    """``[n, m]``: distances of all rows to the power p, 1 or 2."""
    if p == 1:  # its gradient where two rows coincide is zero
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)


def label_costs(a: Side, b: Side, labels: Labels = "gaussian", p: int = 2) -> Tensor:
    r"""``[classes of a, classes of b]``: how far each class is from each, to the power p.

    .. math:: W_2^2 = \lVert m-m'\rVert^2 + \lVert A\rVert_F^2 + \lVert A'\rVert_F^2 - 2\lVert AA'^\top\rVert_*

    ``labels`` are as for `OTDD`; for p of 1, all but exact give the root of the formula.
    """
    pairs = [
        [c, k] for c in range(len(a.means)) for k in range(len(b.means)) if a is not b or c < k
    ]
    none = a.means.new_zeros(len(a.means), len(b.means))
    if not pairs:
        return none
    index = tuple(torch.tensor(pairs, device=none.device).T)
    apart = none.index_put(
        index, torch.stack([_classes_apart(a, c, b, k, labels, p) for c, k in pairs])
    )
    return (
        apart + apart.T if a is b else apart
    )  # a class is at no distance from itself, to the last digit


def _classes_apart(a: Side, c: int, b: Side, k: int, labels: Labels, p: int) -> Tensor:
    if labels == "exact":
        return transport(_powers(a.x[a.y == c], b.x[b.y == k], p), 0.0)
    square, (f, g) = (a.means[c] - b.means[k]).square().sum(), (a.factors[c], b.factors[k])
    if labels == "gaussian":
        square = square + (f.square().sum() + g.square().sum() - 2 * nuclear_norm(f, g)).clamp_min(
            0
        )
    elif labels == "diagonal":
        square = square + (root(f.square().sum(0)) - root(g.square().sum(0))).square().sum()
    return square if p == 2 else root(square)


def transport(cost: Tensor, epsilon: float, tolerance: float = 1e-4, steps: int = 300) -> Tensor:
    r"""What it costs to carry n rows to m rows, all of one weight.

    .. math:: \min_\pi \langle\pi, C\rangle + \epsilon\,KL(\pi\,\|\,a\otimes b)

    ``epsilon`` is in the units of the cost, and 0 exact; other settings are those of `Transport`.

    Example:
        >>> cost = torch.cdist(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])) ** 2
        >>> float(transport(cost, 0.0))
        0.5
    """
    import ot

    if epsilon == 0:
        return ot.solve(cost).value  # type: ignore[no-any-return]
    solved = ot.solve(
        cost, reg=epsilon, reg_type="KL", grad="envelope", tol=tolerance, max_iter=steps
    )
    return solved.value.double()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Transport(DatasetDistance):
    r"""What the distances by optimal transport share.

    .. math:: S_\epsilon = OT_\epsilon(x, u) - \tfrac12 OT_\epsilon(x, x) - \tfrac12 OT_\epsilon(u, u)

    A source that needs no gradient is measured once, until it is another tensor or is written to.

    Args:
        p: 2 for squared distances, 1 for plain ones.
        epsilon: how blurred the plan is, in the units of the cost; 0 is exact, none makes it ``relative_epsilon``.
        relative_epsilon: the same as a share of the mean cost at the first call, which is then kept, so that the loss
            stays one function.
        debias: subtract what each data set is from itself; without it the least blurred target is not the best.
        convention: otdd halves every cost, and has an epsilon of 0.1, as the paper's package.
        tolerance: error of the plan's marginals at which Sinkhorn stops.
        max_iterations: at most so many iterations.
    """

    p: Literal[1, 2] = 2
    epsilon: float | None = None
    relative_epsilon: float = 0.05
    debias: bool = True
    convention: Literal["whole", "otdd"] = "whole"
    tolerance: float = 1e-4
    max_iterations: int = 300

    def __post_init__(self) -> None:
        if not ((self.epsilon or 0) >= 0 < self.relative_epsilon):
            settings = f"epsilon is {self.epsilon} and relative_epsilon {self.relative_epsilon}"
            raise ValueError(f"{settings}; they cannot be negative")

    @cached_property
    def _kept(self) -> dict[str, Any]:
        """What stays from call to call: the epsilon, and the source with its statistics."""
        epsilon = 0.1 if self.epsilon is None and self.convention == "otdd" else self.epsilon
        return {"epsilon": epsilon, "x": None}

    def _cost(self, a: Side, b: Side) -> Tensor:
        kind = torch.float64 if len(a.x) * len(b.x) <= LARGE else torch.float32
        return _powers(a.x.to(kind), b.x.to(kind), self.p) * self._scale

    @property
    def _scale(self) -> float:
        return 0.5 if self.convention == "otdd" else 1.0

    def _transport(self, a: Side, b: Side) -> Tensor:
        return transport(
            self._cost(a, b), self._kept["epsilon"], self.tolerance, self.max_iterations
        )

    def _own(self, side: Side) -> Tensor:
        zero = not self.debias or self._kept["epsilon"] == 0
        return side.x.new_zeros(()) if zero else self._transport(side, side)

    def _sides(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> tuple[Side, Side]:
        """Both data sets around the source's mean, which no distance sees and rounding does."""
        kept, now = self._kept, [0 if one.is_inference() else one._version for one in (x, y)]
        if x.requires_grad or kept["x"] is not x or kept["y"] is not y or kept["versions"] != now:
            with _lasting():
                centre = x.detach().double().mean(0)
                kept.update(centre=centre, source=Side.of(x.double() - centre, y), own=None)
                kept.update(x=None if x.requires_grad else x, y=y, versions=now)
        source, target = kept["source"], Side.of(u.double() - kept["centre"], v)
        if kept["epsilon"] is None:
            with torch.no_grad():
                kept["epsilon"] = self.relative_epsilon * float(self._cost(source, target).mean())
        return source, target

    def _divergence(self, source: Side, target: Side) -> tuple[Tensor, Tensor, Tensor]:
        """From source to target, source to itself and target to itself."""
        if self._kept["own"] is None:  # before all else: it may need most memory
            with _lasting():
                self._kept["own"] = self._own(source)
        return self._transport(source, target), self._kept["own"], self._own(target)

    def measure(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Distance:
        return self._distance(*self._divergence(*self._sides(x, y, u, v)))

    def _distance(self, cross: Tensor, source: Tensor, target: Tensor) -> Distance:
        value = cross - source / 2 - target / 2
        parts = {
            "cross": cross,
            "source": source,
            "target": target,
            "distance": value.clamp_min(0) ** (1 / self.p),
        }
        parts["epsilon"] = value.new_tensor(self._kept["epsilon"])
        return Distance(value, {name: part.detach() for name, part in parts.items()})


def _lasting() -> AbstractContextManager[None]:
    """Where tensors are made that training may use, even while validating."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


@dataclass(frozen=True)
class Sinkhorn(Transport):
    """Transport of features alone, whatever their classes (Feydy et al., 2019, https://arxiv.org/abs/1810.08278)."""


@dataclass(frozen=True)
class ORCA(Transport):
    r"""ORCA's loss as its code has it: each class of the target, weighted by its share, against the whole source.

    .. math:: \sum_c p_c\,S_\epsilon(x, u_c)

    Its distances between labels move nothing, one class being seen at a time, and are left out here.
    """

    def measure(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Distance:
        source, target = self._sides(x, y, u, v)
        members = [target.x[target.y == c] for c in range(len(target.means))]
        each = [self._divergence(source, Side.of(one, one.new_zeros(len(one)))) for one in members]
        shares = [len(one) / len(u) for one in members]
        cross, own, targets = (
            sum(p * part for p, part in zip(shares, column, strict=True))
            for column in zip(*each, strict=True)
        )
        return self._distance(cross, own, targets)


@dataclass(frozen=True)
class OTDD(Transport):
    r"""Transport of rows with their labels, where two labels are as far apart as the rows that bear them.

    .. math:: C_{ij} = \lambda_x\lVert x_i-u_j\rVert^p + \lambda_y W_p^p(y_i, v_j)

    Args:
        labels: how far apart two classes are. gaussian takes each for a normal distribution; diagonal ignores its
            correlations, means all but its mean; exact transports row to row.
        feature_weight: λ of the features.
        label_weight: λ of the labels.

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1])
        >>> float(OTDD(epsilon=0.0)(x, y, x + 3, y).value)  # moved by t: 2 |t|^2
        18.0
    """

    labels: Labels = "gaussian"
    feature_weight: float = 1.0
    label_weight: float = 1.0

    def _cost(self, a: Side, b: Side) -> Tensor:
        features = super()._cost(a, b)
        between = label_costs(a, b, self.labels, self.p).to(features) * (
            self._scale * self.label_weight
        )
        return self.feature_weight * features + between[a.y][:, b.y]


def _pooled(x: Tensor, u: Tensor) -> tuple[Side, Side]:
    """Both data sets as one class each, around the source's mean."""
    x, u = (z.double() - x.detach().double().mean(0) for z in (x, u))
    return Side.of(x, x.new_zeros(len(x))), Side.of(u, u.new_zeros(len(u)))


@dataclass(frozen=True)
class Moments(DatasetDistance):
    """Squared distance of both data sets as one normal distribution each; ``labels`` as for `OTDD`."""

    labels: Literal["gaussian", "diagonal", "means"] = "gaussian"

    def measure(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Distance:
        return Distance(label_costs(*_pooled(x, u), self.labels)[0, 0])


@dataclass(frozen=True)
class CORAL(DatasetDistance):
    r"""Difference of covariances (Sun & Saenko, 2016, https://arxiv.org/abs/1607.01719).

    .. math:: \lVert\Sigma-\Sigma'\rVert_F^2 / 4d^2
    """

    def measure(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Distance:
        f, g = (side.factors[0] for side in _pooled(x, u))
        return Distance((f.T @ f - g.T @ g).square().sum() / (4 * x.shape[1] ** 2))


@dataclass(frozen=True)
class MMD(DatasetDistance):
    """Maximum mean discrepancy under Gaussian kernels (Gretton et al., 2012), as ORCA compares with.

    Args:
        kernels: each is twice as wide as the one before; the middle one is as wide as the mean squared distance.
    """

    kernels: int = 5

    def measure(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Distance:
        centre = x.detach().double().mean(0)
        x, u = x.double() - centre, u.double() - centre
        both = torch.cat([x, u]).detach()
        total = (
            2 * len(both) * both.square().sum() - 2 * both.sum(0).square().sum()
        )  # of all squared distances
        middle = total / (len(both) ** 2 - len(both))
        widths = [middle * 2.0 ** (k - self.kernels // 2) for k in range(self.kernels)]

        def mean(a: Tensor, b: Tensor) -> Tensor:
            squares = _powers(a, b, 2)
            return sum(
                ((-squares / width).exp().mean() for width in widths), start=squares.new_zeros(())
            )

        return Distance(mean(x, x) + mean(u, u) - 2 * mean(x, u))


@dataclass(frozen=True)
class L2(DatasetDistance):
    """Mean distance of row i of the target from row i of the source, which begins again where it ends."""

    def measure(self, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Distance:
        partner = x[torch.arange(len(u), device=x.device) % len(x)]
        return Distance(torch.nn.functional.pairwise_distance(partner.double(), u.double()).mean())
