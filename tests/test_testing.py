"""Each promise of lit_align.testing catches an objective, or a format, that breaks only that one."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import logsigmoid

from lit_align.batches import Group, Pair
from lit_align.data.formats import Format
from lit_align.objectives import PairwiseObjective
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.testing import check_format, check_objective


def margin(chosen, rejected):
    return (chosen.policy - chosen.reference) - (rejected.policy - rejected.reference)


class Reduced(PairwiseObjective):
    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected)).mean()


class Overflowing(PairwiseObjective):
    def __call__(self, chosen, rejected):
        return torch.log(1 + torch.exp(-margin(chosen, rejected)))


class NotANumberBehindWhere(PairwiseObjective):
    """Finite, but autograd multiplies the branch not taken, inf, by zero."""

    def __call__(self, chosen, rejected):
        x = margin(chosen, rejected)
        return torch.where(x < -50, -x, torch.log1p(torch.exp(-x)))


class ByPosition(PairwiseObjective):
    def __call__(self, chosen, rejected):
        x = margin(chosen, rejected)
        return -logsigmoid(x) * torch.linspace(1, 2, len(x))


class Coupled(PairwiseObjective):
    def __call__(self, chosen, rejected):
        x = margin(chosen, rejected)
        return -logsigmoid(x - 0.01 * x.sum().detach())


class HalfDetached(PairwiseObjective):
    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected)) * (1 + chosen.policy.detach() ** 2)


class Detached(PairwiseObjective):
    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected)).detach()


class Swapped(PairwiseObjective):
    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(rejected, chosen))


class RaisesBoth(PairwiseObjective):
    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected)) - 2 * rejected.policy


class Flat(PairwiseObjective):
    def __call__(self, chosen, rejected):
        return torch.relu(-1 - margin(chosen, rejected)) ** 2


class SecretlyReferred(PairwiseObjective):
    needs_reference = False

    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected))


class SecretlyRewarded(PairwiseObjective):
    """The inherited reward reads the reference, so every logged figure would be wrong."""

    needs_reference = False

    def __call__(self, chosen, rejected):
        return -logsigmoid(chosen.policy - rejected.policy)


@pytest.mark.parametrize(
    ("objective", "broken"),
    [
        (Reduced, r"a loss for each of 8 pairs, got shape \(\)"),
        (Overflowing, "a loss is not finite"),
        (NotANumberBehindWhere, "a gradient is not finite"),
        (ByPosition, "depends on where it stands"),
        (Coupled, "depends on the others"),
        (HalfDetached, "chosen response is not that of the loss"),
        (Detached, "the loss has no gradient"),
        (Swapped, "lowers a chosen response"),
        (RaisesBoth, "raises a rejected response"),
        (Flat, "descending changes nothing"),
        (SecretlyReferred, "the reference changes the loss"),
        (SecretlyRewarded, "the reference changes the reward"),
    ],
)
def test_a_wrong_objective_is_caught(objective, broken):
    with pytest.raises(AssertionError, match=broken):
        check_objective(objective())


def test_a_right_one_passes():
    check_objective(DPO(beta=0.1))


def test_another_family_is_told_so():
    with pytest.raises(TypeError, match="CrossEntropy is not a PairwiseObjective"):
        check_objective(CrossEntropy())


ROW = {"question": "Why?", "good": "Because.", "bad": "No."}


@dataclass(frozen=True)
class Sound(Format):
    gives: ClassVar = frozenset({"pairs"})

    def recognises(self, row):
        return "question" in row

    def __call__(self, row):
        return Group(row["question"], [row["good"], row["bad"]], (Pair(0, 1),))


class Greedy(Sound):
    def recognises(self, row):
        return True


class Blind(Sound):
    def recognises(self, row):
        return False


class Silent(Sound):
    gives: ClassVar = frozenset({"demonstrations"})


class Nothing(Sound):
    gives: ClassVar = frozenset()


class Consuming(Sound):
    def __call__(self, row):
        return Group(row.pop("question"), [row["good"]])


class Moody(Sound):
    def __call__(self, row):
        return Group(row["question"], [row["good"], str(object())])


class Mute(Sound):
    def __call__(self, row):
        return Group(row["question"], [row["good"], ""])


class Pointless(Sound):
    def __call__(self, row):
        return Group(row["question"], [row["good"], row["bad"]], (Pair(1, 1),))


class Backwards(Sound):
    def __call__(self, row):
        return Group(row["question"], [row["good"], row["bad"]], (Pair(0, 1, probability=0.2),))


class OneThumb(Sound):
    def __call__(self, row):
        return Group(row["question"], [row["good"], row["bad"]], desirable=(True,))


class Thumbs(Sound):
    def __call__(self, row):
        return Group(row["question"], [row["good"]], desirable=(True,))


@pytest.mark.parametrize(
    ("layout", "broken"),
    [
        (Greedy, "recognises a row without columns"),
        (Blind, "does not recognise the row"),
        (Silent, "gives pairs, but Silent.gives does not say so"),
        (Nothing, "Nothing.gives is wrong"),
        (Consuming, "changes the row"),
        (Moody, "another group of the same row"),
        (Mute, "gives no response, or an empty one"),
        (Pointless, "compares Pair"),
        (Backwards, "a probability that is not over 0.5"),
        (OneThumb, "1 thumbs to 2 responses"),
        (Thumbs, "gives thumbs, but"),
    ],
)
def test_a_wrong_format_is_caught(layout, broken):
    with pytest.raises(AssertionError, match=broken):
        check_format(layout(), dict(ROW))


def test_a_right_format_passes():
    assert check_format(Sound(), ROW).pairs == (Pair(0, 1),)
