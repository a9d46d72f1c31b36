"""Answers that are searched for step by step: what is kept, what it is worth, and what the command makes of it."""

from dataclasses import dataclass

import pytest
import torch

from lit_align.cli.main import main
from lit_align.errors import ConfigError
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.tournament import Tournament
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import response_text
from lit_align.rewards.cosine_length import CosineLength
from lit_align.rewards.length import Length
from lit_align.rewards.weighted import Weighted
from lit_align.stages.answering import Responder
from lit_align.stages.best_of import BestOf
from lit_align.stages.step_search import Answer, StepSearch
from lit_align.types import Group
from tests import tiny as make
from tests.stages.runs import write_pairs
from tests.stages.test_best_of import predict, rows

SEPARATOR = "e"  # which the tiny model writes now and then


@dataclass(frozen=True)
class Letters(Reward):
    """How many letters of ASCII; keeps what it has seen."""

    seen: list

    def __call__(self, groups):
        texts = [response_text(response) for group in groups for response in group.responses]
        self.seen.append([len(group.responses) for group in groups])
        return Scores(torch.tensor([float(sum(map(str.isalpha, text))) for text in texts]))


@pytest.fixture(scope="module")
def responder(tiny):
    base = Base(str(tiny), "none", "float32")
    return Responder(AdapterSet(load_model(base), Lora()), load_tokenizer(base), 24, 1.0, 5)


@pytest.fixture(scope="module")
def searched(responder):
    """Answers to three prompts, and how many were scored in each round."""
    seen, groups = [], []
    for text in ("Who?", "Why is it?", "When?"):
        ids = responder.tokenizer(text).input_ids
        groups.append(Group(text, [], prompt_ids=ids))
    search = StepSearch(width=2, separator=SEPARATOR, step_tokens=8)
    answers = search.answers(responder, Letters(seen), 8, groups, [3, 4, 5])
    alone = search.answers(responder, Letters([]), 8, groups[1:2], [4])
    return groups, answers, seen, alone


def test_answers_are_those_of_their_tokens_within_the_limit(searched, responder):
    _, answers, seen, _ = searched
    for row in answers:
        assert 1 <= len(row) <= 2
        for answer in row:
            text = responder.tokenizer.decode([*answer.ids], skip_special_tokens=True)
            assert answer.text == text
            assert answer.ended or len(answer.ids) == 24
    assert all(count <= 8 + 2 for round in seen for count in round)
    assert len(seen) >= 3


def test_a_prompt_gets_the_same_answers_whoever_else_is_asked(searched):
    _, answers, _, alone = searched
    assert [answer.ids for answer in alone[0]] == [answer.ids for answer in answers[1]]


def test_the_search_finds_more_than_as_many_whole_answers(searched, responder):
    groups, answers, _, _ = searched
    whole = responder.sample(
        [group.prompt_ids for group in groups], num_generations=8, prompt_indices=[3, 4, 5]
    )

    def best(rows):
        return [max(sum(map(str.isalpha, answer.text)) for answer in row) for row in rows]

    assert sum(best(answers)) > sum(best(whole))


@dataclass(frozen=True)
class Script:
    """Says what was written for it, whoever asks; a token a letter."""

    text: str
    asked: list
    max_new_tokens: int = 40
    seed: int = 0
    tokenizer = make.tokenizer()

    def sample(self, prompts, role="policy", *, max_new_tokens, num_generations, **_):
        self.asked.append((len(prompts), max_new_tokens))
        rows = []
        for prompt in prompts:
            begun = len(prompt) - 1
            rest = self.tokenizer(self.text).input_ids[begun:][:max_new_tokens]
            rows.append([Answer(self.tokenizer.decode(rest), False, rest)] * num_generations)
        return rows


def steps_of(text, separator="\n", step_tokens=12, **settings):
    """What stands after each round, and what was asked for in it."""
    script, seen = Script(text, [], **settings), []

    @dataclass(frozen=True)
    class Same(Reward):
        def __call__(self, groups):
            seen.extend((group.beginnings, response_text(group.responses[0])) for group in groups)
            return Scores(torch.zeros(sum(len(group.responses) for group in groups)))

    group = Group([{"role": "user", "content": "2?"}], [], prompt_ids=[5])
    StepSearch(1, separator, step_tokens).answers(script, Same(), 1, [group], [0])
    return seen, script.asked


def test_blanks_and_separators_before_a_step_are_no_step():
    seen, _ = steps_of("\n\n2 + 2 = 4\nSo 4, is it?\n" + "a" * 40, step_tokens=16)
    begun = [beginnings[0] for beginnings, _ in seen[:2]]
    assert begun == ["2 + 2 = 4\n", "2 + 2 = 4\nSo 4, is it?\n"]


def test_no_more_is_sampled_than_an_answer_has_room_for():
    _, asked = steps_of("a" * 99, max_new_tokens=30)
    assert asked == [(1, 12), (1, 12), (1, 6)]


def test_the_reward_learns_which_answers_go_on_and_where_they_end():
    seen, _ = steps_of("2 = 2\n3 = 3\n", max_new_tokens=12)
    assert seen == [(["2 = 2\n"], "2 = 2"), ([None], "2 = 2\n3 = 3")]


def test_samples_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ConfigError, match="make n a multiple"):
        BestOf(6, Length(4), search=StepSearch(width=4))
    with pytest.raises(ConfigError, match="separator is empty"):
        StepSearch(separator="")


@dataclass(frozen=True)
class Steps(Reward):
    """Divides answers at a text, and keeps the beginnings that it is shown."""

    separator: str
    seen: list

    def step_separators(self):
        return frozenset({self.separator})

    def __call__(self, groups):
        self.seen.extend(group.beginnings for group in groups)
        return Scores(torch.zeros(sum(len(group.responses) for group in groups)))


WRAPPERS = [
    lambda reward: reward,
    lambda reward: CosineLength(reward, 99),
    lambda reward: Weighted([Length(4), reward], [1.0, 0.5]),
    lambda reward: Tournament(FromReward(reward)),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_step_ends_where_the_reward_was_trained_to_read_its_end(wrap):
    """Two lines are one step of a reward whose steps have an empty line between them."""
    script, reward = Script("a = 2\nb = 3\n\nc = 5\n\n" + "d" * 40, []), Steps("\n\n", [])
    group = Group([{"role": "user", "content": "2?"}], [], prompt_ids=[5])
    search = StepSearch(1, step_tokens=20)
    assert search.separator_for(wrap(reward)) == "\n\n"
    search.answers(script, reward, 1, [group], [0])
    assert reward.seen[:2] == [["a = 2\nb = 3\n\n"], ["a = 2\nb = 3\n\nc = 5\n\n"]]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_separator_that_the_reward_does_not_know_is_refused(wrap):
    with pytest.raises(
        ConfigError, match=r"separator is '\\n', and .* with '\\n\\n'; set it to null"
    ):
        BestOf(4, wrap(Steps("\n\n", [])), search=StepSearch(separator="\n"))
    BestOf(4, wrap(Steps("\n\n", [])), search=StepSearch(separator="\n\n"))


def test_rewards_with_steps_of_several_kinds_are_refused():
    """One of weight 0 chooses nothing, so its steps may be others."""
    rewards = [Steps("\n\n", []), Steps(";", [])]
    with pytest.raises(ConfigError, match=r"at '\\n\\n' and at ';'"):
        BestOf(4, Weighted(rewards, [1.0, 1.0]), search=StepSearch())
    BestOf(4, Weighted(rewards, [1.0, 0.0]), search=StepSearch())


def test_a_reward_without_steps_is_searched_by_lines():
    assert StepSearch().separator_for(Length(4)) == "\n"
    assert StepSearch(separator=";").separator_for(Length(4)) == ";"


def test_predict_writes_what_the_search_has_chosen(tiny, tmp_path, capsys):
    data = write_pairs(tmp_path / "pairs.jsonl", 3)
    settings = {
        "n": 4,
        "reward": "Length",
        "reward.max_words": 4,
        "search.width": 2,
        "search.separator": SEPARATOR,
        "search.step_tokens": 6,
    }
    more = [f"--model.best_of.{name}={value}" for name, value in settings.items()]
    main(predict(tiny, data, tmp_path / "run", *more))
    written = rows(tmp_path / "run" / "0")
    assert len(written) == 3
    assert all(row["score"] == max(row["scores"]) for row in written)
    assert all(len(row["scores"]) <= 2 for row in written)
    assert "what the search has chosen" in capsys.readouterr().out
