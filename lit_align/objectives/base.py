"""Base classes of the losses: which log-probabilities and labels each family of objectives reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lit_align.types import DivergenceFrom, LabelKind, Logps, PolicyTokens


class Objective(ABC):
    """A loss that a stage minimises: a frozen dataclass whose fields are its settings.

    A subclass overrides a property below by a class attribute, or by a property where a setting decides.

    Class attributes:
        label_kind: the label the data must carry: ``"pairs"``, ``"desirable"``, ``"ranking"``, ``"ratings"``,
            ``"steps"``, ``"demonstrations"`` or ``"prompts"`` for none.
        for_reward_model: True if it reads the scores of a reward model, which it finds in ``Logps.policy``.
    """

    label_kind: ClassVar[LabelKind]
    for_reward_model: ClassVar[bool] = False

    @property
    def needs_reference(self) -> bool:
        """Whether it reads log-probabilities of the reference model; False lets the stage skip that model."""
        return True

    @property
    def couples_batch(self) -> bool:
        """Whether the loss of an item depends on the others; a step must then fit in one micro-batch."""
        return False

    @property
    def has_stop_gradient_weight(self) -> bool:
        """Whether a factor of the loss is detached, so that its gradient is not that of its value."""
        return False

    @property
    def token_fields(self) -> frozenset[str]:
        """Fields of ``Logps.tokens`` that it reads: ``"policy"``, ``"reference"``, ``"collision"``."""
        return frozenset()

    @property
    def divergence_from(self) -> DivergenceFrom | None:
        """The divergence from another model that it reads, if it is over demonstrations or sampled tokens."""
        return None

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Loss of each item, unreduced."""


class ImplicitRewardObjective(Objective):
    """A loss under which the policy is its own reward model: the more it raises a response, the higher the reward."""

    def implicit_reward(self, logps: Logps) -> Tensor:
        """Implicit reward of each response, ``[responses]``; logged, not trained on."""
        return logps.policy - logps.reference


class PairwiseObjective(ImplicitRewardObjective):
    """A loss over comparisons: DPO and its family."""

    label_kind = LabelKind.PAIRS

    @property
    def margin_only(self) -> bool:
        """Whether the loss depends only on the difference of the two sides: a coin-toss label then has no gradient."""
        return False

    @property
    def needs_target(self) -> bool:
        """Whether it reads a third response; it is then called with ``target``, also ``Logps``."""
        return False

    @property
    def needs_margin(self) -> bool:
        """Whether it reads how much better the chosen response is; it is then called with ``margin``, ``[pairs]``."""
        return False

    @abstractmethod
    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        """Loss of each pair, ``[pairs]``, unreduced: reduction and label noise are the stage's."""

    def supervised_term(self, chosen: Logps) -> Tensor | float:
        """The part of the loss that depends on the chosen response alone; 0 if there is none."""
        return 0.0


class UnpairedObjective(ImplicitRewardObjective):
    """A loss over single responses with binary labels: KTO and its family.

    Class attributes:
        baseline: running estimate that the stage keeps and passes in; it starts at 0, its true value at that time:
            ``"kl"``, the mean of log π_θ/π_ref over responses to other prompts, not below 0; ``"reward"``, half way
            between the mean rewards of desirable and undesirable responses; ``"none"``, always 0.
    """

    label_kind = LabelKind.DESIRABLE
    baseline: ClassVar[Literal["none", "kl", "reward"]] = "none"

    @abstractmethod
    def __call__(self, responses: Logps, desirable: Tensor, baseline: Tensor) -> Tensor:
        """Loss of each response, ``[responses]``, from its label, ``[responses]``, and the baseline, ``[]``."""


class RankedObjective(ImplicitRewardObjective):
    """A loss over K responses in an order."""

    label_kind = LabelKind.RANKING

    @abstractmethod
    def __call__(self, responses: Logps, order: Tensor, place: Tensor) -> Tensor:
        """Loss of each ranking, ``[rankings]``.

        ``order``, ``[rankings, K]``, holds indices into ``responses`` from best to worst, padded with -1. ``place``,
        ``[rankings, K]``, holds their places, ascending: equal ones are a tie, and ``UNRANKED`` is the place of those
        that are only known to be worse than the others.
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
    def combine(self, scores: Tensor) -> Tensor:
        """One score of each response, ``[n]``, from those of its attributes, ``[n, attributes]``."""


class StepwiseObjective(Objective):
    """A loss over the steps of responses, each labelled as right or wrong: for process reward models."""

    label_kind = LabelKind.STEPS
    needs_reference = False
    for_reward_model = True

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each step, ``[n]``, from the log-odds that it is right and the probability that it is, ``[n]``."""


class SupervisedObjective(Objective):
    """A loss over demonstrations."""

    label_kind = LabelKind.DEMONSTRATIONS
    needs_reference = False

    @property
    def needs_entropy(self) -> bool:
        """Whether it reads how unsure the policy is; it is then called with ``entropy``, ``[n]``, without gradient."""
        return False

    @property
    def needs_divergence(self) -> bool:
        """Whether it has a ``divergence_from``; it is then called with ``divergence``, ``[n]``, with gradient."""
        return self.divergence_from is not None

    @abstractmethod
    def __call__(self, logps: Tensor) -> Tensor:
        """Loss of each scored token, ``[n]``, from its log-probability, ``[n]``; unreduced."""


class PolicyObjective(Objective):
    """A loss over sampled tokens with advantages: PPO and its relatives. The KL penalty is the stage's."""

    label_kind = LabelKind.PROMPTS

    @abstractmethod
    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        """Loss of each token, ``[n]``, from its advantage, ``[n]``; unreduced."""

    def clip_mask(self, tokens: PolicyTokens) -> Tensor:
        """Which tokens have a clipped ratio, ``[n]``; logged, not trained on."""
        return torch.zeros_like(tokens.policy, dtype=torch.bool)


FAMILIES: dict[str, type] = {
    "pairwise": PairwiseObjective,
    "unpaired": UnpairedObjective,
    "ranked": RankedObjective,
    "rated": RatedObjective,
    "stepwise": StepwiseObjective,
    "policy": PolicyObjective,
    "supervised": SupervisedObjective,
}
"""The families of objectives by name; an objective derives from one of them."""


def family_name(cls: type) -> str:
    """Name of the family that ``cls`` derives from; empty if there is none.

    Example:
        >>> from lit_align.objectives.dpo import DPO
        >>> family_name(DPO)
        'pairwise'
    """
    return next((name for name, base in FAMILIES.items() if issubclass(cls, base)), "")
