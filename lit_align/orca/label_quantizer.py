"""Samples stratified by class, and classes for targets that have none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.errors import DataError


def stratified_sample(
    y: Tensor, count: int, generator: torch.Generator, min_per_class: int = 8
) -> Tensor:
    """Indices of about ``count`` rows, sampled without replacement from each class in proportion to its size.

    Args:
        y: classes, ``[n]``.
        count: rows to sample; raising a class to ``min_per_class`` adds to it.
        generator: of the sample.
        min_per_class: rows of each class, where it has as many.

    Example:
        >>> y = torch.tensor([0] * 90 + [1] * 10)
        >>> y[stratified_sample(y, 20, torch.Generator(), min_per_class=4)].bincount()
        tensor([18,  4])
    """
    samples = []
    for label in torch.unique(y):
        is_member = y == label
        members = is_member.nonzero()[:, 0].cpu()
        share = round(count * len(members) / len(y))
        size = max(min_per_class, share)
        order = torch.randperm(len(members), generator=generator)
        samples.append(members[order[:size]])
    return torch.cat(samples).to(y.device)


def kmeans_centres(rows: Tensor, k: int, seed: int = 0) -> Tensor:
    """Centres ``[k, d]`` of ``rows`` (``[n, d]``) by k-means from k-means++ seeds; the distinct rows, if at most k."""
    import numpy as np
    from scipy.cluster.vq import kmeans2

    distinct: Tensor = torch.unique(rows.double(), dim=0)
    if k >= len(distinct):
        return distinct
    points = rows.double().cpu().numpy()
    centres, _ = kmeans2(points, k, minit="++", rng=np.random.default_rng(seed), missing="warn")
    return torch.as_tensor(centres)


@dataclass(frozen=True)
class LabelQuantizer:
    """Classes for targets that have none: bins of a number, or the nearest of several centres.

    Args:
        edges: between the bins.
        centres: ``[classes, d]``, used without ``edges``.

    Example:
        >>> quantizer = LabelQuantizer.fit(torch.arange(100.0), k=4)
        >>> quantizer.edges.tolist(), quantizer(torch.tensor([0.0, 30.0, 500.0])).tolist()
        ([24.75, 49.5, 74.25], [0, 1, 3])
    """

    edges: Tensor | None = None
    centres: Tensor | None = None

    @classmethod
    def fit(cls, y: Tensor, k: int = 10, seed: int = 0) -> LabelQuantizer:
        """Bins of equal count for numbers, ties merged; k-means for anything else.

        Args:
            y: ``[n]`` or ``[n, ...]``.
            k: most classes; for vectors also at most one for each 20 rows.
            seed: of k-means.

        Raises:
            DataError: if a target is missing or not finite.
        """
        y = y.double()
        if not len(y) or not bool(y.isfinite().all()):
            raise DataError(
                f"targets of shape {list(y.shape)} are missing or not finite; fix or drop them"
            )
        if y[0].numel() == 1:
            bins = torch.arange(1, k, dtype=y.dtype, device=y.device)
            edges = torch.quantile(y.flatten(), bins / k)
            return cls(edges=torch.unique(edges))
        num_clusters = max(min(k, len(y) // 20), 1)
        return cls(centres=kmeans_centres(y.flatten(1), num_clusters, seed))

    def __call__(self, y: Tensor) -> Tensor:
        """Class of each target, ``[n]``; ``y`` has the shape of the fitted targets."""
        y = y.double()
        if self.edges is not None:
            edges = self.edges.to(y.device)
            return torch.bucketize(y.flatten(), edges, right=True)
        assert self.centres is not None
        centres = self.centres.to(y.device)
        return torch.cdist(y.flatten(1), centres).argmin(1)
