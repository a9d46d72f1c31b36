"""Distillation on the policy's own samples: what the teacher is shown, what it gives each token, what is learned."""

from dataclasses import dataclass

import pytest
import torch

from lit_align.advantages.reverse_kl import ReverseKL
from lit_align.advantages.top_entropy import TopEntropy
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ConfigError, DataError, ModelError
from lit_align.feedback.from_reward import FromReward
from lit_align.models.adapter_files import save_adapter
from lit_align.models.load import Base
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import checked_scores
from lit_align.rewards.cosine_length import CosineLength
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.teacher import Teacher
from lit_align.rewards.teacher_model import LoadedTeacher
from lit_align.rewards.weighted import Weighted
from lit_align.rl.kl_control import KLControl
from lit_align.stages.best_of import Answer, BestOf
from lit_align.types import Group
from tests.rl.on_policy import OfflineRL, stage


@dataclass(frozen=True)
class Second(Reward):
    """1 for the second response to a prompt, 0 for the others."""

    def __call__(self, groups):
        places = [place for group in groups for place in range(len(group.responses))]
        return Scores(torch.tensor([float(place == 1) for place in places]))


@pytest.fixture(scope="module")
def module(tiny):
    """A policy that has left its reference."""
    made = stage(tiny, Teacher(), ReverseKL(), cls=OfflineRL, max_new_tokens=5, num_generations=3)
    made.objective, made.kl = PolicyGradient(), KLControl(0.0)
    made.kl_coefficient = 0.0
    made.configure_model()
    made.adapters.model.generation_config.eos_token_id = list(range(60))
    random = torch.Generator().manual_seed(0)
    for parameter in made.adapters.trainable().values():
        parameter.data += torch.randn(parameter.shape, generator=random) * 0.05
    return made


def prompts(module, *contents, **extra):
    chat = ChatTokenizer(module.tokenizer, max_length=500)
    made = []
    for text in contents:
        turns = [{"role": "user", "content": text}]
        made.append(chat.encode(Group(turns, [], source="rows:1", extra=extra)).tree)
    return made


def learn(module, teacher, trees):
    module.reward = teacher
    teacher.attach(module.adapters, module.tokenizer)
    return module.make_rollouts(trees)


def naive(module, role, prompt, ids):
    """Log-probabilities of a response after a prompt, from all logits of one row."""
    with torch.no_grad(), module.adapters.activate(role, training=False) as model:
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]


def test_the_teacher_reads_the_sampled_tokens_after_its_own_prompt(module):
    trees = prompts(module, "Who is up?", "And who is not?", answer="An owl.")
    rollouts = learn(module, Teacher(column="answer"), trees)
    shown = prompts(module, "Who is up?\n\nAn owl.", "And who is not?\n\nAn owl.")
    row = 0
    for tree, other in zip(rollouts.trees, shown, strict=True):
        for ids in tree.responses:
            taught = naive(module, "reference", other.prompt, ids)
            gained = taught - naive(module, "policy", tree.prompt, ids)
            found = rollouts.tokens["advantages"][row, : len(ids)]
            torch.testing.assert_close(found, gained, rtol=1e-4, atol=1e-5)
            row += 1
    assert rollouts.tokens["advantages"].abs().max() > 0.01


def test_a_solution_among_the_others_is_shown(module):
    """The second response solves it: the first and the third see it, and the second is not taught."""
    (tree,) = prompts(module, "Who is up?")
    teacher = Teacher("policy", solved_by=Second())
    rollouts = learn(module, teacher, [tree])
    assert rollouts.selected.unscored.tolist() == [False, True, False]
    assert (rollouts.tokens["advantages"][1] == 0).all()
    solution = rollouts.groups[0].responses[1][0]["content"]
    text = f"Who is up?\n\nThis is a correct solution:\n\n{solution}"
    (shown,) = prompts(module, text)
    ids = rollouts.trees[0].responses[2]
    gained = naive(module, "policy", shown.prompt, ids) - naive(module, "policy", tree.prompt, ids)
    found = rollouts.tokens["advantages"][2, : len(ids)]
    torch.testing.assert_close(found, gained, rtol=1e-4, atol=1e-5)


def test_an_adapter_that_is_the_policy_teaches_nothing(module, tmp_path):
    save_adapter(module.adapters, tmp_path / "adapter")
    teacher = Teacher("other", adapter=str(tmp_path / "adapter"))
    rollouts = learn(module, teacher, prompts(module, "Who is up?"))
    assert rollouts.tokens["advantages"].abs().max() < 1e-5


def test_steps_lower_the_divergence_from_the_teacher(module):
    """A policy that has left its reference goes back to it, on its own samples."""
    module.reward = Teacher()
    with pytest.warns(UserWarning, match="teaches nothing but the way back"):
        module.reward.attach(module.adapters, module.tokenizer)
    trees = prompts(module, "Who is up?")
    kls, usual = [], module.num_generations
    module.num_generations = 64
    optimizer = torch.optim.Adam(module.adapters.trainable().values(), lr=5e-3)
    for number in range(20):
        rollouts = module.make_rollouts(trees, number)
        kls.append(rollouts.kl["k3"].sum().item() / int(rollouts.length.sum()))
        (step,) = module.steps(rollouts)
        optimizer.zero_grad()
        (module.losses(step.batches[0], statistics=False)[0] / step.tokens).backward()
        optimizer.step()
    module.num_generations = usual
    assert sum(kls[-3:]) < 0.5 * sum(kls[:3])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"role": "policy"}, "shown nothing"),
        ({"role": "average"}, "shown nothing"),
        ({"role": "other"}, "no adapter, no base and no server"),
        ({"role": "reference", "adapter": "x"}, "role is reference, and it has adapter"),
    ],
)
def test_a_teacher_without_a_lesson_is_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        Teacher(**settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reward": Pattern("a")}, r"reward is Pattern\(.*set reward to Teacher"),
        ({"reward": Weighted([Pattern("a")], [1.0])}, "set reward to Teacher"),
        (
            {"reward": Weighted([Teacher(column="hint"), Pattern("a")], [0.5, 1.0])},
            r"divided by its deviation, is 0\.5",
        ),
        (
            {
                "reward": Weighted(
                    [Teacher(column="hint"), Pattern("a")], [1.0, 1.0], deviations=[4.0, 1.0]
                )
            },
            r"divided by its deviation, is 0\.25",
        ),
        ({"whiten_rewards": True}, "set whiten_rewards to false"),
        (
            {"advantage": TopEntropy(ReverseKL()), "reward": Pattern("a")},
            "TopEntropy compares the policy with a teacher",
        ),
        ({"equal_scores": "drop"}, "equal_scores is drop .* every total is 0"),
        (
            {
                "reward": Weighted([Teacher(column="hint"), Pattern("a")], [1.0, 0.0]),
                "equal_scores": "refill",
            },
            "equal_scores is refill .* set equal_scores to keep$",
        ),
    ],
)
def test_what_reverse_kl_cannot_compare_is_refused(settings, says, tiny):
    settings = {"reward": Teacher(column="hint"), "advantage": ReverseKL(), **settings}
    with pytest.raises(ConfigError, match=says):
        stage(tiny, max_new_tokens=4, **settings)


def test_a_teacher_may_have_a_reward_beside_it(tiny):
    for weights in ([1.0, 0.3], [0.5, 0.5]):
        parts = [
            Teacher(column="hint"),
            Pattern("a") if weights[0] == 1 else Teacher(column="hint"),
        ]
        reward = Weighted(parts, weights)
        assert stage(tiny, reward, ReverseKL(), max_new_tokens=4).reward is reward
    scored = Weighted([Teacher(column="hint"), Pattern("a")], [1.0, 0.3])
    stage(tiny, scored, ReverseKL(), max_new_tokens=4, equal_scores="drop")


def test_another_base_reads_plain_text_where_the_policy_does(module):
    """Of the same text, one prompt was read as it is and the other as a user's turn."""
    teacher = Teacher("other", base=Base("another"))
    own = module.tokenizer
    loaded = LoadedTeacher(module.adapters, "reference", own, None, own)
    for as_chat in (False, True):
        chat = ChatTokenizer(own, max_length=500, as_chat=as_chat)
        tree = chat.encode(Group("Who is up?", [])).tree
        sampled = tree.group._replace(
            prompt="Who is up?", prompt_ids=tree.prompt, responses=["An owl."], response_ids=[[5]]
        )
        assert teacher._prompt(loaded, sampled, "", "") == tree.prompt


def test_scores_count_those_of_tokens(module):
    """A teacher gives tokens alone: a response has their sum."""
    rollouts = learn(module, Teacher(column="hint"), prompts(module, "Who is up?", hint="An owl."))
    by_response = torch.split(rollouts.scores.tokens, rollouts.length.tolist())
    expected = torch.stack([tokens.sum() for tokens in by_response])
    assert (expected < 0).all()
    torch.testing.assert_close(rollouts.response_metrics()["objective/scores"], expected)
    metrics = rollouts.metrics(0.0, with_critic=False)
    assert metrics["objective/scores"] == pytest.approx(expected.mean().item(), rel=1e-5)


@dataclass(frozen=True)
class ByToken(Reward):
    """Scores the two tokens of each response."""

    def __call__(self, groups):
        count = sum(len(group.responses) for group in groups)
        return Scores(torch.zeros(count), tokens=torch.ones(2 * count))


def test_scores_of_tokens_are_refused_where_totals_are_read():
    group = Group("Who?", ["An owl.", "A bat."])
    answers = [[Answer("An owl.", True), Answer("A bat.", True)]]
    for read in (
        lambda: FromReward(ByToken())([group], "pairs"),
        lambda: BestOf(2, ByToken()).choose([group], answers),
        lambda: CosineLength(ByToken(), 4)([group]),
    ):
        with pytest.raises(ModelError, match=r"ByToken\(\) scores each token, and here a response"):
            read()
    assert (
        checked_scores(Weighted([ByToken()], [0.5]), [group], reads_tokens=True).tokens.sum() == 2
    )


def test_rows_without_a_lesson_are_refused(module):
    teacher = Teacher(column="answer")
    teacher.attach(module.adapters, module.tokenizer)
    with pytest.raises(DataError, match="nothing in its column 'answer'"):
        teacher([Group("Who?", ["An owl."])])
    with pytest.raises(ModelError, match="were not sampled by the policy"):
        teacher([Group("Who?", ["An owl."], extra={"answer": "An owl."})])
