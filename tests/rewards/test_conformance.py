"""Rewards that read a reference answer or the steps of a response keep what check_reward asks of every reward."""

from dataclasses import dataclass

import pytest
import torch

from lit_align.errors import DataError
from lit_align.judges import JudgeModel, Reply
from lit_align.judges.base import text_hash
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.abstention import Abstention
from lit_align.rewards.last_number import LastNumber
from lit_align.rewards.process import ProcessScore
from lit_align.rewards.rubric import Rubric
from lit_align.rewards.weighted import Weighted
from lit_align.testing import check_judge, check_reward
from tests.rewards.test_process import process_reward_model


@dataclass(frozen=True)
class Hashing(JudgeModel):
    """An answer that follows from the question alone; every seventh it cannot give."""

    def choose_option(self, questions, options):
        replies = []
        for question in questions:
            weights = [1 + text_hash(question, option) % 5 for option in options]
            share = tuple(weight / sum(weights) for weight in weights)
            if text_hash(question) % 7 == 0:
                replies.append(Reply(None, "perhaps", {}, "no verdict"))
            else:
                replies.append(Reply(share, "", {}))
        return replies

    def generate(self, questions, max_tokens):
        return [Reply(None, f"{text_hash(question)}", {}) for question in questions]


def rows(**columns):
    """Groups of one, two and three responses, each with its value of each column."""
    texts = ["Four, or 4.", "I don't know.", "5"]
    groups = []
    for k in range(3):
        extra = {name: values[k] for name, values in columns.items()}
        groups.append(Group(f"{k}: 2 + 2?", texts[: k + 1], source=f"rows:{k + 1}", extra=extra))
    return groups


RUBRIC = [
    ["It gives a number."],
    [{"text": "It says 4.", "weight": 3}, {"text": "It hedges.", "weight": -1}],
    '["It is short.", "It is right."]',
]
ANSWERS = [["4"], [], "[4, 'four']"]


@pytest.mark.parametrize(
    ("reward", "groups"),
    [
        (Rubric(Hashing()), rows(rubric=RUBRIC)),
        (Rubric(Hashing(), reference="answer"), rows(rubric=RUBRIC, answer=["4", 4, "four"])),
        (Rubric(Hashing(), None, ("It is right.",)), rows()),
        (Abstention(), rows(answers=ANSWERS)),
        (Abstention(0.5, "known", ["^5$"]), rows(known=ANSWERS)),
        (
            Weighted([LastNumber(), Rubric(Hashing())], [1.0, 0.0]),
            rows(answer=["4"] * 3, rubric=RUBRIC),
        ),
        (LastNumber(), rows(answer=["#### 4", "4", "5"])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_reward_from_a_reference_conforms(reward, groups):
    check_reward(reward, groups)


def test_the_judge_of_these_tests_conforms():
    check_judge(Hashing())


@pytest.mark.parametrize("reward", [Rubric(Hashing()), Abstention()], ids=["Rubric", "Abstention"])
def test_a_row_without_the_reference_is_named(reward):
    with pytest.raises(DataError, match=r"rows:1 has no list of .* in its column '\w+'; name ano"):
        reward(rows()[:1])


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A process reward model with random weights, and its base with a policy on it."""
    folder = tmp_path_factory.mktemp("adapter")
    return str(folder), process_reward_model(tiny, folder)


STEPS = ("2 + 2 = 4\nSo 4.", "It is 5.", "One\ntwo\nthree\nfour")


def sampled(module):
    """Groups with the ids that a policy would have sampled, each with its end."""
    tokenizer = module.tokenizer
    groups = []
    for number, texts in enumerate((STEPS[:2], STEPS[2:], STEPS)):
        ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
        groups.append(Group(f"{number}: 2 + 2?", list(texts), response_ids=ids))
    return groups


@pytest.mark.parametrize("aggregate", ["min", "product", "sum"])
def test_a_reward_by_steps_conforms(trained, aggregate):
    path, module = trained
    check_reward(ProcessScore(path, aggregate=aggregate), sampled(module))


def test_a_reward_that_pays_steps_conforms(trained):
    """A step's share is where it ends, and all of them add up to the score of the response."""
    path, module = trained
    groups = sampled(module)
    paying = ProcessScore(path, credit="steps")
    paying.attach(module.adapters, module.tokenizer)
    check_reward(paying, groups)
    ids = [ids for group in groups for ids in group.response_ids]
    paid = paying(groups).tokens.split(list(map(len, ids)))
    whole = ProcessScore(path)(groups).total
    assert torch.stack([tokens.sum() for tokens in paid]).tolist() == pytest.approx(
        whole.tolist(), abs=1e-6
    )


class Careless(Reward):
    """Reads a column that a row may lack."""

    def __call__(self, groups):
        right = [text == group.extra["answer"] for group in groups for text in group.responses]
        return Scores(torch.tensor(right, dtype=torch.float32))


class Lenient(Reward):
    """Does without the column."""

    def __call__(self, groups):
        answers = [group.extra.get("answer") for group in groups for _ in group.responses]
        return Scores(torch.tensor([float(answer is not None) for answer in answers]))


class Strict(Careless):
    def __call__(self, groups):
        if not all("answer" in group.extra for group in groups):
            raise DataError("a row has no answer; give it one")
        return super().__call__(groups)


@pytest.mark.parametrize("reward", [Lenient(), Strict()])
def test_a_row_without_columns_is_scored_or_refused(reward):
    check_reward(reward, rows(answer=["4", "4", "5"]))


class ByToken(Reward):
    """A score for each token: its id."""

    def __call__(self, groups):
        return self.scores([ids for group in groups for ids in group.response_ids])

    def scores(self, responses):
        tokens = [float(token) for ids in responses for token in ids]
        return Scores(torch.zeros(len(responses)), tokens=torch.tensor(tokens))


class FirstOnly(ByToken):
    def scores(self, responses):
        return super().scores(responses)._replace(tokens=torch.zeros(len(responses)))


class Endless(ByToken):
    def scores(self, responses):
        scores = super().scores(responses)
        return scores._replace(tokens=scores.tokens / 0)


class Centred(ByToken):
    """Reads the other groups."""

    def scores(self, responses):
        scores = super().scores(responses)
        return scores._replace(tokens=scores.tokens - scores.tokens.mean())


IDS = [Group("?", ["a", "b"], response_ids=[[1, 2], [3]]), Group("??", ["c"], response_ids=[[9]])]


@pytest.mark.parametrize(
    ("reward", "groups", "fault"),
    [
        (
            Careless(),
            rows(),
            "KeyError: 'answer'; if it reads a column, pass groups with that column",
        ),
        (Careless(), rows(answer=["4", "4", "5"]), "fails at a row without its columns: KeyError"),
        (FirstOnly(), IDS, r"returns \[3\] scores of tokens for 4 tokens; return one for each"),
        (Endless(), IDS, "returns scores of tokens .*not all finite"),
        (Centred(), IDS, "Centred scores tokens and returns .* one by one"),
    ],
)
def test_a_reward_that_does_not_conform_is_caught(reward, groups, fault):
    with pytest.raises(AssertionError, match=fault):
        check_reward(reward, groups)


def test_scores_of_tokens_need_tokens():
    check_reward(ByToken(), IDS)

    class Constant(Reward):
        def __call__(self, groups):
            return Scores(torch.zeros(1), tokens=torch.zeros(1))

    with pytest.raises(AssertionError, match="scores tokens, and the groups have none; give check"):
        check_reward(Constant(), [Group("?", ["a"])])
