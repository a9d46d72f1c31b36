"""Reward from a process reward model: each step of a response is scored (Lightman et al., 2023)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from lit_align import Register, hookimpl
from lit_align.data.scoring import by_response, limit_to_positions, score_trees, tokenize_groups
from lit_align.data.solution_steps import StepSettings, steps_to_score
from lit_align.errors import ModelError
from lit_align.functional.step_scores import Aggregate, running_aggregates, step_gains
from lit_align.models.adapter_set import AdapterSet
from lit_align.rewards import Group, Scores
from lit_align.rewards.base import response_text
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.types import Batch, SolutionStep

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ProcessScore(RewardModelScore):
    r"""The probabilities of a ProcessRewardModel run that the steps of a response are right, as one score.

    .. math:: R = \operatorname{agg}_k\, p_k, \qquad p_k = \operatorname{mean}_m \sigma(z_{mk})
        - c\,\operatorname{std}_m \sigma(z_{mk})

    A response is divided into steps where the text between steps stands that the model was trained with. For RL each
    step can get its share of the score where it ends (``credit: steps``), so that an advantage that discounts or has a
    critic, such as GAE, learns which step was wrong; the shares add up to the score.

    Args:
        path: the run's ``adapter``.
        uncertainty_penalty: c: penalty per standard deviation between the members of an ensemble.
        max_length: tokens of a prompt and one response that are read; ``tokens_cut`` counts what was too long, and a
            step that ends there has no part in the score.
        token_budget: tokens in one forward pass.
        aggregate: the lowest (``min``), the ``product``, the ``last``, the ``mean`` or the ``sum``. A sum pays for more
            steps.
        credit: who is paid: the ``response``, or its ``steps``, in RL alone.

    Raises:
        ModelError: if the folder contains no process reward model, or its head is missing.
    """

    aggregate: Aggregate = "min"
    credit: Literal["response", "steps"] = "response"
    reads_steps: ClassVar[bool] = True

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        super().attach(adapters, tokenizer)
        self.__dict__["policy_tokenizer"] = tokenizer

    def step_separators(self) -> frozenset[str]:
        return frozenset({self._steps.separator})

    def __call__(self, groups: Sequence[Group]) -> Scores:
        divided = [self._divide(group) for group in groups]
        step_scores, tokens_cut = self._score_steps(divided)
        totals = [self._total(scores) for scores in step_scores]
        parts = {
            "tokens_cut": tokens_cut,
            "num_steps": torch.tensor([float(len(scores)) for scores in step_scores]),
        }
        scored = torch.tensor([bool(scores) for scores in step_scores])
        if self.credit == "response":
            return Scores(torch.tensor(totals), parts, scored=scored)
        tokens = self._token_scores(divided, step_scores)
        return Scores(torch.zeros(len(totals)), parts, torch.tensor(tokens), scored)

    def step_scores(self, groups: Sequence[Group]) -> list[list[float]]:
        """The score of each step of each response, all groups in order."""
        return self._score_steps([self._divide(group) for group in groups])[0]

    @torch.no_grad()
    def _score_steps(self, divided: Sequence[Group]) -> tuple[list[list[float]], torch.Tensor]:
        """Scores of the steps of each response, and how many of its tokens were not read, ``[responses]``."""
        max_length = limit_to_positions(self.loaded.adapters.model, self.max_length)
        trees, tokens_cut = tokenize_groups(
            divided, self.loaded.tokenizer, max_length, self.reads_chat, self._steps
        )
        members = score_trees(
            trees, self._member_scores, self.token_budget, dense=True, by_step=True
        )
        steps = members.mean(1)
        if members.shape[1] > 1:
            steps = steps - self.uncertainty_penalty * members.std(1)
        return by_response(steps, trees), tokens_cut

    @property
    def _steps(self) -> StepSettings:
        return StepSettings(self._provenance["step_separator"])

    def _divide(self, group: Group) -> Group:
        """The group with the steps of its responses."""
        divided = []
        beginnings = group.beginnings or (None,) * len(group.responses)
        for response, beginning in zip(group.responses, beginnings, strict=True):
            goes_on = beginning is not None
            text = response_text(response) if beginning is None else beginning
            divided.append(steps_to_score(text, self._steps.separator, goes_on))
        return group._replace(steps=tuple(divided))

    def _member_scores(self, batch: Batch) -> torch.Tensor:
        """The probability of each step by each member, ``[steps, members]``."""
        adapters = self.loaded.adapters
        trees = batch.trees.to(adapters.model.device)
        scores = []
        for member in self.loaded.members:
            with adapters.activate(member, training=False):
                logits = adapters.head(member)(self.loaded.tree_forward.scored_hidden(trees))
                scores.append(logits[:, 0].sigmoid().cpu())
        return torch.stack(scores, 1)

    def _total(self, scores: list[float]) -> float:
        return running_aggregates(scores, self.aggregate)[-1] if scores else 0.0

    def _token_scores(
        self, groups: Sequence[Group], step_scores: Sequence[list[float]]
    ) -> list[float]:
        """What each sampled token is paid: the token that ends a step has the step's share of the score.

        Raises:
            ModelError: if a response was not sampled by a policy that is attached.
        """
        tokenizer = self.__dict__.get("policy_tokenizer")
        paid: list[float] = []
        remaining = iter(step_scores)
        for group in groups:
            if tokenizer is None or None in (group.response_ids or (None,)):
                raise ModelError(
                    f"credit is steps, and the responses to {group.source} were not sampled by a policy in RL, so "
                    "there are no tokens to pay; set credit to response"
                )
            for ids, steps in zip(group.response_ids, group.steps, strict=True):
                scores = next(remaining)
                gains = step_gains(scores, self.aggregate)
                places = step_places(ids or (), steps[: len(scores)], self._steps, tokenizer)
                row = [0.0] * len(ids or ())
                for place, gain in zip(places, gains, strict=True):
                    row[place] += gain
                paid += row
        return paid


def step_places(
    ids: Sequence[int],
    steps: Sequence[SolutionStep],
    settings: StepSettings,
    tokenizer: PreTrainedTokenizerBase,
) -> list[int]:
    """The token of a sampled response at which each step is complete; the last step ends with the response.

    Args:
        ids: of the response.
        steps: that its text was divided into, the last ones possibly left out.
        settings: what separates them.
        tokenizer: that decodes the tokens.
    """

    def text_length(count: int) -> int:
        return len(tokenizer.decode([*ids[:count]], skip_special_tokens=True))

    text = str(tokenizer.decode([*ids], skip_special_tokens=True))
    lead = max(text.find(steps[0].text), 0) if steps else 0  # blanks that a turn does not keep
    sizes = [len(step.text) + len(settings.separator) for step in steps]
    places = []
    for end in accumulate(sizes):
        count = bisect_left(range(len(ids)), lead + end, key=lambda i: text_length(i + 1))
        places.append(min(count, len(ids) - 1))
    return places


@hookimpl
def register_rewards(register: Register) -> None:
    register(ProcessScore)
