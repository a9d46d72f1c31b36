"""A reward model that learns between rounds: from what, towards what, and what it leaves alone."""

import copy

import pytest
import torch

from lit_align.cli.main import main
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.discriminator import Discriminator, bradley_terry_loss
from lit_align.feedback.from_reward import FromReward
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.rewards.length import Length
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.types import Group, Pair
from tests.stages.runs import folder_of, say, write_pairs


class Vowels(Feedback):
    """The response with more of the letter e is better; counts what it is asked."""

    asked = 0

    def __call__(self, groups, label_kind):
        assert label_kind == "pairs"
        self.asked += len(groups)
        return [
            FeedbackResult(group._replace(pairs=(self.compare(group),)), ({"source": "vowels"},))
            for group in groups
        ]

    def compare(self, group):
        a, b = (response.count("e") for response in group.responses)
        return Pair(0, 1, 0.9) if a >= b else Pair(1, 0, 0.9)


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A reward model after two steps."""
    at = tmp_path_factory.mktemp("reward")
    train = write_pairs(at / "pairs.jsonl")
    main([
        *("fit", f"--run={at}/run", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        *("--model=RewardModel", "--model.objective=BradleyTerry", f"--model.base.path={tiny}", "--model.lora.r=4"),
        *("--model.base.quantization=none", "--model.base.dtype=float32", "--data=Comparisons"),
        *(f"--data.train={train}", "--trainer.max_steps=2", "--data.max_length=256"),
    ])  # fmt: skip
    return folder_of(at / "run") / "adapter"


@pytest.fixture
def seated(tiny, folder):
    """It, on a base that a policy shares; texts to judge."""
    base = Base(str(tiny), "none", "float32")
    adapters = AdapterSet(load_model(base), Lora(r=8), gradient_checkpointing=False)
    made = Discriminator(
        RewardModelScore(str(folder)), Vowels(), label_budget=6, epochs=16, lr=0.02
    )
    made.attach(adapters, load_tokenizer(base))
    groups = [Group(f"{k} {say(k, 3)}?", [say(k + 1, 3), say(k + 5, 3)]) for k in range(10)]
    return (
        made,
        adapters,
        [group for group in groups if len({one.count("e") for one in group.responses}) == 2],
    )


def right(opinions):
    """Share of the pairs that the gold labels agree with."""
    judged = [
        Vowels().compare(one.group._replace(pairs=())).better == one.group.pairs[0].better
        for one in opinions
    ]
    return sum(judged) / len(judged)


def test_it_learns_what_it_is_told_and_touches_nothing_else(seated):
    made, adapters, groups = seated
    before = {name: weight.clone() for name, weight in adapters.named_parameters()}
    opinions = made(groups, "pairs")
    assert made.gold.asked == 6
    assert right(opinions[:6]) == 1  # by now it knows what it was trained on
    assert [[record["source"] for record in one.records] for one in opinions[5:7]] == [
        ["vowels", repr(made.reward)], [repr(made.reward)]
    ]  # fmt: skip
    for name, weight in adapters.named_parameters():
        learns = "trained0" in name and not name.endswith(
            "bias"
        )  # the bias drops out of every difference
        assert torch.equal(weight, before[name]) != learns
    assert not any("trained0" in name for name in adapters.trainable())


def test_a_round_of_ties_teaches_nothing(seated):
    made, _, groups = seated
    ties = Discriminator(made.reward, FromReward(Length(max_words=99)))
    before = made.reward(groups).total
    opinions = ties(groups, "pairs")
    assert torch.equal(made.reward(groups).total, before)
    assert all(len(one.records) == 2 for one in opinions)


def test_what_it_learned_comes_back(seated, tiny, folder):
    made, _, groups = seated
    made(groups, "pairs")
    state, wanted = copy.deepcopy(made.state()), made.reward(groups).total
    base = Base(str(tiny), "none", "float32")
    again = Discriminator(RewardModelScore(str(folder)), Vowels())
    again.attach(
        AdapterSet(load_model(base), Lora(r=8), gradient_checkpointing=False), load_tokenizer(base)
    )
    assert not torch.equal(again.reward(groups).total, wanted)
    again.restore(state)
    assert torch.equal(again.reward(groups).total, wanted)


def test_the_loss_is_the_mean_of_cross_entropies():
    """σ(2 - 1) with probability 0.9 and σ(0 - 3) with 1."""
    groups = [Group("", ["", ""], (Pair(0, 1, 0.9),)), Group("", ["", ""], (Pair(1, 0),))]
    lead = torch.tensor([1.0, -3.0]).sigmoid().log(), torch.tensor([-1.0]).sigmoid().log()
    wanted = -(0.9 * lead[0][0] + 0.1 * lead[1][0] + lead[0][1]) / 2
    torch.testing.assert_close(
        bradley_terry_loss(torch.tensor([2.0, 1.0, 3.0, 0.0]), groups), wanted
    )
