"""Kernels and waits of the host for each decoded token, counted on a CPU as if its tensors were on a GPU.

What is a kernel and what a wait is told by `kernels.Kernels` and `host_waits.HostWaits`.
"""

from collections import Counter
from typing import Any, NamedTuple

import torch

from lit_align.models.decoding.batch import STEPS_BETWEEN_CHECKS, Choice, decode_batch

from .host_waits import HostWaits, pretend_on_gpu, pretend_tensor_on_gpu
from .kernels import Kernels


class TokenCounts(NamedTuple):
    """What a decoded token takes, whatever the number of rows.

    Args:
        kernels: by name.
        host_waits: by kind.
    """

    kernels: dict[str, float]
    host_waits: dict[str, float]

    @property
    def num_kernels(self) -> float:
        """All kernels."""
        return sum(self.kernels.values())

    def at_depth(
        self, shallower: "TokenCounts", layers: int, shallower_layers: int, depth: int
    ) -> "TokenCounts":
        """The counts of a model with ``depth`` layers, from those of two that are less deep."""
        factor = (depth - layers) / (layers - shallower_layers)

        def extrapolate(counts: dict[str, float], fewer: dict[str, float]) -> dict[str, float]:
            names = set(counts) | set(fewer)
            return {
                name: counts.get(name, 0.0)
                + factor * (counts.get(name, 0.0) - fewer.get(name, 0.0))
                for name in names
            }

        return TokenCounts(
            extrapolate(self.kernels, shallower.kernels),
            extrapolate(self.host_waits, shallower.host_waits),
        )


def count_decoding(model: Any, rows: int = 4, checks: int = 2) -> TokenCounts:
    """Count a sampled token: the difference between many and few, so that reading the prompts is left out.

    Args:
        model: a causal language model in eval mode, with its adapter active.
        rows: completions, two of each prompt; the prompts have different lengths.
        checks: how often the host looks which completions have ended in what is counted.
    """
    few, many = (_count(model, rows, STEPS_BETWEEN_CHECKS * times) for times in (1, 1 + checks))
    num_tokens = STEPS_BETWEEN_CHECKS * checks
    differences = []
    for counts, base in zip(many, few, strict=True):
        counts.subtract(base)
        differences.append({name: n / num_tokens for name, n in counts.items() if n})
    return TokenCounts(*differences)


@torch.no_grad()
def _count(model: Any, rows: int, num_tokens: int) -> tuple[Counter[str], Counter[str]]:
    prompts = [[5] * (3 + place) for place in range(rows // 2)]
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand(len(prompts), 2, num_tokens, generator=generator, dtype=torch.float64)
    choice = Choice(1.0, frozenset(), STEPS_BETWEEN_CHECKS)
    pretend_on_gpu(model)
    pretend_tensor_on_gpu(uniforms)
    with HostWaits() as waits, Kernels() as kernels:
        decode_batch(model, prompts, uniforms, choice, token_budget=1000)
    return kernels.counts, waits.by_kind()
