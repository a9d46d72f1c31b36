"""Kernels of one DPO step: a change that adds some to each layer is seen here, without a GPU and without a clock."""

from .kernels import dpo_step_kernels

MOST_KERNELS = 6_283
"""For two pairs of 512 + 2 * 256 tokens in 8 billion 4-bit weights. Lower it with whatever needs fewer."""


def test_kernels_of_a_dpo_step():
    assert dpo_step_kernels(trees=2, prompt=512, response=256) <= MOST_KERNELS
