"""Labels of a micro-batch as tensors.

What the packing knows of them is a field, because a GPU makes the host wait for what it has to read from there.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

UNRANKED = 2**31 - 1
"""The place of an unplaced response."""


class Sides(NamedTuple):
    """Indices of what belongs to preferred responses, and of what belongs to the others; both ascend.

    Args:
        chosen: ``[c]``.
        rejected: ``[r]``.
    """

    chosen: Tensor
    rejected: Tensor


class Pair(NamedTuple):
    """One comparison between two responses of a group.

    Args:
        better: index of the response that was preferred.
        worse: index of the other one.
        probability: that ``better`` is the better one, in (0, 1]; 0.5 is a coin toss.
        margin: by how much it is better, in the annotator's units.
    """

    better: int
    worse: int
    probability: float = 1.0
    margin: float = 0.0


class SolutionStep(NamedTuple):
    """One step of a response.

    Args:
        text: of the step, without what separates it from the next.
        label: probability that the step is right, 1 or 0 for most; None if it is not learned from.
    """

    text: str
    label: float | None = None


class PairLabels(NamedTuple):
    """The comparisons of a batch; tensors are ``[pairs]``.

    Args:
        chosen: index in the batch of the response that was preferred.
        rejected: index of the other one.
        probability: that the preference is right.
        margin: by how much it is better, in the annotator's units.
        target: index of the reference answer; -1 if there is none.
        are_certain: whether every probability is 1; None if only ``probability`` tells.
        tokens: the scored tokens of each side, for metrics; None if there are no metrics of tokens.
    """

    chosen: Tensor
    rejected: Tensor
    probability: Tensor
    margin: Tensor
    target: Tensor
    are_certain: bool | None = None
    tokens: Sides | None = None


class UnpairedLabels(NamedTuple):
    """Responses of a batch that have binary labels.

    Args:
        response: ``[n]``, index of the response in the batch.
        desirable: ``[n]``, its binary label.
        mismatched: ``[m]``, indices of responses that belong to another prompt.
        places: where ``desirable`` is true, and where it is false.
        tokens: the scored tokens of desirable responses and of the others, for metrics.
    """

    response: Tensor
    desirable: Tensor
    mismatched: Tensor
    places: Sides
    tokens: Sides | None = None


class RankLabels(NamedTuple):
    """The rankings of a batch.

    Args:
        order: ``[rankings, longest]``, indices of responses in the batch from best to worst; -1 is padding.
        place: ``[rankings, longest]``, their places, ascending; equal ones are a tie, and `UNRANKED` is worse than all
            others.
        tokens: the scored tokens of the best and of the last responses, for metrics.
    """

    order: Tensor
    place: Tensor
    tokens: Sides | None = None
