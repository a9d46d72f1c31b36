"""Score head: a linear layer from hidden states to scores, with its normalisation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lit_align.errors import ModelError

HEAD_FILE = "head.safetensors"


class ScoreHead(nn.Module):
    r"""Scores in float32, whatever the model computes in.

    .. math:: r = \frac{c^\top (W h + b) - \mu}{\sigma}

    μ and σ are those of reference responses, measured after training, so that 0 is an ordinary response and 1 a large
    difference, whatever was trained (Stiennon et al., 2020, https://arxiv.org/abs/2009.01325).

    Args:
        width: of the hidden states.
        outputs: scores of one response; several for ratings by several attributes.

    Attributes:
        combine: c, ``[outputs]``: weight of each output in the combined score.
        mean: μ.
        scale: σ.
    """

    combine: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, outputs: int = 1) -> None:
        super().__init__()
        # as Stiennon et al. draw it: scores begin near 0, with a spread that does not depend on the width
        self.weight = nn.Parameter(torch.randn(outputs, width) / (width + 1) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("combine", torch.ones(outputs))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """Raw scores, ``[n, outputs]``, of hidden states, ``[n, width]``."""
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight, self.bias)

    def normalize(self, raw: Tensor) -> Tensor:
        """Combined, normalised scores, ``[n]``, of raw scores, ``[n, outputs]``."""
        combined = (raw.float() * self.combine).sum(-1)  # a product under autocast is rounded
        return (combined - self.mean) / self.scale

    def save(self, folder: Path) -> None:
        """Write the head into an adapter's folder."""
        from safetensors.torch import save_file

        weights = {name: value.contiguous() for name, value in self.saved_weights().items()}
        save_file(weights, folder / HEAD_FILE)

    def saved_weights(self) -> dict[str, Tensor]:
        """What is written into ``head.safetensors``, by name."""
        return self.state_dict()

    @classmethod
    def load(cls, folder: str | Path) -> ScoreHead:
        """Read the head from an adapter's folder, frozen.

        Raises:
            ModelError: if the folder has none: a fresh one would give random scores without an error.
        """
        from safetensors.torch import load_file

        file = Path(folder).expanduser() / HEAD_FILE
        if not file.is_file():
            raise ModelError(
                f"{str(folder)!r} has no {HEAD_FILE}, so it is an adapter and not a reward model; give the adapter/ "
                "folder of a RewardModel run"
            )
        weights = load_file(file)
        outputs, width = weights["weight"].shape
        head = cls(width, outputs)
        head.load_state_dict(weights)
        return head.requires_grad_(False)
