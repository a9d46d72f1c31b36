"""What is right, wrong or an abstention."""

import pytest

from lit_align.errors import DataError
from lit_align.rewards.abstention import Abstention
from lit_align.types import Group


def score(reward, answers, *responses):
    return reward([Group("?", list(responses), extra={"answers": answers})]).total.tolist()


def test_a_number_within_another_is_wrong():
    assert score(Abstention(), ["5"], "15", "5", "It is 5.", "I don't know.") == [-1, 1, 1, 0]
    assert score(Abstention(), [5], "50", "5.0") == [-1, 1]


def test_patterns_replace_the_usual_phrases():
    reward = Abstention(0.5, patterns=[r"^pass\b"])
    assert score(reward, ["Rome"], "Pass.", "I don't know.", "Rome, I pass") == [0.5, -1, 1]
    assert score(reward, [], "pass", "Rome") == [1, -1]
    scores = reward([Group("?", ["PASS", "Rome"], extra={"answers": ["Rome"]})])
    assert scores.parts["abstains"].tolist() == [1, 0]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"pattern '\(' is no regular expression"):
        Abstention(patterns=["("])
    with pytest.raises(DataError, match="no list of answers in its column 'answers'"):
        Abstention()([Group("?", ["Rome"], source="rows:1")])
