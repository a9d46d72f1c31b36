"""What an objective sees and what it must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lit_align.types import LabelKind, Logps, PolicyTokens


class Objective(ABC):
    """A loss that a stage makes smaller: a frozen dataclass whose fields are its settings.

    Class attributes:
        label_kind: the label the data must carry: ``"pairs"``, ``"desirable"``, ``"ranking"``, ``"ratings"``,
            ``"demonstrations"`` or ``"prompts"`` for none.
        needs_reference: False lets the stage skip the reference model.
        couples_batch: True if the loss of one item depends on the others; a step must then fit in one micro-batch.
        weighs: True if a part of it is a weight without gradient; its gradient is then not that of its value.
        of_scores: True if it is meant for the scores of a reward model, which it finds in ``Logps.policy``.
        per_token: fields of ``Logps.tokens`` that it reads, of ``"policy"``, ``"reference"`` and ``"collision"``.
    """

    label_kind: ClassVar[LabelKind]
    needs_reference: ClassVar[bool] = True
    couples_batch: ClassVar[bool] = False
    weighs: ClassVar[bool] = False
    for_reward_model: ClassVar[bool] = False
    per_token: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Loss of each item, unreduced."""


class RewardingObjective(Objective):
    """A loss that pays responses implicitly, by how far the policy has moved towards them."""

    def reward(self, side: Logps) -> Tensor:
        """What the policy implicitly pays each response, ``[responses]``; logged, not trained on."""
        return side.policy - side.reference


class PairwiseObjective(RewardingObjective):
    """A loss over comparisons: DPO and its family.

    Class attributes:
        symmetric: True if it looks at the difference of the two sides alone, so that a pair whose label is a coin toss
            teaches nothing; such a loss does not mind if both sides fall.
        needs_target: True if it reads a third response; it is then called with ``target``, also ``Logps``.
        needs_margin: True if it reads by how much the chosen response is better; it is then called with ``margin``,
            ``[pairs]``.
    """

    label_kind = LabelKind.PAIRS
    symmetric: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False
    needs_margin: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        """Loss of each pair, ``[pairs]``, unreduced: reduction and label noise are the stage's."""

    def imitation(self, chosen: Logps) -> Tensor | float:
        """The part of the loss that imitates the chosen response, whatever the rejected one; 0 if there is none."""
        return 0.0


class UnpairedObjective(RewardingObjective):
    """A loss over single responses with a thumb up or down: KTO and its family.

    Class attributes:
        baseline: what the stage keeps a running estimate of and hands over, 0 at the start as it is then in truth:
            ``"kl"``, the mean of log π/ρ over responses to other prompts, not below 0; ``"reward"``, half way between
            the mean rewards of both kinds; ``"none"``, 0.
    """

    label_kind = LabelKind.DESIRABLE
    baseline: ClassVar[Literal["none", "kl", "reward"]] = "none"

    @abstractmethod
    def __call__(self, responses: Logps, desirable: Tensor, baseline: Tensor) -> Tensor:
        """Loss of each response, ``[responses]``, from its thumb, ``[responses]``, and the baseline, ``[]``."""


class RankedObjective(RewardingObjective):
    """A loss over K responses in an order."""

    label_kind = LabelKind.RANKING

    @abstractmethod
    def __call__(self, responses: Logps, order: Tensor, place: Tensor) -> Tensor:
        """Loss of each ranking, ``[rankings]``.

        ``order``, ``[rankings, K]``, holds indices into ``responses`` from best to worst, and -1 behind the end of a
        ranking of fewer than K. ``place``, ``[rankings, K]``, holds their places, ascending: equal ones are a tie, and
        ``UNRANKED`` is the place of those that are only known to be behind the others.
        """


class RatedObjective(Objective):
    """A loss over responses that were rated one by one, by one attribute or several: for reward models."""

    label_kind = LabelKind.RATINGS
    needs_reference = False
    for_reward_model = True

    attributes: Sequence[str]
    """Attributes that the data must have ratings of, one output of the head for each."""

    @abstractmethod
    def __call__(self, scores: Tensor, ratings: Tensor) -> Tensor:
        """Loss of each response, ``[n]``, from scores and ratings, ``[n, attributes]``; a missing rating is NaN."""

    @abstractmethod
    def combined(self, scores: Tensor) -> Tensor:
        """One score of each response, ``[n]``, from those of its attributes, ``[n, attributes]``."""


class SupervisedObjective(Objective):
    """A loss over demonstrations: imitate what is there."""

    label_kind = LabelKind.DEMONSTRATIONS
    needs_reference = False

    @abstractmethod
    def __call__(self, logps: Tensor) -> Tensor:
        """Loss of each scored token, ``[n]``, from its log-probability, ``[n]``; unreduced."""


class PolicyObjective(Objective):
    """A loss over sampled tokens with advantages: PPO and its relatives. The price of KL is the stage's."""

    label_kind = LabelKind.PROMPTS

    @abstractmethod
    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        """Loss of each token, ``[n]``, from its advantage, ``[n]``; unreduced."""

    def clipped(self, tokens: PolicyTokens) -> Tensor:
        """Which tokens have moved farther than the loss pays for, ``[n]``; logged, not trained on."""
        return torch.zeros_like(tokens.policy, dtype=torch.bool)
