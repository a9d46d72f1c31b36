"""A language model that gives marks, as a reward (direct RLAIF: Lee et al., 2023, https://arxiv.org/abs/2309.00267)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lit_align import Register, hookimpl
from lit_align.errors import ModelError
from lit_align.judges.base import JudgeModel, format_prompt, load_template
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet


@dataclass(frozen=True)
class JudgeScore(Reward):
    r"""The mark that a language model gives a response: its expectation over the numbers it could say.

    .. math:: r = \sum_{k=\text{low}}^{\text{high}} k\,\frac{P(k)}{\sum_l P(l)}

    Args:
        model: who is asked; one that only answers in text gives whole numbers.
        template: the wording: ``grade``, or a Jinja file with ``prompt``, ``response``, ``low`` and ``high``.
        low: the worst mark.
        high: the best.

    Raises:
        ValueError: unless low is below high.
        ModelError: at a response whose mark cannot be read: it is not guessed.
    """

    model: JudgeModel
    template: str = "grade"
    low: int = 1
    high: int = 10

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model.attach(adapters, tokenizer)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        each, marks = load_template(self.template), range(self.low, self.high + 1)
        questions = [
            each.render(
                prompt=format_prompt(group.prompt),
                response=response_text(response),
                low=self.low,
                high=self.high,
            )
            for group in groups
            for response in group.responses
        ]
        total = []
        for reply in self.model.choose_option(questions, [str(mark) for mark in marks]):
            if reply.probabilities is None:
                raise ModelError(
                    f"{type(self.model).__name__} gave no mark that can be read ({reply.reason}); ask one that gives "
                    "log-probabilities, or change the template"
                )
            total.append(
                sum(mark * chance for mark, chance in zip(marks, reply.probabilities, strict=True))
            )
        return Scores(torch.tensor(total))


@hookimpl
def register_rewards(register: Register) -> None:
    register(JudgeScore)
