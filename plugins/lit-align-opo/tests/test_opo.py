"""The baseline by its property: advantages weighted by length cancel within a prompt."""

import torch
from lit_align_opo import OPO

from lit_align.advantages import Rollouts


def test_weighted_by_length_the_advantages_of_a_prompt_cancel():
    draw = torch.Generator().manual_seed(0)
    length = torch.tensor([3, 1, 4, 2, 5])
    mask = torch.arange(5) < length[:, None]
    rewards = torch.randn(5, 5, generator=draw, dtype=torch.float64) * mask
    found = OPO()(
        Rollouts(rewards, mask, torch.tensor([0, 0, 0, 1, 1]), torch.zeros(5, 5), torch.tensor(0.0))
    )
    assert (found[~mask] == 0).all()
    torch.testing.assert_close(found[:3].sum(), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(found[3:].sum(), torch.zeros((), dtype=torch.float64))
