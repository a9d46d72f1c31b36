"""Whole distributions of a teacher on sampled responses: what is compared, where, and what a step does."""

import pytest
import torch

from lit_align.advantages.reverse_kl import ReverseKL
from lit_align.advantages.rloo import RLOO
from lit_align.errors import ConfigError
from lit_align.functional.divergence import generalized_jsd
from lit_align.objectives.gkd import GKD
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.teacher import Teacher
from lit_align.rewards.weighted import Weighted
from lit_align.rl.kl_control import KLControl
from lit_align.rl.teaching import lecture_of
from lit_align.testing import check_objective
from tests.rl.on_policy import OfflineRL, stage
from tests.rl.test_teacher import Second, prompts


class Free(Second):
    """That may be asked again."""

    def can_split(self):
        return True


@pytest.fixture(scope="module")
def module(tiny):
    """A policy that has left its reference."""
    made = stage(tiny, Teacher(column="hint"), RLOO(), cls=OfflineRL, num_generations=3)
    made.objective, made.kl, made.max_new_tokens = GKD(), KLControl(0.0), 5
    made.kl_coefficient = 0.0
    made.configure_model()
    made.adapters.model.generation_config.eos_token_id = list(range(60))
    random = torch.Generator().manual_seed(0)
    for parameter in made.adapters.trainable().values():
        parameter.data += torch.randn(parameter.shape, generator=random) * 0.05
    return made


def learn(module, teacher, objective, trees):
    module.reward, module.objective = teacher, objective
    module.reward.attach(module.adapters, module.tokenizer)
    return module.make_rollouts(trees)


def log_probs(module, role, prompt, ids, temperature=1.0):
    """The whole distribution before each token of a response, from all logits of one row."""
    with module.adapters.activate(role, training=False) as model:
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_loss_compares_all_entries_under_both_prompts(module, beta):
    trees = prompts(module, "Who is up?", "And who is not?", hint="An owl.")
    rollouts = learn(module, Teacher(column="hint", temperature=0.7), GKD(beta), trees)
    shown = prompts(module, "Who is up?\n\nAn owl.", "And who is not?\n\nAn owl.")
    expected = []
    for tree, other in zip(rollouts.trees, shown, strict=True):
        for ids in tree.responses:
            taught = log_probs(module, "reference", other.prompt, ids, 0.7).detach()
            own = log_probs(module, "policy", tree.prompt, ids)
            expected.append(generalized_jsd(own, taught, beta))
    (step,) = module.steps(rollouts)
    loss, sums = module.losses(step.batches[0], statistics=False)
    right = torch.cat(expected).sum()
    torch.testing.assert_close(loss, right, rtol=1e-4, atol=1e-5)
    assert loss > 0.01
    assert sums["policy/divergence"][0] == pytest.approx(loss.item(), rel=1e-5)
    weights = list(module.adapters.trainable().values())
    for got, wanted in zip(
        torch.autograd.grad(loss, weights), torch.autograd.grad(right, weights), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=2e-3, atol=1e-4)


def test_what_the_teacher_does_not_know_better_costs_nothing(module):
    """The second response is the solution: the others are compared with who has seen it."""
    (tree,) = prompts(module, "Who is up?")
    reward = Weighted([Teacher("reference", solved_by=Free()), Pattern("a")], [0.0, 1.0])
    rollouts = learn(module, reward, GKD(1.0, task=PolicyGradient(), weight=0.5), [tree])
    (step,) = module.steps(rollouts)
    batch = step.batches[0]
    forward = module.actor_critic().forward(batch, with_critic=False)
    by_response = torch.split(forward.policy.divergence, rollouts.length.tolist())
    assert [bool((part > 0).all()) for part in by_response] == [True, False, True]
    assert (by_response[1] == 0).all()


def test_steps_bring_the_policy_to_a_teacher_that_is_shown_more(module):
    """Eight updates on 16 responses halve the exact divergence of the first token."""
    (tree,) = prompts(module, "Who is up?", hint="An owl.")
    (shown,) = prompts(module, "Who is up?\n\nAn owl.")
    goal = log_probs(module, "reference", shown.prompt, [5]).detach()

    def distance():
        with torch.no_grad():
            return generalized_jsd(log_probs(module, "policy", tree.prompt, [5]), goal, 1.0).item()

    module.reward, module.objective, usual = (
        Teacher(column="hint"),
        GKD(1.0),
        module.num_generations,
    )
    module.reward.attach(module.adapters, module.tokenizer)
    module.num_generations, before = 16, distance()
    optimizer = torch.optim.Adam(module.adapters.trainable().values(), lr=2e-2)
    for number in range(8):
        (step,) = module.steps(module.make_rollouts([tree], number))
        optimizer.zero_grad()
        (module.losses(step.batches[0], statistics=False)[0] / step.tokens).backward()
        optimizer.step()
    module.num_generations = usual
    assert distance() < 0.5 * before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reward": Pattern("a")}, "holds 0; set reward to Teacher"),
        (
            {"reward": Weighted([Teacher(column="a"), Teacher(column="b")], [0.5, 0.5])},
            "holds 2; set reward to Teacher",
        ),
        (
            {"reward": Teacher(solved_by=Second())},
            "asks again which responses are solutions, and Second may have a price",
        ),
    ],
)
def test_a_reward_that_cannot_teach_is_refused(settings, says, tiny):
    module = stage(tiny, Teacher(column="hint"), ReverseKL(), max_new_tokens=4)
    module.objective = GKD()
    module.reward = settings["reward"]
    with pytest.raises(ConfigError, match=says):
        lecture_of(module.objective, module.reward)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta": 1.5}, "beta"),
        ({"weight": 0.5}, "set weight to 1 without a task"),
        ({"task": PolicyGradient()}, "below 1 with one"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        GKD(**settings)


def test_with_a_task_it_conforms_too():
    check_objective(GKD(0.3, task=PolicyGradient(), weight=0.9))
