"""What every objective, format, reward, source of feedback and embedder must satisfy; a plugin's test is one call.

They fail with a sentence that says which promise is broken, and for which numbers.
"""

from __future__ import annotations

from lit_align.objectives import (
    Objective,
    PairwiseObjective,
    PolicyObjective,
    RankedObjective,
    RatedObjective,
    SupervisedObjective,
    UnpairedObjective,
)
from lit_align.testing.feedback import check_feedback
from lit_align.testing.formats import check_format
from lit_align.testing.objective_checks import check
from lit_align.testing.rewards import check_reward

__all__ = [
    "check_feedback",
    "check_format",
    "check_objective",
    "check_policy",
    "check_ranked",
    "check_rated",
    "check_reward",
    "check_supervised",
    "check_unpaired",
]


def check_objective(objective: PairwiseObjective) -> None:
    """Fail unless ``objective`` behaves like a loss over comparisons.

    It must give one finite loss for each item, whatever their order and however extreme their log-probabilities; a
    gradient that is that of the loss (unless it ``weighs``); a descent that, at small margins, favours the better
    response; nearly the same in bfloat16; nothing from what is behind the end of a response; nothing from the reference
    if it needs none; and no pull from a coin toss if it is ``symmetric``.

    Args:
        objective: with the settings to check it at.

    Raises:
        AssertionError: if a promise is broken.
        TypeError: if the objective is of another family.

    Example:
        >>> from lit_align.objectives.dpo import DPO
        >>> check_objective(DPO(beta=0.5))
    """
    _check(objective, PairwiseObjective)


def check_unpaired(objective: UnpairedObjective) -> None:
    """The same for a loss over thumbs; arguments and errors as for ``check_objective``."""
    _check(objective, UnpairedObjective)


def check_ranked(objective: RankedObjective) -> None:
    """The same for a loss over rankings; arguments and errors as for ``check_objective``."""
    _check(objective, RankedObjective)


def check_rated(objective: RatedObjective) -> None:
    """The same for a loss over ratings; arguments and errors as for ``check_objective``."""
    _check(objective, RatedObjective)


def check_policy(objective: PolicyObjective) -> None:
    """The same for a loss over sampled tokens; arguments and errors as for ``check_objective``."""
    _check(objective, PolicyObjective)


def check_supervised(objective: SupervisedObjective) -> None:
    """The same for a loss over demonstrations; arguments and errors as for ``check_objective``."""
    _check(objective, SupervisedObjective)


def _check(objective: Objective, family: type) -> None:
    if not isinstance(objective, family):
        raise TypeError(
            f"{type(objective).__name__} is not a {family.__name__}; call the check of its own family"
        )
    check(objective)
