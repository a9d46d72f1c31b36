"""A reward, a source of feedback or a judge that asks others says what they say of themselves."""

from dataclasses import dataclass, field

import pytest

from lit_align.data.trained_prompts import prompt_keys
from lit_align.errors import ConfigError, PluginError
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.tournament import Tournament
from lit_align.judges import JudgeModel
from lit_align.plugin_signatures import check_signatures
from lit_align.plugin_wrapping import wrapping_fault
from lit_align.rewards import Reward
from lit_align.rewards.cosine_length import CosineLength
from lit_align.rewards.length import Length
from lit_align.rewards.rubric import Rubric
from lit_align.rewards.teacher import Teacher
from lit_align.rewards.weighted import Weighted
from lit_align.testing import check_feedback, check_reward

PROMPTS = frozenset(prompt_keys(["Name a bird."]))
LENGTH = Length(max_words=3)


@dataclass(frozen=True)
class Trained(Length):
    """A reward of which everything is known, and that notes what it is attached to."""

    max_words: int = 3
    attached: list = field(default_factory=list)

    def attach(self, adapters, tokenizer):
        self.attached.append((adapters, tokenizer))

    def trained_prompts(self):
        return PROMPTS

    def step_separators(self):
        return frozenset({"\n"})

    def can_split(self):
        return True


@dataclass(frozen=True)
class Wrapper(Reward):
    reward: Reward

    def wrapped(self):
        return [self.reward]

    def __call__(self, groups):
        return self.reward(groups)


WRAPPERS = {
    "a stranger's": Wrapper,
    "Weighted": lambda reward: Weighted([reward], [0.5]),
    "CosineLength": lambda reward: CosineLength(reward, max_length=9),
    "FromReward": FromReward,
    "Tournament": lambda reward: Tournament(FromReward(reward, pairs="all")),
    "nested": lambda reward: Weighted([CosineLength(Wrapper(reward), max_length=9)], [1.0]),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_what_holds_of_the_wrapped_holds_of_the_wrapper(wrap):
    inner = Trained()
    outer = wrap(inner)
    assert outer.trained_prompts() == PROMPTS
    assert outer.step_separators() == {"\n"}
    assert outer.can_split()
    outer.attach("adapters", "tokenizer")
    assert inner.attached == [("adapters", "tokenizer")]
    assert not wrap(LENGTH).can_split()
    assert not wrap(LENGTH).trained_prompts()


def test_a_reward_of_weight_0_is_attached_and_shared_out_but_decides_nothing():
    gold = Trained()
    logged = Weighted([LENGTH, gold], [1.0, 0.0])
    assert not logged.trained_prompts() | logged.step_separators()
    assert not logged.can_split()
    logged.attach("adapters", "tokenizer")
    assert gold.attached
    assert not Weighted(
        [Trained(), LENGTH], [1.0, 0.0]
    ).can_split()  # it has its price all the same


def test_a_teacher_costs_what_the_reward_costs_that_finds_its_solutions():
    assert Teacher(column="shown").can_split()
    assert Teacher(solved_by=Trained()).can_split()
    assert not Teacher(solved_by=LENGTH).can_split()
    assert Teacher(solved_by=Trained()).trained_prompts() == PROMPTS


class Expert(JudgeModel):
    def can_split(self):
        return True

    def choose_option(self, questions, options):
        raise NotImplementedError

    def generate(self, questions, max_tokens):
        raise NotImplementedError


def test_a_judge_is_asked_through_what_asks_it():
    assert Rubric(Expert(), criteria=("It is short.",)).can_split()


@dataclass(frozen=True)
class Hiding(Reward):
    """What a stranger writes: it asks another reward, and says nothing of it."""

    reward: Reward

    def __call__(self, groups):
        return self.reward(groups)


@dataclass(frozen=True)
class HidingOneOfTwo(Hiding):
    others: list = field(default_factory=list)

    def wrapped(self):
        return [self.reward]


class ClaimingToSplit(Wrapper):
    def can_split(self):
        return True


class Untrained(Wrapper):
    def trained_prompts(self):
        return frozenset()


class Stepless(Wrapper):
    def step_separators(self):
        return frozenset()


class DecidedByAStranger(Wrapper):
    def decided_by(self):
        return [Trained()]


class Attaching(Hiding):
    """As it was written where only `attach` had to be handed on."""

    def attach(self, adapters, tokenizer):
        self.reward.attach(adapters, tokenizer)


@dataclass(frozen=True, slots=True)
class Slotted(Reward):
    reward: Reward

    def __call__(self, groups):
        return self.reward(groups)


class SlottedAttaching(Slotted):
    def attach(self, adapters, tokenizer):
        self.reward.attach(adapters, tokenizer)


@pytest.mark.parametrize(
    ("reward", "fault"),
    [
        (
            Hiding(LENGTH),
            r"Hiding\.reward has a Length, which Hiding\.wrapped does not name; return",
        ),
        (HidingOneOfTwo(LENGTH, [Trained()]), r"HidingOneOfTwo\.others has a Trained, which"),
        (ClaimingToSplit(LENGTH), "can_split is true, and that of its Length is false"),
        (Untrained(Trained()), r"Untrained\.trained_prompts lacks 1 of its Trained; return those"),
        (Stepless(Trained()), r"Stepless\.step_separators lacks 1 of its Trained"),
        (DecidedByAStranger(LENGTH), r"decided_by names Trained, which .*wrapped does not"),
        (Weighted([Hiding(LENGTH)], [1.0]), r"Hiding\.reward has a Length"),
        (Slotted(LENGTH), r"Slotted\.reward has a Length, which Slotted\.wrapped does not"),
        (Attaching(Trained()), r"Attaching\.trained_prompts lacks 1 of its Trained; return"),
        (Attaching(Hiding(LENGTH)), r"Hiding\.reward has a Length"),
    ],
)
def test_a_wrapper_that_hides_what_it_asks_is_caught(reward, fault):
    with pytest.raises(AssertionError, match=fault):
        check_reward(reward)
    with pytest.raises(AssertionError, match=fault):
        check_feedback(FromReward(reward))


class Forwarding(Hiding):
    """As it was written before there was `wrapped`."""

    def attach(self, adapters, tokenizer):
        self.reward.attach(adapters, tokenizer)

    def trained_prompts(self):
        return self.reward.trained_prompts()

    def step_separators(self):
        return self.reward.step_separators()

    def can_split(self):
        return self.reward.can_split()


@pytest.mark.parametrize(
    "reward",
    [
        Wrapper(Trained()),
        Forwarding(Trained()),
        Attaching(LENGTH),
        SlottedAttaching(LENGTH),
        Forwarding(Attaching(LENGTH)),
    ],
)
def test_a_wrapper_that_hides_nothing_passes(reward):
    check_reward(reward)
    check_feedback(FromReward(reward))


@dataclass(frozen=True)
class Relay(Expert):
    """A judge as it was written while a judge had no more than `attach` and `can_split`."""

    judge: JudgeModel = field(default_factory=Expert)

    def attach(self, adapters, tokenizer):
        self.judge.attach(adapters, tokenizer)

    def can_split(self):
        return self.judge.can_split()


class Borrowed(Expert):
    def can_split(self):
        return False


class Boasting(Relay):
    def can_split(self):
        return True


def test_a_judge_that_attaches_what_it_asks_need_not_name_it():
    assert wrapping_fault(Relay()) == wrapping_fault(Relay(Borrowed())) == ""
    assert "Boasting.can_split is true, and that of its Borrowed" in wrapping_fault(
        Boasting(Borrowed())
    )


@dataclass(frozen=True)
class FieldOfThatName(Reward):
    wrapped: Reward | None = None

    def __call__(self, groups):
        return LENGTH(groups)


@dataclass(frozen=True)
class FieldOfAnother(Hiding):
    can_split: bool = True


@pytest.mark.parametrize(
    ("reward", "fault"),
    [
        (
            FieldOfThatName(LENGTH),
            "FieldOfThatName has a field wrapped, and that is a method of each Reward; give the field another name, "
            r"and return what it has from def wrapped\(self\)",
        ),
        (
            FieldOfAnother(LENGTH),
            "a field can_split, and that is a method of each Reward; give the field another name$",
        ),
    ],
)
def test_a_field_with_the_name_of_a_method_is_refused(reward, fault):
    with pytest.raises(AssertionError, match=fault):
        check_reward(reward)
    with pytest.raises(PluginError, match=fault):  # as a run does
        check_signatures(FromReward(reward))


def test_the_base_classes_agree_on_one_interface():
    for base in (Reward, Feedback, JudgeModel):
        assert not {"attach", "can_split", "trained_prompts", "step_separators"} & vars(base).keys()


@dataclass(frozen=True)
class Learner(Feedback):
    """It counts what it is asked, which a checkpoint has to keep."""

    asked: list = field(default_factory=list)

    def state(self):
        return {"asked": list(self.asked)}

    def restore(self, state):
        self.asked[:] = state["asked"]

    def __call__(self, groups, label_kind):
        self.asked.append(len(groups))
        return [FeedbackResult(None) for _ in groups]


@dataclass(frozen=True)
class Panel(Feedback):
    """It asks a reward and several sources, and knows nothing of what they learn."""

    members: list

    def wrapped(self):
        return [LENGTH, *self.members]

    def __call__(self, groups, label_kind):
        return [member(groups, label_kind) for member in self.members][-1]


def test_what_the_sources_that_are_asked_have_learned_is_in_the_checkpoint():
    before, after = (Panel([Learner(), FromReward(LENGTH), Learner()]) for _ in range(2))
    before.members[0]([1, 2], "pairs")
    before.members[2]([1, 2, 3], "pairs")
    after.restore(before.state())
    assert before.state() == {"1": {"asked": [2]}, "3": {"asked": [3]}}
    assert [after.members[place].asked for place in (0, 2)] == [[2], [3]]
    assert FromReward(LENGTH).state() == {}


def test_a_source_that_asks_one_that_learns_is_no_reward():
    with pytest.raises(ConfigError, match="Learner learns from what it is asked"):
        Tournament(Panel([FromReward(LENGTH), Learner()]))
