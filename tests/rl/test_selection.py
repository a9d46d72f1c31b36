"""Responses that are left out: not scored, cut off, or of a prompt whose scores are all equal."""

from dataclasses import dataclass
from typing import ClassVar, get_type_hints

import pytest
import torch

from lit_align.advantages import Advantage, Rollouts
from lit_align.advantages.gdpo import GDPO
from lit_align.advantages.grpo import GRPO
from lit_align.advantages.reinforce import Reinforce
from lit_align.advantages.rloo import RLOO
from lit_align.advantages.top_entropy import TopEntropy
from lit_align.errors import ConfigError, ModelError
from lit_align.feedback.from_reward import FromReward
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.ppo import PPO
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import checked_scores
from lit_align.rewards.length import Length
from lit_align.rewards.weighted import Weighted
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.refill import Refill, draw_prompts
from lit_align.rl.rollouts import RolloutBatch
from lit_align.rl.selection import Selection
from lit_align.rl.stage import RL
from lit_align.testing import check_reward
from lit_align.types import Group, Tree
from tests.rl.on_policy import OfflineRL, stage

TREES = [Tree([40 + k, 50, 51], [], [], Group("", [])) for k in range(4)]


@dataclass(frozen=True)
class Unsure(Reward):
    """The number of letters; a response without an e is not scored."""

    reads: str = "text"

    def __call__(self, groups):
        texts = [str(response) for group in groups for response in group.responses]
        if self.reads == "ids":
            assert all(len(group.response_ids) == len(group.responses) for group in groups)
            texts = ["e" if len(ids) % 2 else "" for group in groups for ids in group.response_ids]
        scored = torch.tensor(["e" in text for text in texts])
        return Scores(torch.tensor([float(len(text)) for text in texts]), scored=scored)


@dataclass(frozen=True)
class Constant(Reward):
    """0 for the responses to some prompts, by their first token, and for others the place in the group."""

    prompts: frozenset[int]

    def __call__(self, groups):
        scores = []
        for group in groups:
            is_constant = group.prompt_ids[0] in self.prompts
            for place in range(len(group.responses)):
                scores.append(0.0 if is_constant else float(place))
        return Scores(torch.tensor(scores))


@pytest.fixture(scope="module")
def module(tiny):
    stage_ = stage(
        tiny, Length(max_words=3), GRPO(), cls=OfflineRL, max_new_tokens=6, num_generations=3
    )
    stage_.configure_model()
    stage_.adapters.model.generation_config.eos_token_id = list(range(60))
    return stage_


def learn(module, scores, **selection):
    """Rollouts with given scores, and the gradient of an update on all that is learned from."""
    module.selection = Selection(module.advantage.min_generations, **selection)
    experience = module.experience_builder()
    rollouts = experience.sample_once(TREES, 0)
    rollouts.scores = scores
    experience.select(rollouts)
    module.estimate_advantages(rollouts)
    module.zero_grad()
    for step in module.steps(rollouts):
        for batch in step.batches:
            (module.losses(batch, statistics=False)[0] / module.loss_denominator(step)).backward()
    weights = module.adapters.trainable().values()
    grads = [w.grad.flatten() for w in weights if w.grad is not None]
    return rollouts, torch.cat(grads) if grads else None


def test_a_response_that_is_not_scored_leaves_its_group(module):
    """The others are compared as if it did not exist, and the loss is a mean over their tokens."""
    scored = torch.ones(12, dtype=torch.bool)
    scored[[1, 6, 7]] = (
        False  # of the third prompt one is left, which has nothing to be compared with
    )
    totals = torch.arange(12.0) ** 2
    rollouts, gradient = learn(module, Scores(totals.where(scored, 7e9), scored=scored))
    found = rollouts.tokens["advantages"][:, 0]
    assert rollouts.selected.unscored.nonzero()[:, 0].tolist() == [1, 6, 7, 8]
    assert found[[1, 6, 7, 8]].tolist() == [0, 0, 0, 0]
    two = totals[[0, 2]]
    torch.testing.assert_close(found[[0, 2]], (two - two.mean()) / (two.std() + 1e-6))
    metrics = rollouts.metrics(0.0, False)
    assert metrics["objective/frac_unscored"] == pytest.approx(4 / 12)
    assert metrics["objective/scores"] == pytest.approx(totals[scored].mean().item())
    # the same from a group that never had it
    _, other = learn(module, Scores(totals.where(scored, -3.0), scored=scored))
    torch.testing.assert_close(gradient, other, rtol=0, atol=0)
    step = next(iter(module.steps(rollouts)))
    assert step.tokens == int(rollouts.length[rollouts.selected.learned].sum())
    assert step.items == 8


def test_prompts_without_a_difference_are_dropped(module):
    totals = torch.tensor([1.0, 1, 1, 0, 1, 0, 2, 2, 2, 1, 1, 1])
    _, kept_gradient = learn(module, Scores(totals))
    dropped, gradient = learn(module, Scores(totals), equal_scores="drop")
    assert [tree in dropped.learned_trees() for tree in dropped.trees] == [
        False,
        True,
        False,
        False,
    ]
    assert dropped.metrics(0.0, False)["objective/frac_equal_dropped"] == 0.75
    # what is left has the same gradient, divided by its own tokens alone
    share = int(dropped.length[3:6].sum()) / int(dropped.length.sum())
    torch.testing.assert_close(gradient * share, kept_gradient, rtol=1e-4, atol=1e-7)


def test_responses_that_are_cut_off_are_compared_and_not_learned_from(module):
    totals = torch.arange(12.0) % 5
    whole, _ = learn(module, Scores(totals))
    masked, gradient = learn(module, Scores(totals), mask_truncated=True)
    assert 0 < masked.selected.truncated.sum() < 12
    assert masked.selected.truncated.equal(~masked.ended)
    for name in ("advantages", "rewards"):
        torch.testing.assert_close(masked.tokens[name], whole.tokens[name])
    for row in masked.selected.truncated.nonzero()[:, 0].tolist():
        assert masked.selected.reason(row) == "cut off"
    assert gradient.norm() > 0


def test_nothing_is_learned_where_nothing_is_left(module):
    rollouts, gradient = learn(module, Scores(torch.ones(12)), equal_scores="drop")
    assert gradient is None or gradient.norm() == 0
    assert rollouts.learned_trees() == []
    assert list(module.minibatches(rollouts)) == []


def test_other_prompts_take_the_place_of_those_without_a_difference(module):
    """Which ones follows from the seed, the iteration and the attempt; the first two and one of the spare ones fail."""
    spare = [Tree([60 + k, 50, 51], [], [], Group("", [])) for k in range(3)]
    usual = module.reward
    module.reward = Constant(frozenset({40, 41, 60}))
    module.selection = Selection(2, equal_scores="refill", max_refills=3)
    module.spare_prompts = lambda: [*TREES, *spare]
    experience = module.experience_builder()
    first, again = experience.sample(TREES, 3), experience.sample(TREES, 3)
    module.reward = usual
    del module.spare_prompts
    assert [tree.prompt for tree in first.trees] == [tree.prompt for tree in again.trees]
    assert first.sampler_logps.equal(again.sampler_logps)
    assert sorted(tree.prompt[0] for tree in first.trees) == [42, 43, 61, 62]
    assert first.selected.learned.all()
    assert first.selection_metrics["objective/prompts_refilled"] == 2
    assert first.scores.total.tolist() == [0.0, 1.0, 2.0] * 4


def test_a_draw_repeats_no_prompt():
    drawn = draw_prompts(TREES, 3, {tuple(TREES[1].prompt)}, seed=5)
    assert len({tuple(tree.prompt) for tree in drawn}) == 3
    assert TREES[1].prompt not in [tree.prompt for tree in drawn]


def scored_rollouts(*rows):
    """Rollouts of two responses to each prompt, which starts with the first number of its row: their scores."""
    trees = [Tree([row[0]], [[1], [2]], [], Group("", [])) for row in rows]
    scores = torch.tensor([score for row in rows for score in row[1:]])
    rollouts = RolloutBatch(
        trees,
        [tree.group for tree in trees],
        torch.ones(len(scores), dtype=torch.bool),
        torch.zeros(len(scores), 1),
        Scores(scores, scored=~scores.isnan()),
    )
    select(rollouts)
    return rollouts


def select(rollouts):
    rollouts.selected = Selection(2, "refill").select(
        rollouts.scores.total, rollouts.scores.scored, rollouts.ended, rollouts.prompt
    )


def refill(sample, attempts=1):
    spare = [Tree([40], [], [], Group("", []))]
    return Refill(spare, attempts, 0, sample, select, Length(max_words=3))


def test_a_prompt_without_a_score_is_no_useful_one():
    """Neither in the place of another, nor in its own: it teaches nothing, as equal scores do."""
    nan = float("nan")
    rollouts, count = refill(lambda *_: scored_rollouts((40, nan, nan)))(
        scored_rollouts((10, 1.0, 1.0), (20, 0.0, 1.0)), 0
    )
    assert (count, [tree.prompt for tree in rollouts.trees]) == (0, [[10], [20]])
    rollouts, count = refill(lambda *_: scored_rollouts((40, 0.0, 1.0)))(
        scored_rollouts((10, nan, 1.0), (20, 0.0, 1.0)), 0
    )
    assert (count, [tree.prompt for tree in rollouts.trees]) == (1, [[40], [20]])


def test_scores_of_two_kinds_are_refused_with_a_remedy_of_one_process():
    def sample(spare, attempt):
        rollouts = scored_rollouts((40, 0.0, 1.0))
        rollouts.scores = rollouts.scores._replace(parts={"odd": torch.zeros(2)})
        return rollouts

    with pytest.raises(ModelError, match=r"gave a part 'odd' .* set equal_scores to drop$"):
        refill(sample)(scored_rollouts((10, 1.0, 1.0), (20, 0.0, 1.0)), 0)


def test_a_reward_may_read_the_tokens(module):
    module.reward, module.selection = Unsure(reads="ids"), Selection(2)
    rollouts = module.experience_builder().sample(TREES, 0)
    module.reward = Length(max_words=3)
    assert rollouts.scores.scored.tolist() == [n % 2 == 1 for n in rollouts.length.tolist()]


def test_a_response_that_one_reward_leaves_out_is_out():
    groups = [Group("", ["owl", "eagle", "bee"])]
    check_reward(Unsure())
    scores = Weighted([Length(max_words=3), Unsure()], [1.0, 1.0])(groups)
    assert scores.scored.tolist() == [False, True, True]
    [result] = FromReward(Unsure())(groups, "pairs")
    assert result.group.responses == ["eagle", "bee"]
    [none] = FromReward(Unsure())([Group("", ["owl"])], "pairs")
    assert none.reason == "no response was scored"
    with pytest.raises(ModelError, match="did not score 'owl'"):
        checked_scores(Unsure(), groups)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"equal_scores": "drop", "num_generations": 1}, "every prompt's scores are equal"),
        ({"equal_scores": "refill", "max_refills": 0}, "max_refills must be between 1 and 9"),
        ({"advantage": GDPO({"Length": 1.0})}, "kl.coefficient changes the total reward"),
        (
            {"advantage": GDPO({"Length": 1.0}), "kl": KLControl(0.0), "reward_clip": 1.0},
            "reward_clip changes the total reward",
        ),
        (
            {
                "advantage": TopEntropy(GDPO({"Length": 1.0})),
                "kl": KLControl(0.0),
                "reward_clip": 1.0,
            },
            "reward_clip changes the total reward, and TopEntropy reads the parts",
        ),
        (
            {"advantage": GDPO({"Length": 1.0}), "kl": KLControl(0.0), "equal_scores": "drop"},
            "equal_scores is drop and looks at the total reward",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tiny, settings, says):
    settings = {"advantage": Reinforce(), "kl": KLControl(), "max_new_tokens": 4, **settings}
    parts = {"objective": PPO(), "reward": Length(max_words=3), "critic": Critic()}
    with pytest.raises(ConfigError, match=says):
        RL(base=Base(str(tiny), "none"), lora=Lora(r=4), **parts, **settings)


def test_around_another_estimator_all_that_it_asks_for_is_kept():
    """What is not passed on is decided here: no critic, the policy always, and it whitens itself."""
    names = {name for name, kind in get_type_hints(Advantage).items() if "ClassVar" in str(kind)}
    names |= {name for name, value in vars(Advantage).items() if isinstance(value, property)}
    passed_on = names - {"needs_critic", "needs_policy"}
    assert {"reads_rewards", "read_parts", "needs_teacher"} <= passed_on

    @dataclass(frozen=True)
    class Demanding(GDPO):
        min_generations: ClassVar[int] = 5
        needs_teacher: ClassVar[bool] = True

    inner = Demanding({"Length": 1.0})
    for name in passed_on:
        assert getattr(inner, name) != getattr(Advantage, name)
        assert getattr(TopEntropy(inner), name) == getattr(inner, name), name


def rollouts_with(parts, totals=None):
    """Rollouts of single tokens, eight to a prompt."""
    values = next(iter(parts.values())) if totals is None else totals
    rewards = values[:, None]
    prompt = torch.arange(len(values)) // 8
    mask = torch.ones_like(rewards, dtype=torch.bool)
    return Rollouts(rewards, mask, prompt, 0 * rewards, torch.tensor(0.0), parts)


def test_nothing_is_learned_from_rounding():
    """The scores to each prompt are equal: no advantage, however the mean of equal numbers is rounded."""
    scores = torch.tensor([0.7] * 8 + [1.0] * 8)
    six = torch.tensor([0.1] * 6)
    assert not GDPO({"Length": 1.0})(rollouts_with({"Length": scores})).any()
    for estimator in (GRPO(), RLOO(), GDPO({"Length": 1.0})):
        assert not estimator(rollouts_with({"Length": six})).any()
        assert not estimator(rollouts_with({"Length": 1e4 * scores})).any()


def test_parts_that_gdpo_cannot_read_are_refused():
    parts = {"Length": torch.ones(8), "Gold": torch.tensor([float("nan")] * 4 + [1.0] * 4)}
    assert not GDPO({"Length": 1.0, "Gold": 0.0})(rollouts_with(parts)).any()
    with pytest.raises(
        ConfigError, match="'Gold', which did not score all responses and has weight 0"
    ):
        GDPO({"Length": 1.0, "Gold": 1.0})(rollouts_with(parts))


def test_scores_by_token_that_gdpo_would_ignore_are_refused(module):
    usual, scores = module.advantage, torch.arange(12.0)
    module.advantage = GDPO({"Length": 1.0})
    try:
        rollouts = module.experience_builder().sample_once(TREES, 0)
        tokens = torch.ones(int(rollouts.length.sum()))
        rollouts.scores = Scores(scores, {"Length": scores}, tokens)
        with pytest.raises(ConfigError, match="scores by token, and GDPO reads the parts"):
            module.estimate_advantages(rollouts)
    finally:
        module.advantage = usual


def test_the_uncertain_tokens_learn_alone(module):
    module.advantage = TopEntropy(RLOO(), share=0.3)
    rollouts, _ = learn(module, Scores(torch.arange(12.0) ** 2))
    module.advantage = GRPO()
    inside = rollouts.mask
    threshold = torch.quantile(rollouts.tokens["entropy"][inside], 0.7)
    learns = rollouts.tokens["advantages"] != 0
    assert learns[inside].equal((rollouts.tokens["entropy"] >= threshold)[inside])
