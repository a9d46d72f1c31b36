"""Draws by class, and classes for targets that have none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align.errors import DataError


def stratified(y: Tensor, count: int, generator: torch.Generator, least: int = 8) -> Tensor:
    """Indices of about ``count`` rows of the classes ``y``, without replacement, each class by its share.

    Args:
        y: ``[n]``, classes.
        count: rows to draw; classes that are topped up add to it.
        generator: of the draw.
        least: rows of each class, where it has them.

    Example:
        >>> y = torch.tensor([0] * 90 + [1] * 10)
        >>> y[stratified(y, 20, torch.Generator(), least=4)].bincount()
        tensor([18,  4])
    """
    drawn = []
    for name in torch.unique(y):
        members = (y == name).nonzero()[:, 0].cpu()
        wanted = max(least, round(count * len(members) / len(y)))
        drawn.append(members[torch.randperm(len(members), generator=generator)[:wanted]])
    return torch.cat(drawn).to(y.device)


def clusters(rows: Tensor, k: int, seed: int = 0) -> Tensor:
    """``[k, d]``, centres of ``rows`` (``[n, d]``) by k-means from k-means++ seeds."""
    import numpy as np
    from scipy.cluster.vq import kmeans2

    distinct: Tensor = torch.unique(rows.double(), dim=0)
    if k >= len(distinct):
        return distinct
    found = kmeans2(
        rows.double().cpu().numpy(), k, minit="++", rng=np.random.default_rng(seed), missing="warn"
    )
    return torch.as_tensor(found[0])


@dataclass(frozen=True)
class LabelQuantizer:
    """Classes for targets that have none: ``edges`` between bins of a number, or the nearest of ``centres``.

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
            k: at most so many classes; of vectors also no more than one for each 20 rows.
            seed: of k-means.

        Raises:
            DataError: if a target is missing or not finite.
        """
        y = y.double()
        if not len(y) or not bool(y.isfinite().all()):
            raise DataError(
                f"targets of shape {list(y.shape)} are missing or not finite; mend or drop them"
            )
        if y[0].numel() == 1:
            steps = torch.arange(1, k, dtype=y.dtype, device=y.device) / k
            return cls(edges=torch.unique(torch.quantile(y.flatten(), steps)))
        return cls(centres=clusters(y.flatten(1), max(min(k, len(y) // 20), 1), seed))

    def __call__(self, y: Tensor) -> Tensor:
        """``[n]``, the class of each of ``y``, which is shaped as what was fitted."""
        if self.edges is not None:
            return torch.bucketize(y.double().flatten(), self.edges.to(y.device), right=True)
        assert self.centres is not None
        return torch.cdist(y.double().flatten(1), self.centres.to(y.device)).argmin(1)
