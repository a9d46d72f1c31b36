"""Rewards that a judge gives: rubrics, and tournaments within the group."""

import math
from dataclasses import dataclass

import pytest

from lit_align.errors import ConfigError, DataError
from lit_align.feedback.critique_revise import CritiqueRevise
from lit_align.feedback.discriminator import Discriminator
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.judge import Judge
from lit_align.feedback.tournament import Tournament
from lit_align.judges.base import JudgeModel, Reply
from lit_align.rewards import Group, Reward
from lit_align.rewards.cosine_length import CosineLength
from lit_align.rewards.rubric import Rubric
from lit_align.rewards.teacher import Teacher
from lit_align.testing import check_reward


@dataclass(frozen=True)
class Keywords(JudgeModel):
    """Says Yes to a criterion whose last word is in the answer, and A to the longer answer; ``?`` it cannot read."""

    def choose_option(self, questions, options):
        replies = []
        for question in questions:
            if "?" in question.partition("The answer was:")[2].partition("Does")[0]:
                replies.append(Reply(None, "perhaps", {}, "no verdict"))
            elif "Yes" in options:
                answer = question.partition("The answer was:")[2].partition("\n\nDoes this hold")[0]
                criterion = question.partition("Does this hold of the answer? ")[2].splitlines()[0]
                holds = criterion.split()[-1].strip(".") in answer
                replies.append(Reply((1.0, 0.0) if holds else (0.0, 1.0), "", {}))
            else:
                a, b = question.split("\n\n")[1::2][1:3]
                replies.append(Reply((0.9, 0.1) if len(a) > len(b) else (0.1, 0.9), "", {}))
        return replies

    def generate(self, questions, max_tokens):
        raise NotImplementedError


RUBRIC = [
    "It names an owl.",
    {"text": "It names a bat.", "weight": 3},
    {"text": "It says never.", "weight": -2},
    {"text": "It is about the night.", "must": True},
]


def group(*responses, **extra):
    return Group("Who is up?", list(responses), source="rows:1", extra=extra)


def test_a_rubric_is_the_weighted_share_of_what_holds():
    """1 + 3 + 1 points, less 2 for a fault; nothing without the night; not scored where the judge cannot be read."""
    answers = ("owl bat night", "bat night never", "owl bat", "owl ? night", "owl never night")
    scores = Rubric(Keywords())([group(*answers, rubric=RUBRIC)])
    assert scores.total.tolist() == pytest.approx([1.0, 0.4, 0.0, 0.0, 0.0])
    assert scores.scored.tolist() == [True, True, True, False, True]
    check_reward(Rubric(Keywords()), [group(*answers, rubric=RUBRIC)])


def test_a_reference_answer_is_shown_to_the_judge():
    reward = Rubric(Keywords(), None, ("It says what the correct answer says.",), "answer")
    [question] = reward._questions(group(answer="An owl."), "A bat.", reward._rubric(group()))
    assert "> An owl." in question
    assert "> A bat." in question


def test_to_fail_what_must_hold_is_never_worth_more():
    """A fault of weight -2 on a criterion of weight 1: -1 where that is met, and less where it is not."""
    rubric = [{"text": "An owl.", "must": True}, {"text": "A bat.", "weight": -2}]
    scores = Rubric(Keywords())([group("owl bat", "bat", "owl", "crow", rubric=rubric)])
    assert scores.total.tolist() == [-1.0, -2.0, 1.0, 0.0]


def test_a_reference_is_shown_as_text():
    reward = Rubric(Keywords(), None, ("It says owl.",), "answer")
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "An owl."}]
    for answer, text in ((turns, "> An owl."), (0, "> 0")):
        [question] = reward._questions(group(answer=answer), "A bat.", reward._rubric(group()))
        assert text in question
        assert "role" not in question
    for answer in ({"text": "owl"}, ["owl"], [{"role": "user", "content": "Who?"}]):
        with pytest.raises(DataError, match="'answer' of rows:1 is"):
            reward([group("A bat.", answer=answer)])


def test_null_in_a_criterion_is_its_default():
    """Parquet gives each object all fields: 1 of 1 + 1 points for either animal, and neither must be there."""
    rubric = [{"text": text, "weight": None, "must": None} for text in ("An owl.", "A bat.")]
    scores = Rubric(Keywords())([group("owl", "bat", "owl bat", rubric=rubric)])
    assert scores.total.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("rubric", "says"),
    [
        ([{"text": "A lie.", "weight": -1, "must": True}], "weight below 0, that must hold"),
        ("an owl", "rows:1 has no list of criteria in its column 'rubric'"),
        ([{"txt": "an owl"}], "it is a text, or has text, weight and must"),
        ([{"text": "a lie", "weight": -1}], "no criterion of rows:1 has a weight over 0"),
        (
            [{"text": "owl", "weight": "high"}],
            "weight of .* rows:1 is 'high'; give a finite number",
        ),
        ([{"text": "owl", "weight": math.nan}], "rows:1 is nan; give a finite number"),
        ([{"text": "owl", "weight": math.inf}], "rows:1 is inf; give a finite number"),
        ([{"text": "owl", "weight": True}], "rows:1 is True; give a finite number"),
        ([{"text": "owl", "must": "false"}], "must of .* rows:1 is 'false'; give true or false"),
        ([{"text": "owl", "must": 1}], "must of .* rows:1 is 1; give true or false"),
    ],
)
def test_a_rubric_that_says_nothing_is_refused(rubric, says):
    with pytest.raises(DataError, match=says):
        Rubric(Keywords())([group("An owl.", rubric=rubric)])


def test_a_tournament_is_wins_minus_losses():
    """Of three the longest wins both comparisons with probability 0.9: 0.8 each."""
    scores = Tournament(Judge(Keywords()))([group("owl, and many a bat", "owl", "owl and bat")])
    assert scores.total.tolist() == pytest.approx([0.8, -0.8, 0.0])
    check_reward(Tournament(Judge(Keywords())), [group("owl, and many a bat", "owl"), group("a")])


def test_a_response_without_a_comparison_is_not_scored():
    scores = Tournament(Judge(Keywords()))([group("owl"), group("owl", "owl and bat")])
    assert scores.scored.tolist() == [False, True, True]


def test_what_compares_nothing_is_refused():
    with pytest.raises(ConfigError, match="does not compare given responses"):
        Tournament(CritiqueRevise(Keywords()))


def test_equal_responses_are_tied():
    reward = Tournament(Judge(Keywords()))
    scores = reward([group("owl", "owl"), group("owl and bat", "owl", "owl")])
    assert scores.scored.all()
    assert scores.total.tolist() == pytest.approx([0.0, 0.0, 0.8, -0.4, -0.4])


@dataclass(frozen=True)
class Trained(Reward):
    """Was trained on one prompt."""

    def trained_prompts(self):
        return frozenset({"a hash"})

    def __call__(self, groups):
        raise NotImplementedError


def test_feedback_that_learns_is_refused():
    learner = Discriminator(Trained(), Judge(Keywords()))
    with pytest.raises(ConfigError, match="Discriminator learns from what it is asked"):
        Tournament(learner)


@pytest.mark.parametrize(
    "wrapper",
    [
        CosineLength(Trained(), 4),
        Tournament(FromReward(Trained())),
        Teacher("policy", solved_by=Trained()),
        Discriminator(Trained(), Judge(Keywords())),
    ],
)
def test_a_reward_of_a_reward_was_trained_on_its_prompts(wrapper):
    assert wrapper.trained_prompts() == {"a hash"}
