"""SFT that stays near its start (L2-SP, Li et al., 2018, https://arxiv.org/abs/1802.01483)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_align.checks import check_fraction
from lit_align.objectives import SupervisedObjective
from lit_align.stages.exact_step import StepSums
from lit_align.stages.sft import SFT


class AnchoredSFT(SFT):
    """SFT whose adapter is drawn back to where the run started: θ ← θ + anchor (θ_0 - θ) after each step.

    The penalty λ/2 |θ - θ_0|² (L2-SP, Li et al., 2018, https://arxiv.org/abs/1802.01483), decoupled from the gradient
    as AdamW decouples weight decay.

    Args:
        objective: the loss of a token, such as CrossEntropy.
        anchor: share of the way back, from 0, which is SFT, to 1.
        settings: settings that all stages share.

    Raises:
        ValueError: unless anchor is from 0 to 1.
    """

    def __init__(
        self, objective: SupervisedObjective, anchor: float = 0.001, **settings: Any
    ) -> None:
        super().__init__(objective, **settings)
        check_fraction("anchor", anchor)
        self.anchor = anchor
        self._start: dict[str, Tensor] = {}

    def configure_model(self) -> None:
        """Note where the adapter starts; a resumed run loads its checkpoint after this."""
        super().configure_model()
        if not self._start:
            weights = self.trained_parameters()
            self._start = {name: weight.detach().clone() for name, weight in weights.items()}

    def after_step(self, metrics: dict[str, float], sums: StepSums) -> None:
        """Go back a share of the way, and log how far the adapter still is from its start."""
        super().after_step(metrics, sums)
        squares = []
        with torch.no_grad():
            for name, weight in self.trained_parameters().items():
                start = self._start[name].to(weight.device)
                weight.lerp_(start, self.anchor)
                squares.append((weight - start).square().sum())
        metrics["anchor/distance"] = torch.stack(squares).sum().sqrt().item()
