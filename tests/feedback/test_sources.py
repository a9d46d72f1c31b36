"""Sources that ask nobody: what the data say, what a reward says, and the data's answer against the policy's."""

import pytest

from lit_align.errors import SetAside
from lit_align.feedback.base import TIE, label_from_probabilities, label_from_scores
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.recorded import Recorded
from lit_align.feedback.self_play import SelfPlay
from lit_align.rewards.length import Length
from lit_align.testing import check_feedback
from lit_align.types import Group, Pair

THREE = Group("Name a bird.", ["one two three four", "one", "one two"], source="here:1")
SHORT = FromReward(Length(max_words=1))  # -(words - 1): -3, 0, -1


@pytest.mark.parametrize(
    "feedback", [Recorded(), SHORT, FromReward(Length(max_words=1), "all", -0.5), SelfPlay()]
)
def test_they_keep_the_promises(feedback):
    check_feedback(feedback)


def test_a_reward_gives_every_kind_of_label():
    def labelled(label_kind, source=SHORT):
        [opinion] = source([THREE], label_kind)
        assert opinion.group.source == "here:1"
        return opinion.group

    assert labelled("pairs").responses == ["one two three four", "one"]
    assert labelled("pairs").pairs == (Pair(1, 0, 1.0, 3.0),)
    every = labelled("pairs", FromReward(Length(max_words=1), pairs="all")).pairs
    assert every == (Pair(1, 0, 1.0, 3.0), Pair(2, 0, 1.0, 2.0), Pair(1, 2, 1.0, 1.0))
    assert labelled("desirable").desirable == (False, True, True)  # the mean is -4/3
    assert labelled("desirable", FromReward(Length(max_words=1), threshold=-1.0)).desirable == (
        False,
        True,
    )  # -1 is neither
    assert labelled("ranking").ranking == (3, 1, 2)
    assert labelled("ratings").ratings == ({"score": -3.0}, {"score": 0.0}, {"score": -1.0})
    assert labelled("demonstrations").responses == ["one"]


def test_what_cannot_be_said_is_set_aside_with_its_record():
    alike = Group("Name a bird.", ["one two", "two one"])
    for label_kind in ("pairs", "desirable", "ranking"):
        [opinion] = SHORT([alike], label_kind)
        assert (opinion.group, opinion.reason) == (None, TIE)
        assert opinion.records[0]["scores"] == [-1.0, -1.0]
    [opinion] = FromReward(Length(max_words=1), threshold=-0.5)([alike], "demonstrations")
    assert opinion.reason == "no response is worth imitating"
    with pytest.raises(SetAside, match=TIE):
        label_from_probabilities(alike, {(0, 1): 0.5}, "pairs")


def test_comparisons_give_every_kind_of_label():
    chances = {(0, 1): 0.9, (0, 2): 0.8, (1, 2): 0.4}  # mean chances: 0.85, 0.25, 0.4
    assert [pair[:2] for pair in label_from_probabilities(THREE, chances, "pairs").pairs] == [
        (0, 1),
        (0, 2),
        (2, 1),
    ]
    assert [
        pair.probability for pair in label_from_probabilities(THREE, chances, "pairs").pairs
    ] == pytest.approx([0.9, 0.8, 0.6])
    assert label_from_probabilities(THREE, chances, "desirable").desirable == (True, False, False)
    assert label_from_probabilities(THREE, chances, "ranking").ranking == (1, 3, 2)
    assert (
        label_from_probabilities(THREE, chances, "demonstrations").responses == THREE.responses[:1]
    )
    rated = [one["score"] for one in label_from_probabilities(THREE, chances, "ratings").ratings]
    assert rated == pytest.approx([0.85, 0.25, 0.4])


def test_labels_that_a_group_came_with_are_replaced():
    known = THREE._replace(pairs=(Pair(0, 1),), desirable=(True,) * 3, ranking=(1, 2, 3), target=0)
    assert label_from_scores(known, [0.0, 2.0, 1.0], "pairs") == label_from_scores(
        THREE, [0.0, 2.0, 1.0], "pairs"
    )


def test_self_play_needs_an_answer_that_is_not_what_the_policy_said():
    [own, same, none] = SelfPlay()(
        [THREE._replace(target=2), Group("", ["yes", " yes"], target=0), THREE], "pairs"
    )
    assert own.group.responses == ["one two", "one two three four", "one"]
    assert own.group.pairs == (Pair(0, 1), Pair(0, 2))
    assert same.group is None
    assert none.reason == "no reference answer"
