"""Heads against numbers derived by hand, and the laying out of patches against torch's own fold."""

import pytest
import torch
from torch.nn.functional import fold

from lit_align.errors import ConfigError
from lit_align.orca.embedders.patches import Patches
from lit_align.orca.embedders.tabular import Tabular
from lit_align.orca.heads import Head, build_metric, relative_l2
from lit_align.orca.modalities import TargetSpec
from lit_align.orca.types import Embedded

HIDDEN = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
TOKENS = Embedded(HIDDEN, torch.tensor([[True, True, False], [True, True, True]]))


def sums(head):
    """Let every output be the sum of what the head reads."""
    torch.nn.init.ones_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    return head


def patches(*size):
    embedder = Patches()
    embedder.patch = size
    return embedder


@pytest.mark.parametrize(("pool", "wanted"), [("mean", [[3.0], [4.0]]), ("last", [[5.0], [6.0]])])
def test_pooling_leaves_out_what_is_not_there(pool, wanted):
    """Token sums are 1, 5 (and 18, which is not there), and 2, 4, 6."""
    head = sums(Head(TargetSpec("multilabel", 1), Tabular(), 2, pool))
    assert head(HIDDEN, TOKENS).tolist() == wanted


def test_numbers_come_in_their_own_units_and_the_loss_in_deviations():
    head = sums(Head(TargetSpec("regression", 1, mean=(100.0,), std=(10.0,)), Tabular(), 2))
    predicted = head(HIDDEN, TOKENS)
    assert predicted.tolist() == [[130.0], [140.0]]  # 100 + 10 * (3, 4)
    y = torch.tensor([[110.0], [140.0]])
    assert head.loss(predicted, y).tolist() == [4.0, 0.0]  # ((130 - 110) / 10)^2
    rmse = build_metric(head.target)
    rmse.update(predicted, y)
    torch.testing.assert_close(rmse.compute(), torch.tensor(200.0).sqrt())
    assert rmse.higher_is_better is False


def test_classes():
    head = Head(TargetSpec("class", 3, classes=("a", "b", "c")), Tabular(), 2)
    logits, y = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]), torch.tensor([1, 2])
    torch.testing.assert_close(head.loss(logits, y)[0], torch.tensor(3.0).log())
    accuracy = build_metric(head.target)
    accuracy.update(torch.tensor([[0.0, 1.0, 0.0], [9.0, 0.0, 0.0]]), y)
    assert accuracy.compute() == 0.5
    assert accuracy.higher_is_better


def test_labels():
    """Average precision of a label: of the ranked examples 1 0 1, the precisions at the hits are 1 and 2/3."""
    head = Head(TargetSpec("multilabel", 2), Tabular(), 2)
    torch.testing.assert_close(
        head.loss(torch.zeros(1, 2), torch.tensor([[1, 0]])), torch.tensor([2.0]).log()
    )
    precision = build_metric(head.target)
    precision.update(
        torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]), torch.tensor([[1, 0], [0, 0], [1, 1]])
    )
    torch.testing.assert_close(precision.compute(), torch.tensor((5 / 6 + 1) / 2))


def test_dense_patches_lie_where_they_were_cut():
    """Against torch's fold, whose columns are [channels * height * width of a patch, patches]."""
    target = TargetSpec("dense", 2, (5, 7), mean=(1.0, -1.0), std=(2.0, 3.0))
    head = Head(target, patches(2, 3), 4)
    hidden = torch.randn(3, 9, 4)
    found = head(hidden, Embedded(hidden, torch.ones(3, 9, dtype=torch.bool), (3, 3)))
    whole = fold(head.linear(hidden).transpose(1, 2), (6, 9), (2, 3), stride=(2, 3))[:, :, :5, :7]
    wanted = whole * torch.tensor([2.0, 3.0]).view(2, 1, 1) + torch.tensor([1.0, -1.0]).view(
        2, 1, 1
    )
    torch.testing.assert_close(found, wanted)


def test_dense_series():
    head = Head(TargetSpec("dense", 1, (5,), mean=(0.0,), std=(1.0,)), patches(2), 4)
    hidden = torch.randn(2, 3, 4)
    found = head(hidden, Embedded(hidden, torch.ones(2, 3, dtype=torch.bool), (3,)))
    torch.testing.assert_close(found, head.linear(hidden).flatten(1)[:, None, :5])
    y = torch.ones(2, 1, 5)
    error = build_metric(head.target)
    error.update(3 * y, y)
    error.update(y[:1], y[:1])
    torch.testing.assert_close(error.compute(), torch.tensor(4 / 3))  # 2, 2 and 0
    assert head.loss(3 * y, y).tolist() == [2.0, 2.0]


def test_a_dense_target_without_tiles_is_refused():
    with pytest.raises(ConfigError, match="those of Tabular do not; choose Patches"):
        Head(TargetSpec("dense", 1, (4,)), Tabular(), 2)


def test_the_relative_error_is_of_norms():
    predicted, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert relative_l2(predicted, y).tolist() == pytest.approx([0.8])  # |(0, 4)| / |(3, 4)|
