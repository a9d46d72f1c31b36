"""Votes that can be counted by hand."""

import pytest
from lit_align_jury import Jury

from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.recorded import Recorded
from lit_align.rewards.length import Length
from lit_align.testing import check_feedback
from lit_align.types import Group, Pair

FEW, MANY = FromReward(Length(max_words=1)), FromReward(Length(max_words=9, min_words=9))
SAID = Group("Name a bird.", ["one two three", "one", "one two"], (Pair(0, 1, 0.7),))


def test_it_keeps_the_promises():
    check_feedback(Jury([FEW, Recorded()]))


def test_votes_are_averaged_and_whoever_cannot_tell_has_none():
    [opinion] = Jury([FEW, FEW, Recorded()])([SAID], "pairs")
    chances = {pair[:2]: pair.probability for pair in opinion.group.pairs}
    assert chances == pytest.approx(
        {(1, 0): 1 - 0.7 / 3, (2, 0): 1.0, (1, 2): 1.0}
    )  # the data say nothing of 2
    assert [record["source"] for record in opinion.records] == [
        "Length(max_words=1, min_words=0)"
    ] * 2


def test_a_quorum_is_needed():
    [opinion] = Jury([FEW, Recorded()], quorum=2)([SAID], "pairs")
    assert [pair[:2] for pair in opinion.group.pairs] == [(1, 0)]  # 0.3 and 0 for the first
    [opinion] = Jury([FEW, Recorded()], quorum=2)([SAID._replace(pairs=())], "pairs")
    assert opinion.reason == "no quorum"
    with pytest.raises(ValueError, match="from 1 to the 2 members, got 3"):
        Jury([FEW, MANY], quorum=3)
