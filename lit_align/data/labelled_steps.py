"""The data module of responses whose steps are labelled."""

from __future__ import annotations

from typing import Any

from lit_align.data.datamodules import TextDataModule
from lit_align.data.solution_steps import LearnedSteps, StepSettings
from lit_align.types import LabelKind


class Steps(TextDataModule):
    r"""Responses of which each step was labelled as right or wrong.

    Args:
        settings: settings of all data modules.
        step_separator: text between two steps, such as a line break; the token that ends it is where a step is scored.
        learned_steps: which labelled steps are learned from: ``all``, those up to the first that is wrong
            (``to_first_error``: what follows an error is hard to label; Lightman et al., 2023,
            https://arxiv.org/abs/2305.20050), or only the ``last`` of each response, which then says whether the
            whole of it is right.
    """

    label_kind = LabelKind.STEPS

    def __init__(
        self,
        train: str | list[str],
        step_separator: str = "\n",
        learned_steps: LearnedSteps = "all",
        **settings: Any,
    ) -> None:
        super().__init__(train, **settings)
        self.steps = StepSettings(step_separator, learned_steps)
        self.steps.check()

    def provenance(self) -> dict[str, Any]:
        """The text between two steps, by which responses are divided when they are scored."""
        return {"step_separator": self.steps.separator}
