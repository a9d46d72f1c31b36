"""Whole distributions to compare the policy's with: the reference's, or those of a teacher among the rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_align.errors import ConfigError
from lit_align.functional.divergence import Predictions, token_divergence
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.tree_forward import TreeForward
from lit_align.objectives import PolicyObjective
from lit_align.rewards import Reward
from lit_align.rewards.teacher import Teacher
from lit_align.rewards.weighted import Weighted
from lit_align.types import Batch, DivergenceFrom


class Lesson(NamedTuple):
    """What another model predicts at the tokens of a micro-batch.

    Args:
        predictions: of all tokens.
        taught: ``[n]``, which tokens are compared; None for all.
        beta: of the divergence.
    """

    predictions: Predictions
    taught: Tensor | None
    beta: float

    def divergence(self, policy: Predictions) -> Tensor:
        """Of the policy's distribution at each token, ``[n]``, with gradient; 0 where nothing is taught."""
        divergence = token_divergence(policy, self.predictions, self.beta)
        return divergence if self.taught is None else divergence.where(self.taught, 0.0)


class Lecture(NamedTuple):
    """Whose distributions an objective compares the policy's with.

    Args:
        source: role and divergence.
        teacher: among the rewards; None where it is the reference.
    """

    source: DivergenceFrom
    teacher: Teacher | None

    @torch.no_grad()
    def lesson(
        self, batch: Batch, adapters: AdapterSet, tree_forward: TreeForward, temperature: float
    ) -> Lesson:
        """Read a micro-batch; before the policy does, while no graph is in memory.

        Args:
            batch: of sampled responses.
            adapters: of the policy.
            tree_forward: of the policy.
            temperature: of the policy; a teacher has its own.
        """
        if self.teacher is not None:
            predictions, taught = self.teacher.predict(batch.source)
            return Lesson(predictions, taught, self.source.beta)
        with adapters.activate("reference", training=False):
            predictions = tree_forward.predictions(batch.trees, temperature)
        return Lesson(predictions, None, self.source.beta)


def lecture_of(objective: PolicyObjective, reward: Reward) -> Lecture | None:
    """Whom the objective compares the policy with; None if it compares no distributions.

    Raises:
        ConfigError: if it needs a teacher, and the reward holds none, several, or one that cannot be asked again.
    """
    source = objective.divergence_from
    if source is None or source.role == "reference":
        return None if source is None else Lecture(source, None)
    name = type(objective).__name__
    teachers = teachers_in(reward)
    if len(teachers) != 1:
        raise ConfigError(
            f"{name} compares the policy with one teacher, and the reward {reward} holds {len(teachers)}; set reward "
            "to Teacher, alone or in Weighted"
        )
    (teacher,) = teachers
    teacher.check_distributions(name)
    return Lecture(source, teacher)


def follow_policy(reward: Reward) -> None:
    """After an update: teachers that are averages of the policy move towards it."""
    for teacher in teachers_in(reward):
        teacher.follow_policy()


def teacher_states(reward: Reward) -> list[dict[str, Tensor]]:
    """What a checkpoint needs of the teachers in a reward."""
    return [teacher.state() for teacher in teachers_in(reward)]


def restore_teachers(reward: Reward, states: Sequence[dict[str, Tensor]]) -> None:
    """Restore what `teacher_states` has returned; a run that had no teacher, or no state of it, restores nothing."""
    for teacher, state in zip(teachers_in(reward), states, strict=False):
        teacher.restore(state)


def teachers_in(reward: Reward) -> list[Teacher]:
    """The teachers in a reward, in order.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> len(teachers_in(Weighted([Teacher(), Length(max_words=9)], [1.0, 0.1])))
        1
    """
    if isinstance(reward, Teacher):
        return [reward]
    parts = reward.rewards if isinstance(reward, Weighted) else []
    return [teacher for part in parts for teacher in teachers_in(part)]
