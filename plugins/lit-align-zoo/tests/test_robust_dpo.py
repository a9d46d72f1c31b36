"""Robust DPO conforms, and does what it is for."""

import pytest
import torch
from lit_align_zoo.robust_dpo import RobustDPO

from lit_align.objectives import Logps
from lit_align.objectives.dpo import DPO
from lit_align.testing import check_objective


@pytest.mark.parametrize("flipped", [0.0, 0.1, 0.4])
def test_robust_dpo_conforms(flipped):
    check_objective(RobustDPO(flipped=flipped))


def test_flipped_labels_do_not_bias_it():
    """Over a share ε of flipped labels, the mean loss is that of DPO on the true labels (Lemma 3.1)."""
    better, worse = (
        Logps.from_lists([-3.0, -20.0, -7.0], [-4.0, -18.0, -7.0]),
        Logps.from_lists([-9.0, -6.0, -2.0], [-8.0, -9.0, -2.5]),
    )
    loss = RobustDPO(beta=0.3, flipped=0.2)
    mean = 0.8 * loss(better, worse) + 0.2 * loss(worse, better)
    torch.testing.assert_close(mean, DPO(beta=0.3)(better, worse))


@pytest.mark.parametrize("flipped", [-0.1, 0.5, 0.9])
def test_a_label_that_mostly_lies_is_refused(flipped):
    with pytest.raises(ValueError, match="flipped must be"):
        RobustDPO(flipped=flipped)
