"""Which sampled responses are compared, and which of them are learned from (Yu et al., 2025, https://arxiv.org/abs/2503.14476)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_align.checks import check_between
from lit_align.errors import ConfigError

EqualScores = Literal["keep", "drop", "refill"]
"""What happens to a prompt whose responses all have the same score."""


MAX_REFILLS = 9


class Selected(NamedTuple):
    """What becomes of each response of an iteration, ``[responses]`` each.

    Args:
        unscored: the reward gave it no score, or it has too few companions that have one.
        equal: all responses to its prompt have the same score.
        truncated: the limit cut it off, and such responses are masked.
    """

    unscored: Tensor
    equal: Tensor
    truncated: Tensor

    @classmethod
    def everything(cls, count: int) -> Selected:
        """Nothing is left out of ``count`` responses."""
        return cls(*(torch.zeros(count, dtype=torch.bool) for _ in range(3)))

    @property
    def compared(self) -> Tensor:
        """Which responses the advantage sees; a response that is cut off is still compared with the others."""
        return ~(self.unscored | self.equal)

    @property
    def learned(self) -> Tensor:
        """Which responses are in the loss and in what it is divided by."""
        return self.compared & ~self.truncated

    def reason(self, index: int) -> str:
        """Why a response is left out, in words; empty if it is not.

        Example:
            >>> Selected(*torch.tensor([[False], [True], [True]])).reason(0)
            'equal scores'
        """
        reasons = {
            "not scored": self.unscored,
            "equal scores": self.equal,
            "cut off": self.truncated,
        }
        return next((name for name, left_out in reasons.items() if left_out[index]), "")


@dataclass(frozen=True)
class Selection:
    """Rules by which responses are left out; each one that is left out is counted.

    A response that is not scored leaves its group, whatever other rewards say of it; and so does one that is left with
    too few companions to be compared with.

    Args:
        min_generations: fewest responses to a prompt that the advantage can compare.
        equal_scores: ``keep`` prompts whose responses all have the same score, ``drop`` them, or ``refill`` the
            iteration with other prompts first, also for those with too few scores.
        max_refills: times that an iteration is refilled; what is then still without a difference is dropped.
        mask_truncated: leave responses that the limit cut off out of the loss.

    Raises:
        ConfigError: if scores of one response are to be compared.
    """

    min_generations: int = 1
    equal_scores: EqualScores = "keep"
    max_refills: int = 3
    mask_truncated: bool = False

    def check(self, num_generations: int) -> None:
        """Refuse to look for a difference in one response, or to refill no times.

        Raises:
            ConfigError: naming the settings.
        """
        if self.equal_scores != "keep" and num_generations < 2:
            raise ConfigError(
                f"equal_scores is {self.equal_scores} and num_generations {num_generations}, so that every prompt's "
                "scores are equal; set equal_scores to keep, or num_generations to 2 or more"
            )
        if self.equal_scores == "refill":
            check_between("max_refills", self.max_refills, 1, MAX_REFILLS)

    def select(
        self, scores: Tensor, scored: Tensor | None, ended: Tensor, prompt: Tensor
    ) -> Selected:
        """What becomes of each response.

        Args:
            scores: as they are paid, ``[responses]``.
            scored: which of them the reward gave, ``[responses]``; None for all.
            ended: whether a response ended by itself, ``[responses]``.
            prompt: index of the prompt of each, ``[responses]``.

        Example:
            The first prompt's scores are equal; the second has one that is not scored.

            >>> scores, prompt = torch.tensor([1.0, 1.0, 2.0, 0.0, 3.0]), torch.tensor([0, 0, 1, 1, 1])
            >>> scored = torch.tensor([True, True, True, False, True])
            >>> selected = Selection(2, "drop").select(scores, scored, torch.ones(5).bool(), prompt)
            >>> selected.compared
            tensor([False, False,  True, False,  True])
        """
        nothing = torch.zeros_like(ended)
        companions = torch.ones_like(ended)
        if scored is not None:
            companions = scored & (_sum_by_prompt(scored, prompt) >= self.min_generations)
        equal = nothing
        if self.equal_scores != "keep":
            equal = companions & ~_has_difference(scores, companions, prompt)
        return Selected(~companions, equal, ~ended if self.mask_truncated else nothing)

    def metric_names(self, may_abstain: bool) -> list[str]:
        """Names of `metrics`."""
        rules = {
            "objective/frac_unscored": may_abstain,
            "objective/frac_equal_dropped": self.equal_scores != "keep",
            "objective/frac_truncated_masked": self.mask_truncated,
            "objective/prompts_refilled": self.equal_scores == "refill",
        }
        return [name for name, is_in_force in rules.items() if is_in_force]

    def metrics(self, selected: Selected, may_abstain: bool, refilled: int) -> dict[str, float]:
        """Share of the responses that each rule leaves out, for the rules that are in force.

        Args:
            selected: of an iteration.
            may_abstain: whether its reward says which responses it scored.
            refilled: prompts that were sampled in the place of others.
        """
        values = {
            "objective/frac_unscored": selected.unscored,
            "objective/frac_equal_dropped": selected.equal,
            "objective/frac_truncated_masked": selected.truncated,
            "objective/prompts_refilled": torch.tensor(refilled),
        }
        return {name: values[name].float().mean().item() for name in self.metric_names(may_abstain)}


def _sum_by_prompt(values: Tensor, prompt: Tensor) -> Tensor:
    """Sum over the responses to the same prompt, ``[responses]``."""
    sums = torch.zeros(int(prompt.max()) + 1).index_add(0, prompt, values.float())
    return sums[prompt]


def _has_difference(scores: Tensor, companions: Tensor, prompt: Tensor) -> Tensor:
    """Whether the companions among the responses to a prompt have different scores, ``[responses]``."""
    num_prompts = int(prompt.max()) + 1
    mine, of_prompt = scores[companions], prompt[companions]
    highest = mine.new_full((num_prompts,), float("-inf"))
    highest = highest.scatter_reduce(0, of_prompt, mine, "amax")
    lowest = mine.new_full((num_prompts,), float("inf"))
    lowest = lowest.scatter_reduce(0, of_prompt, mine, "amin")
    return (highest > lowest)[prompt]
