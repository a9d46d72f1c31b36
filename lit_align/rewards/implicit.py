"""A policy as the reward it was implicitly trained with (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

import lit_align
from lit_align import Register, hookimpl
from lit_align.data.scoring import limit_to_positions, score_trees, tokenize_groups
from lit_align.errors import ModelError
from lit_align.objectives.base import ImplicitRewardObjective
from lit_align.rewards import Group, Reward, Scores
from lit_align.types import Batch, Logps

if TYPE_CHECKING:
    from lit_align.stages.preference import Preference


@dataclass(frozen=True)
class Implicit(Reward):
    r"""How far training moved a policy towards a response, in the measure of the objective it was trained with.

    .. math:: r = \beta\log\frac{\pi(y\mid x)}{\rho(y\mid x)} \quad \text{(eq. 5 without the term that cancels)}

    Prompts and responses are read as in training: text is continued, messages go through the run's chat template. The
    part ``tokens_cut`` counts what was too long: a response loses its end.

    Args:
        run: the numbered folder of a run, or a checkpoint.
        reference: false leaves the reference out; what a base model finds unlikely, such as length, then decides, and
            the accuracy collapses (Lambert et al., 2024, https://arxiv.org/abs/2403.13787).
        max_length: tokens of a prompt and one response that are read.
        token_budget: tokens that pass through the model at once.

    Raises:
        ModelError: at the first score, if there is no such run, or its objective rewards nothing.
        DataError: if a prompt leaves no room for a response.
    """

    run: str
    reference: bool = True
    max_length: int = 2048
    token_budget: int = 8192

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> Scores:
        trees, lost = tokenize_groups(
            groups,
            self._stage.tokenizer,
            limit_to_positions(self._stage.adapters.model, self.max_length),
        )
        total = score_trees(
            trees, self._rewards, self.token_budget, dense=not self._stage.block_sparse
        )
        return Scores(total, {"tokens_cut": lost})

    def _rewards(self, batch: Batch) -> Tensor:
        """What the objective pays each response of the batch, ``[responses]``."""
        from lit_align.data.datamodules import to_device

        stage, objective = self._stage, cast(ImplicitRewardObjective, self._stage.objective)
        batch = to_device(batch, stage.device)
        with stage.adapters.activate("policy", training=False):
            tokens = stage.tree_forward(
                batch.trees, statistics="collision" in objective.token_fields
            )
            logps = stage.logps(batch, tokens)
        return objective.implicit_reward(logps if self.reference else _alone(logps)).float().cpu()

    @cached_property
    def _stage(self) -> Preference:
        stage = cast("Preference", lit_align.load(self.run))
        if stage.objective.for_reward_model:
            raise ModelError(
                f"{self.run} is a reward model; give its adapter/ folder to RewardModelScore"
            )
        if not isinstance(stage.objective, ImplicitRewardObjective):
            raise ModelError(
                f"{self.run} is a run of {type(stage.objective).__name__}, which rewards no response; give one of an "
                "objective over comparisons, thumbs or rankings"
            )
        stage.cache_reference = None  # what is judged does not belong among the training data
        return stage


def _alone(logps: Logps) -> Logps:
    """The policy's log-probabilities over those of a reference that gives everything probability 1."""
    tokens = logps.tokens
    if tokens is not None and tokens.reference is not None:
        tokens = tokens._replace(reference=torch.zeros_like(tokens.reference))
    return logps._replace(reference=torch.zeros_like(logps.reference), tokens=tokens)


@hookimpl
def register_rewards(register: Register) -> None:
    register(Implicit)
