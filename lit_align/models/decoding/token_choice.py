"""Choose the next token of each row from its logits."""

from __future__ import annotations

import torch
from torch import Tensor


def choose_tokens(
    logits: Tensor, temperature: float, uniforms: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability, both ``[rows]``.

    Args:
        logits: ``[rows, vocabulary]`` in float32; they are overwritten.
        temperature: 0 chooses the most probable token, whose log-probability is that at temperature 1.
        uniforms: ``[rows]`` in [0, 1); None with temperature 0.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        >>> choose_tokens(logits, 1.0, torch.tensor([0.2, 0.3], dtype=torch.float64))[0]
        tensor([0, 1])
    """
    if uniforms is None:
        token = logits.argmax(-1)
        return token, logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
    if temperature != 1.0:
        logits /= temperature
    probabilities = logits.softmax(-1)
    token = sample_token(probabilities, uniforms)
    return token, probabilities.gather(1, token[:, None])[:, 0].log()


def sample_token(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """The token at which the cumulative distribution of each row passes its uniform number."""
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    threshold = uniforms[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return token.clamp(max=probabilities.shape[-1] - 1)
