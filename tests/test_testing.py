"""Each property that lit_align.testing checks catches an objective, or a format, that lacks only that one."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import logsigmoid

from lit_align.data.formats import Format
from lit_align.objectives import (
    Objective,
    PairwiseObjective,
    RankedObjective,
    RatedObjective,
    SupervisedObjective,
    UnpairedObjective,
)
from lit_align.objectives.dpo import DPO
from lit_align.testing import check_format, check_objective
from lit_align.types import Group, Pair


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
    """The inherited reward reads the reference, so every logged metric would be wrong."""

    needs_reference = False

    def __call__(self, chosen, rejected):
        return -logsigmoid(chosen.policy - rejected.policy)


class SupervisedTermBesides(PairwiseObjective):
    """It claims to depend on the margin only, and raises the chosen response too."""

    margin_only = True

    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected)) - chosen.policy


class WashedOut(PairwiseObjective):
    """Exact in double precision, and to seven digits in single; of eight bits nothing is left."""

    def __call__(self, chosen, rejected):
        return -logsigmoid(margin(chosen, rejected) + 1000 - 1000)


class ReadsPadding(PairwiseObjective):
    token_fields = frozenset({"policy"})

    def __call__(self, chosen, rejected):
        return rejected.tokens.policy.mean(1) - chosen.tokens.policy.mean(1)


@pytest.mark.parametrize(
    ("objective", "broken"),
    [
        (Reduced, r"Reduced returned one number for 8 items; return a loss for each, without mean"),
        (Overflowing, "a loss is not finite"),
        (NotANumberBehindWhere, "a gradient is not finite"),
        (ByPosition, "depends on its position"),
        (Coupled, "depends on the others"),
        (HalfDetached, "chosen response is not that of the loss"),
        (Detached, "the loss of Detached has no gradient; compute it from the policy"),
        (Swapped, "the wrong way"),
        (RaisesBoth, "the wrong way"),
        (Flat, "a descent step changes nothing"),
        (
            SecretlyReferred,
            "the loss of SecretlyReferred reads the reference, and its needs_reference is False; set",
        ),
        (
            SecretlyRewarded,
            "the implicit reward of SecretlyRewarded reads the reference, and its needs_reference is F",
        ),
        (SupervisedTermBesides, "a coin-toss label has a gradient"),
        (WashedOut, "in bfloat16 differs"),
        (ReadsPadding, "padding of the responses changes the loss"),
    ],
)
def test_a_wrong_objective_is_caught(objective, broken):
    with pytest.raises(AssertionError, match=broken):
        check_objective(objective())


class IgnoresLabels(UnpairedObjective):
    def __call__(self, responses, desirable, baseline):
        return -logsigmoid(responses.policy - responses.reference)


class WholeBatch(UnpairedObjective):
    def __call__(self, responses, desirable, baseline):
        gain = responses.policy - responses.reference
        return -logsigmoid(torch.where(desirable, gain, -gain) - 0.01 * gain.mean())


class BestLast(RankedObjective):
    def __call__(self, responses, order, place):
        rewards = (responses.policy - responses.reference)[order]
        return -logsigmoid(rewards[:, -1] - rewards[:, 0])


class PrefersTheSecond(RankedObjective):
    """Lifts the first over the last, but the second over both."""

    def __call__(self, responses, order, place):
        rewards = (responses.policy - responses.reference)[order]
        return -logsigmoid(rewards[:, 0] - rewards[:, 2]) - 2 * logsigmoid(
            rewards[:, 1] - rewards[:, 0] / 2
        )


class Contrary(RatedObjective):
    """Raises what is rated low."""

    attributes = ("rating",)

    def __call__(self, scores, ratings):
        return -(scores - ratings).square().sum(1)

    def combine(self, scores):
        return scores[:, 0]


class Unlearns(SupervisedObjective):
    def __call__(self, logps):
        return logps


@pytest.mark.parametrize(
    ("objective", "broken"),
    [
        (IgnoresLabels, "the wrong way"),
        (WholeBatch, "depends on the others"),
        (BestLast, "the wrong way"),
        (PrefersTheSecond, "does not favour the first response"),
        (Contrary, "the wrong way"),
        (Unlearns, "the wrong way"),
    ],
)
def test_a_wrong_objective_of_another_family_is_caught(objective, broken):
    with pytest.raises(AssertionError, match=broken):
        check_objective(objective())


def test_a_right_one_passes():
    check_objective(DPO(beta=0.1))


def test_an_objective_of_no_family_is_refused():
    class Orphan(Objective):
        def __call__(self, logps):
            return -logps

    with pytest.raises(TypeError, match="Orphan belongs to no family; derive it from"):
        check_objective(Orphan())


ROW = {"question": "Why?", "good": "Because.", "bad": "No."}


@dataclass(frozen=True)
class Sound(Format):
    label_kinds: ClassVar = frozenset({"pairs"})

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
    label_kinds: ClassVar = frozenset({"demonstrations"})


class Nothing(Sound):
    label_kinds: ClassVar = frozenset()


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


class OneLabelForTwo(Sound):
    def __call__(self, row):
        return Group(row["question"], [row["good"], row["bad"]], desirable=(True,))


class BinaryLabels(Sound):
    def __call__(self, row):
        return Group(row["question"], [row["good"]], desirable=(True,))


@pytest.mark.parametrize(
    ("row_format", "broken"),
    [
        (Greedy, "recognises a row without columns"),
        (Blind, "does not recognise the row"),
        (Silent, "kind 'pairs', but Silent.label_kinds does not list it"),
        (Nothing, r"Nothing.label_kinds is \[\]; it must be some of"),
        (Consuming, "changes the row"),
        (Moody, "another group of the same row"),
        (Mute, "returns no response, or an empty one"),
        (Pointless, "Pointless compares responses 1 and 1 of 2; count them from 0"),
        (Backwards, "whose probability is not over 0.5"),
        (OneLabelForTwo, "1 binary labels for 2 responses"),
        (BinaryLabels, "kind 'desirable', but"),
    ],
)
def test_a_wrong_format_is_caught(row_format, broken):
    with pytest.raises(AssertionError, match=broken):
        check_format(row_format(), dict(ROW))


def test_a_right_format_passes():
    assert check_format(Sound(), ROW).pairs == (Pair(0, 1),)
