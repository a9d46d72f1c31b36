"""Each promise of a judge model that check_judge looks for is missed where one lacks only that one."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from lit_align.judges import JudgeModel, Reply
from lit_align.judges.base import text_hash
from lit_align.judges.local_model import LocalModel
from lit_align.testing import check_judge, write_tiny_model


@dataclass(frozen=True)
class Sound(JudgeModel):
    """Answers by a hash of the question and the option."""

    def choose_option(self, questions, options):
        return [self.choose(question, options) for question in questions]

    def choose(self, question, options):
        weights = [1 + text_hash(question, option) % 7 for option in options]
        return Reply(tuple(weight / sum(weights) for weight in weights), "", {"cost": 0.0})

    def generate(self, questions, max_tokens):
        return [Reply(None, f"Because of {text_hash(question)}.", {}) for question in questions]


def test_a_right_judge_passes():
    check_judge(Sound())


def test_the_model_in_memory_passes(tmp_path):
    check_judge(LocalModel(write_tiny_model(tmp_path)))


class Unsure(Sound):
    """Without a verdict, and with a reason."""

    def choose(self, question, options):
        return Reply(None, "Hm.", {}, "it names no option")


def test_a_judge_that_gives_a_reason_passes():
    check_judge(Unsure())


class Rounding(Sound):
    """A probability depends a little on how many questions are read with it, as in bfloat16."""

    def choose_option(self, questions, options):
        step = 0.004 * len(questions)
        replies = []
        for reply in super().choose_option(questions, options):
            low, high = reply.probabilities.index(min(reply.probabilities)), len(options)
            moved = [
                p + step * (high - 1 if place == low else -1) / high
                for place, p in enumerate(reply.probabilities)
            ]
            replies.append(reply._replace(probabilities=tuple(moved)))
        return replies


def test_how_far_probabilities_may_lie_apart_is_a_setting():
    check_judge(Rounding(), tolerance=0.05)
    with pytest.raises(AssertionError, match="choose_option replies otherwise one by one"):
        check_judge(Rounding())


class Silent(Sound):
    def choose(self, question, options):
        return Reply(None, "Hm.", {})


class Loud(Sound):
    def choose(self, question, options):
        return Reply((2.0, *[0.0] * (len(options) - 1)), "", {})


class Negative(Sound):
    def choose(self, question, options):
        return Reply((-0.5, 1.5, *[0.0] * (len(options) - 2)), "", {})


class First(Sound):
    """Prefers whatever comes first."""

    def choose(self, question, options):
        return Reply((1.0, *[0.0] * (len(options) - 1)), "", {})


class Binary(Sound):
    def choose(self, question, options):
        return Reply((0.5, 0.5), "", {})


class Short(Sound):
    def choose_option(self, questions, options):
        return super().choose_option(questions, options)[:1]


class Bare(Sound):
    def choose_option(self, questions, options):
        return [reply.probabilities for reply in super().choose_option(questions, options)]


class Unwritable(Sound):
    def choose(self, question, options):
        return super().choose(question, options)._replace(record={"at": {1, 2}})


class Tired(Sound):
    """Answers by how often it was asked."""

    asked: ClassVar[list] = []

    def generate(self, questions, max_tokens):
        self.asked.append(len(questions))
        return [Reply(None, f"Question {len(self.asked)}.", {}) for _ in questions]


class Comparing(Sound):
    """Reads the other questions."""

    def generate(self, questions, max_tokens):
        return [Reply(None, f"The longest is {max(questions, key=len)}.", {}) for _ in questions]


class Numbering(Sound):
    def generate(self, questions, max_tokens):
        return [Reply(None, f"Question {number}.", {}) for number, _ in enumerate(questions)]


class Talkative(Sound):
    """Speaks where nothing is asked."""

    def generate(self, questions, max_tokens):
        return super().generate(questions or ["?"], max_tokens)


class Emptying(Sound):
    def generate(self, questions, max_tokens):
        replies = super().generate(questions, max_tokens)
        questions.clear()
        return replies


class Mute(Sound):
    def generate(self, questions, max_tokens):
        return [Reply(None, "", {}) for _ in questions]


class Deciding(Sound):
    def generate(self, questions, max_tokens):
        return [Reply((1.0,), "A", {}) for _ in questions]


class Nameless(Sound):
    def generate(self, questions, max_tokens):
        return [Reply(None, None, {}) for _ in questions]


class TwoArguments(Sound):
    def generate(self, questions):
        return []


@dataclass(frozen=True)
class Hiding(Sound):
    other: JudgeModel = field(default_factory=Sound)


class Failing(Sound):
    def choose(self, question, options):
        return {}[question]


class Plain(JudgeModel):
    choose_option, generate = Sound.choose_option, Sound.generate
    choose = Sound.choose


@pytest.mark.parametrize(
    ("judge", "fault"),
    [
        (Silent, "gives no probabilities, and no reason; say why in reason"),
        (
            Loud,
            r"gives the probabilities \(2.0, 0.0, 0.0\); each is from 0 to 1, and they sum to 1",
        ),
        (Negative, "each is from 0 to 1"),
        (First, "gives options other probabilities when they are listed the other way round"),
        (Binary, "Binary gave 2 probabilities for 3 options; give one for each"),
        (Short, "Short returned 1 replies to 3 questions; return one for each"),
        (Bare, "Bare returned a list; return a list with a Reply for each question"),
        (Unwritable, "gives a record that is not JSON"),
        (Tired, "generate replies otherwise in a second call: Question 2., and Question 1. before"),
        (Comparing, "generate replies otherwise one by one"),
        (Numbering, "generate replies otherwise in another order"),
        (Talkative, "Talkative returned 1 replies to 0 questions; return one for each"),
        (Emptying, "changes the list of questions that it is given"),
        (Mute, "gives no text, and no reason"),
        (Deciding, "there are no options; give None"),
        (Nameless, "gives the text None"),
        (TwoArguments, r"generate takes \(questions\), and a JudgeModel is called with"),
        (Hiding, r"Hiding\.other has a Sound, which Hiding\.wrapped does not name"),
        (Failing, r"Failing failed at .*test_judges.py:\d+: KeyError"),
        (Plain, "Plain is no dataclass, whose fields are its settings"),
    ],
)
def test_a_wrong_judge_is_caught(judge, fault):
    with pytest.raises(AssertionError, match=fault):
        check_judge(judge())


def test_settings_that_are_not_refused_are_caught():
    with pytest.raises(AssertionError, match=r"Sound accepts the settings refused\[0\]"):
        check_judge(Sound(), refused=[Sound])
