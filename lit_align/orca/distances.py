r"""Distances between two labelled data sets, as a loss: OTDD (Alvarez-Melis & Fusi, 2020, https://arxiv.org/abs/2002.02923).

Differences from that paper's package, and from ORCA (Shen et al., 2023, https://arxiv.org/abs/2302.05738), which uses
it: both sides keep their labels, label distances carry their gradient, costs are whole squares unless ``convention``
says otherwise, and Sinkhorn runs until it has converged. Every gradient is that of an optimum (Danskin): of a transport
the plan, of a nuclear norm :math:`UV^\top`. No iteration is stored and no decomposition is differentiated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import ConfigError, DataError
from lit_align.orca.transport import (
    DatasetStats,
    Labels,
    class_distances,
    pairwise_powers,
    transport_cost,
)

MAX_FLOAT64_ENTRIES = 2**24
"""A larger cost matrix is computed in float32; a solver needs about six times its memory."""


class Distance(NamedTuple):
    """``value`` of a distance, in float64 with its gradient, and detached ``parts`` of it to log."""

    value: Tensor
    parts: dict[str, Tensor] = {}  # noqa: RUF012 - never written to


class LabelledFeatures(NamedTuple):
    """A data set: features ``x``, ``[n, d]``, and classes ``y``, ``[n]``."""

    x: Tensor
    y: Tensor


class DatasetDistance(ABC):
    """Distance of a target data set from a source: a frozen dataclass whose fields are its settings."""

    def __call__(
        self, source_x: Tensor, source_y: Tensor, target_x: Tensor, target_y: Tensor
    ) -> Distance:
        """Check the data and measure; gradients reach the features that require them.

        Args:
            source_x: features of the source, ``[n, d]``.
            source_y: its classes, ``[n]``, as integers.
            target_x: features of the target, ``[m, d]``.
            target_y: its classes, ``[m]``; they need not be the source's.

        Raises:
            DataError: if shapes or types do not fit, or a feature is not finite.
        """
        source = LabelledFeatures(source_x, source_y)
        target = LabelledFeatures(target_x, target_y)
        _check_data("source", source, source_x.shape[-1])
        _check_data("target", target, source_x.shape[-1])
        return self.measure(source, target)

    @abstractmethod
    def measure(self, source: LabelledFeatures, target: LabelledFeatures) -> Distance:
        """The distance between data that were checked."""


def _check_data(name: str, data: LabelledFeatures, width: int) -> None:
    features, labels = data
    if features.dim() != 2 or not len(features) or features.shape[1] != width:
        raise DataError(f"features of the {name} are {list(features.shape)}; give [rows, {width}]")
    if labels.shape != features.shape[:1] or labels.is_floating_point():
        raise DataError(
            f"labels of the {name} are {list(labels.shape)} {labels.dtype} for {len(features)} rows; "
            "give one class for each row, LabelQuantizer makes them from other targets"
        )
    finite = features.isfinite().all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise DataError(f"row {row} of the {name} is not finite; fix or drop it")


class _CachedSource(NamedTuple):
    """A source and its statistics; ``x`` is None if it requires a gradient, so that it is measured at each call."""

    x: Tensor | None
    y: Tensor
    versions: list[int]
    centre: Tensor
    stats: DatasetStats


@dataclass
class _Cache:
    """What a distance remembers from call to call."""

    epsilon: float | None
    source: _CachedSource | None = None
    source_cost: Tensor | None = None


@dataclass(frozen=True)
class Transport(DatasetDistance):
    r"""Base of the distances by optimal transport.

    .. math:: S_\epsilon = OT_\epsilon(x, u) - \tfrac12 OT_\epsilon(x, x) - \tfrac12 OT_\epsilon(u, u)

    A source that needs no gradient is measured once, until it is another tensor or is written to.

    Args:
        p: 2 for squared distances, 1 for plain ones.
        epsilon: strength of the entropic regularization, in the units of the cost; 0 is exact, null uses
            ``relative_epsilon``.
        relative_epsilon: the same as a fraction of the mean cost at the first call; fixed from then on, so that the
            loss stays one function.
        debias: subtract the transport of each data set to itself; without it the minimum is not at the source.
        convention: otdd halves every cost, and has an epsilon of 0.1, as the paper's package.
        tolerance: error of the plan's marginals at which Sinkhorn stops.
        max_iterations: of Sinkhorn.
    """

    p: Literal[1, 2] = 2
    epsilon: float | None = None
    relative_epsilon: float = 0.05
    debias: bool = True
    convention: Literal["whole", "otdd"] = "whole"
    tolerance: float = 1e-4
    max_iterations: int = 300

    def __post_init__(self) -> None:
        if find_spec("ot") is None:
            raise ConfigError(
                f"{type(self).__name__} needs the package POT, which is not installed; pip install 'lit-align[orca]'"
            )
        if (self.epsilon or 0) < 0 or self.relative_epsilon <= 0:
            raise ValueError(
                f"epsilon is {self.epsilon} and relative_epsilon {self.relative_epsilon}; "
                "epsilon cannot be negative, and relative_epsilon must be positive"
            )

    @cached_property
    def _cache(self) -> _Cache:
        use_default = self.epsilon is None and self.convention == "otdd"
        return _Cache(epsilon=0.1 if use_default else self.epsilon)

    @property
    def _scale(self) -> float:
        return 0.5 if self.convention == "otdd" else 1.0

    def _cost(self, a: DatasetStats, b: DatasetStats) -> Tensor:
        """Cost matrix from the rows of a to the rows of b."""
        small = len(a.x) * len(b.x) <= MAX_FLOAT64_ENTRIES
        dtype = torch.float64 if small else torch.float32
        distances = pairwise_powers(a.x.to(dtype), b.x.to(dtype), self.p)
        return distances * self._scale

    def _transport(self, a: DatasetStats, b: DatasetStats) -> Tensor:
        epsilon = self._cache.epsilon
        assert epsilon is not None
        return transport_cost(self._cost(a, b), epsilon, self.tolerance, self.max_iterations)

    def _transport_to_itself(self, data: DatasetStats) -> Tensor:
        if not self.debias or self._cache.epsilon == 0:
            return data.x.new_zeros(())
        return self._transport(data, data)

    def _cached_source(self, data: LabelledFeatures) -> _CachedSource:
        """The source around its mean, from the cache if neither tensor has changed."""
        x, y = data
        versions = [0 if tensor.is_inference() else tensor._version for tensor in data]
        source = self._cache.source
        if source and source.x is x and source.y is y and source.versions == versions:
            return source
        with _outside_inference_mode():
            centre = x.detach().double().mean(0)
            stats = DatasetStats.from_labels(x.double() - centre, y)
        source = _CachedSource(None if x.requires_grad else x, y, versions, centre, stats)
        self._cache.source, self._cache.source_cost = source, None
        return source

    def _statistics(
        self, source: LabelledFeatures, target: LabelledFeatures
    ) -> tuple[DatasetStats, DatasetStats]:
        """Both data sets around the source's mean, which changes no distance but reduces rounding errors."""
        centred_source = self._cached_source(source)
        centred_target = DatasetStats.from_labels(
            target.x.double() - centred_source.centre, target.y
        )
        if self._cache.epsilon is None:
            with torch.no_grad():
                mean_cost = float(self._cost(centred_source.stats, centred_target).mean())
            self._cache.epsilon = self.relative_epsilon * mean_cost
        return centred_source.stats, centred_target

    def _divergence(
        self, source: DatasetStats, target: DatasetStats
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Transport from source to target, source to itself and target to itself."""
        if self._cache.source_cost is None:  # first, because it may need the most memory
            with _outside_inference_mode():
                self._cache.source_cost = self._transport_to_itself(source)
        cross = self._transport(source, target)
        return cross, self._cache.source_cost, self._transport_to_itself(target)

    def measure(self, source: LabelledFeatures, target: LabelledFeatures) -> Distance:
        return self._distance(*self._divergence(*self._statistics(source, target)))

    def _distance(self, cross: Tensor, source: Tensor, target: Tensor) -> Distance:
        value = cross - source / 2 - target / 2
        parts = {
            "cross": cross,
            "source": source,
            "target": target,
            "distance": value.clamp_min(0) ** (1 / self.p),
            "epsilon": value.new_tensor(self._cache.epsilon),
        }
        detached = {name: part.detach() for name, part in parts.items()}
        return Distance(value, detached)


def _outside_inference_mode() -> AbstractContextManager[None]:
    """Make tensors that training may use, even while validating."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


@dataclass(frozen=True)
class Sinkhorn(Transport):
    """Transport of features alone, regardless of classes (Feydy et al., 2019, https://arxiv.org/abs/1810.08278)."""


@dataclass(frozen=True)
class ORCA(Transport):
    r"""ORCA's loss as its code has it: each class of the target, weighted by its share, against the whole source.

    .. math:: \sum_c p_c\,S_\epsilon(x, u_c)

    Its distances between labels change nothing, since one class is compared at a time, and are left out here.
    """

    def measure(self, source: LabelledFeatures, target: LabelledFeatures) -> Distance:
        source_stats, target_stats = self._statistics(source, target)
        cross = source_cost = target_cost = source_stats.x.new_zeros(())
        for c in range(len(target_stats.means)):
            rows = target_stats.x[target_stats.y == c]
            class_stats = DatasetStats.from_labels(rows, rows.new_zeros(len(rows)))
            class_cross, class_source, class_target = self._divergence(source_stats, class_stats)
            share = len(rows) / len(target.x)
            cross = cross + share * class_cross
            source_cost = source_cost + share * class_source
            target_cost = target_cost + share * class_target
        return self._distance(cross, source_cost, target_cost)


@dataclass(frozen=True)
class OTDD(Transport):
    r"""Transport of rows with their labels; the distance of two labels is that of the rows that have them.

    .. math:: C_{ij} = \lambda_x\lVert x_i-u_j\rVert^p + \lambda_y W_p^p(y_i, v_j)

    Args:
        labels: distance between two classes. gaussian takes each as a normal distribution; diagonal ignores
            correlations, means all but the mean; exact transports row to row.
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

    def _cost(self, a: DatasetStats, b: DatasetStats) -> Tensor:
        features = super()._cost(a, b)
        between = class_distances(a, b, self.labels, self.p).to(features)
        between = between * (self._scale * self.label_weight)
        label_costs = between[a.y][:, b.y]
        return self.feature_weight * features + label_costs


def _centred(source: LabelledFeatures, target: LabelledFeatures) -> tuple[Tensor, Tensor]:
    """Features of both data sets around the source's mean, in float64."""
    centre = source.x.detach().double().mean(0)
    return source.x.double() - centre, target.x.double() - centre


def _single_class_stats(
    source: LabelledFeatures, target: LabelledFeatures
) -> tuple[DatasetStats, DatasetStats]:
    """Both data sets as one class each, around the source's mean."""
    x, u = _centred(source, target)
    source_stats = DatasetStats.from_labels(x, x.new_zeros(len(x)))
    return source_stats, DatasetStats.from_labels(u, u.new_zeros(len(u)))


@dataclass(frozen=True)
class Moments(DatasetDistance):
    """Squared distance of both data sets as one normal distribution each; ``labels`` as for `OTDD`."""

    labels: Literal["gaussian", "diagonal", "means"] = "gaussian"

    def measure(self, source: LabelledFeatures, target: LabelledFeatures) -> Distance:
        source_stats, target_stats = _single_class_stats(source, target)
        return Distance(class_distances(source_stats, target_stats, self.labels)[0, 0])


@dataclass(frozen=True)
class CORAL(DatasetDistance):
    r"""Difference of covariances (Sun & Saenko, 2016, https://arxiv.org/abs/1607.01719).

    .. math:: \lVert\Sigma-\Sigma'\rVert_F^2 / 4d^2
    """

    def measure(self, source: LabelledFeatures, target: LabelledFeatures) -> Distance:
        source_stats, target_stats = _single_class_stats(source, target)
        f, g = source_stats.factors[0], target_stats.factors[0]
        difference = f.T @ f - g.T @ g
        width = source.x.shape[1]
        return Distance(difference.square().sum() / (4 * width**2))


@dataclass(frozen=True)
class MMD(DatasetDistance):
    """Maximum mean discrepancy under Gaussian kernels (Gretton et al., 2012), a baseline of ORCA's.

    Args:
        kernels: number of kernels, each twice as wide as the one before; the middle one is as wide as the mean squared
            distance.
    """

    kernels: int = 5

    def measure(self, source: LabelledFeatures, target: LabelledFeatures) -> Distance:
        x, u = _centred(source, target)
        rows = torch.cat([x, u]).detach()
        n = len(rows)
        sum_of_squares = 2 * n * rows.square().sum()
        square_of_sum = 2 * rows.sum(0).square().sum()
        middle = (sum_of_squares - square_of_sum) / (n**2 - n)
        widths = []
        for k in range(self.kernels):
            exponent = k - self.kernels // 2
            widths.append(middle * 2.0**exponent)
        within = _mean_kernel(x, x, widths) + _mean_kernel(u, u, widths)
        return Distance(within - 2 * _mean_kernel(x, u, widths))


def _mean_kernel(a: Tensor, b: Tensor, widths: list[Tensor]) -> Tensor:
    """Mean over all pairs of rows of the sum of Gaussian kernels."""
    squares = pairwise_powers(a, b, 2)
    total = squares.new_zeros(())
    for width in widths:
        total = total + (-squares / width).exp().mean()
    return total


@dataclass(frozen=True)
class L2(DatasetDistance):
    """Mean distance of row i of the target from row i of the source, which starts over at its end."""

    def measure(self, source: LabelledFeatures, target: LabelledFeatures) -> Distance:
        rows = torch.arange(len(target.x), device=source.x.device)
        partner = source.x[rows % len(source.x)].double()
        distances = torch.nn.functional.pairwise_distance(partner, target.x.double())
        return Distance(distances.mean())
