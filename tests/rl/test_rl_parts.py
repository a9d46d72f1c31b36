"""Parts of on-policy learning against their definitions."""

import re
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import lit_align.rl.stage
from lit_align.advantages import Rollouts, masked_whiten
from lit_align.advantages.gae import GAE
from lit_align.advantages.grpo import GRPO
from lit_align.advantages.rloo import RLOO
from lit_align.cli.main import main
from lit_align.data.loader import StepLoader
from lit_align.objectives.ppo import PPO
from lit_align.rewards.base import response_text
from lit_align.rewards.pattern import Pattern
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.pretraining_mix import PretrainingMix
from lit_align.rl.reward_shaping import RewardShaping
from lit_align.types import Group, PolicyTokens, Tree
from tests import tiny as make
from tests.rl.on_policy import OfflineRL, rl_arguments, stage, table, write_prompts


def test_minibatches_and_budgets_do_not_change_what_is_learned(tiny, tmp_path):
    """One update of everything, in one micro-batch or one a prompt."""
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    more = ["--trainer.max_steps=2", "--model.num_iterations=1", "--model.num_minibatches=1"]
    for name, budget in (("one", 4096), ("many", 120)):
        main(rl_arguments(tiny, prompts, tmp_path / name, *more, f"--data.token_budget={budget}"))
    ones, parts = (
        table(tmp_path / name, "loss", "grad_norm", "objective/scores") for name in ("one", "many")
    )
    for one, many in zip(ones, parts, strict=True):
        assert [float(x) for x in many] == pytest.approx(
            [float(x) for x in one], rel=1e-4, abs=1e-6
        )


def test_a_missing_eos_and_a_clipped_score_change_what_is_paid():
    """The third of 10 tokens is cut off at the limit; of the last 4 before it each costs a quarter."""
    scores = torch.tensor([3.0, 0.25, -9.0, 0.25])
    ended, length = torch.tensor([True, True, False, True]), torch.tensor([1, 6, 10, 8])
    settings = {"max_new_tokens": 10, "missing_eos_reward": -1.0, "reward_clip": 0.5}
    shaped = RewardShaping(**settings).shape_scores(scores, ended, length)
    assert shaped.tolist() == [0.5, 0.25, -1.0, 0.25]
    shaped = RewardShaping(**settings, overlong_buffer=4).shape_scores(scores, ended, length)
    assert shaped.tolist() == [0.5, 0.25, -2.0, -0.25]


def test_the_kl_coefficient_moves_towards_its_target():
    """β (1 + clip(KL / target - 1, ±0.2) n / horizon): of 16 responses and a horizon of 160, by at most a fiftieth."""
    kl = KLControl(0.1, target=6.0, horizon=160)
    coefficient = 0.1
    for measured, wanted in (
        (12.0, 0.1 * 1.02),
        (6.3, 0.1 * 1.02 * 1.005),
        (0.0, 0.1 * 1.02 * 1.005 * 0.98),
    ):
        coefficient = kl.adapt(coefficient, measured, 16)
        assert coefficient == pytest.approx(wanted)
    assert KLControl(0.1).adapt(0.1, 12.0, 16) == 0.1


def test_grpo_and_rloo_among_prompts_of_different_samples():
    """Against the definitions, prompt by prompt."""
    totals, prompt = torch.tensor([1.0, 4.0, 0.0, 2.0, 5.0]), torch.tensor([0, 0, 0, 1, 1])
    there = torch.ones(5, 1, dtype=torch.bool)
    rollouts = Rollouts(totals[:, None], there, prompt, torch.zeros(5, 1), torch.tensor(0.0))
    for part in (slice(0, 3), slice(3, 5)):
        mine = totals[part]
        others = torch.stack([(mine.sum() - one) / (len(mine) - 1) for one in mine])
        torch.testing.assert_close(RLOO()(rollouts)[part, 0], mine - others)
        torch.testing.assert_close(
            GRPO()(rollouts)[part, 0], (mine - mine.mean()) / mine.std(), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(GRPO(std=False)(rollouts)[part, 0], mine - mine.mean())


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_gae_is_its_sum(gamma):
    draw = torch.Generator().manual_seed(0)
    length = torch.tensor([4, 2, 1])
    mask = torch.arange(4) < length[:, None]
    rewards, values = (
        torch.randn(3, 4, generator=draw, dtype=torch.float64) * mask for _ in range(2)
    )
    found = GAE(gamma=gamma, lam=0.8)(
        Rollouts(rewards, mask, torch.arange(3), values, torch.tensor(0.0))
    )
    for i, n in enumerate(length.tolist()):
        after = [*values[i, 1:n].tolist(), 0.0]
        delta = [rewards[i, t].item() + gamma * after[t] - values[i, t].item() for t in range(n)]
        for t in range(4):
            wanted = sum((gamma * 0.8) ** (u - t) * delta[u] for u in range(t, n))
            assert found[i, t].item() == pytest.approx(wanted)


def test_text_is_what_the_reward_reads():
    assert (
        response_text([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])
        == "y"
    )


# ---------------------------------------------------------------- published numbers


def test_whitening_is_torchtunes():
    """The values its own test expects; without a mask it divides by √(Σ/6), with one, as here, by √(Σ/5)."""
    values, there = (
        torch.tensor([[-1.0, 0.0, 4.0, 8.0, 3.0, -25.0, 99.0]]),
        torch.arange(7)[None] < 6,
    )
    published = torch.tensor([[0.0774, 0.1704, 0.5421, 0.9138, 0.4491, -2.1528]]) * (5 / 6) ** 0.5
    torch.testing.assert_close(masked_whiten(values, there)[:, :6], published, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        masked_whiten(values, there, shift_mean=False)[:, :6],
        published - 11 / 6,
        rtol=1e-4,
        atol=1e-4,
    )
    assert masked_whiten(values, there, shift_mean=False)[0, 6] == 0


def test_gae_is_torchtunes():
    """Values and rewards [0, 0, 0, 1], γ 0.9, λ 0.95: its test expects the returns γ³λ², γ²λ, γ, 1."""
    one, there = torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.ones(1, 4, dtype=torch.bool)
    found = GAE(gamma=0.9, lam=0.95)(
        Rollouts(one, there, torch.tensor([0]), one, torch.tensor(0.0))
    )
    torch.testing.assert_close(
        found + one, torch.tensor([[0.9**3 * 0.95**2, 0.9**2 * 0.95, 0.9, 1.0]])
    )


# ---------------------------------------------------------------- what a token earns, and what it teaches


@pytest.fixture
def moved(tiny):
    """A policy that has left its reference."""

    def make(reward=Pattern("a|e|i"), **settings):  # noqa: B008 - frozen
        module = stage(tiny, reward, cls=OfflineRL, max_new_tokens=6, **settings)
        module.configure_model()
        random = torch.Generator().manual_seed(0)
        for parameter in module.adapters.trainable().values():
            parameter.data += torch.randn(parameter.shape, generator=random) * 0.02
        return module

    return make


TREES = [Tree([40 + k, 50, 51], [], [], Group("", [])) for k in range(3)]


@pytest.mark.parametrize("whiten", [False, True])
def test_token_rewards_and_returns(whiten, moved):
    """Token scores less β (log π_θ - log π_ref), and the score at the last; whitening keeps the mean."""
    module = moved(advantage=GAE(gamma=1.0, lam=1.0, whiten=False), whiten_rewards=whiten)
    module.adapters.head("critic").weight.data.zero_()
    module.adapters.head("critic").bias.data.zero_()
    rollouts = module.experience_builder().sample(TREES, 0)
    length = rollouts.length.tolist()
    tokens = torch.arange(sum(length)) / 100
    rollouts.scores = rollouts.scores._replace(total=1.0 + torch.arange(len(length)), tokens=tokens)
    module.estimate_advantages(rollouts)
    log_ratio = rollouts.tokens["old_logps"] - rollouts.tokens["ref_logps"]
    assert log_ratio.abs().max() > 0.01
    rows, token_scores = [], iter(tokens.tolist())
    for i, n in enumerate(length):
        k1 = log_ratio[i, :n].tolist()
        rows.append([next(token_scores) - 0.05 * value for value in k1])
        rows[-1][-1] += rollouts.scores.total[i].item()
    flat = torch.tensor([value for row in rows for value in row])
    torch.testing.assert_close(rollouts.tokens["rewards"][rollouts.mask], flat)
    if whiten:
        flat = (flat - flat.mean()) / flat.std() + flat.mean()
    totals = torch.stack([part.sum() for part in flat.split(length)])
    torch.testing.assert_close(rollouts.tokens["returns"][:, 0], totals, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss_aggregation", ["token", "sequence"])
def test_demonstrations_add_their_gradient(loss_aggregation, moved):
    """γ times that of the mean of their tokens' -log π, to that of the policy; each alone, and both in one update."""
    shown = [
        Tree([60, 61], [[62, 63, 64]], [[True, True, True]], Group("", [""])),
        Tree([70], [[71]], [[True]], Group("", [""])),
    ]
    module = moved(ptx=PretrainingMix("", weight=0.3), loss_aggregation=loss_aggregation)
    rollouts = module.make_rollouts(TREES)

    def gradient(steps):
        module._demonstrations = steps
        (step,) = module.steps(rollouts)
        module.zero_grad()
        for batch in step.batches:
            (module.losses(batch, statistics=True)[0] / module.loss_denominator(step)).backward()
        return {
            name: parameter.grad.clone() for name, parameter in module.adapters.trainable().items()
        }

    alone, both = gradient(None), gradient(StepLoader(shown, batch_size=2, token_budget=100))
    module.zero_grad()
    with module.adapters.activate("policy") as model:
        logps = [
            model(torch.tensor([tree.prompt + ids]))
            .logits[0, len(tree.prompt) - 1 : -1]
            .log_softmax(-1)[range(len(ids)), ids]
            for tree in shown
            for ids in tree.responses
        ]
    (-0.3 * torch.cat(logps).mean()).backward()
    assert max(one.abs().max() for one in alone.values()) > 1e-3
    for name, parameter in module.adapters.trainable().items():
        torch.testing.assert_close(both[name], alone[name] + parameter.grad, rtol=1e-4, atol=1e-6)


def test_dropout_of_the_base_is_off(tmp_path):
    """GPT-2 comes with dropout everywhere; in train mode the first ratio would be anything but 1."""
    tokenizer = make.tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        eos_token_id=tokenizer.eos_token_id,
    )
    assert config.resid_pdrop == config.attn_pdrop == config.embd_pdrop == 0.1
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    module = stage(tmp_path, Pattern("a"), cls=OfflineRL, max_new_tokens=6)
    module.configure_model()
    module.adapters.peft.train()
    (step,) = module.steps(module.make_rollouts(TREES))
    _, sums = module.losses(step.batches[0], statistics=True)
    assert sums["policy/approxkl"][0].item() == pytest.approx(0, abs=1e-8)


def test_the_value_loss_is_the_larger_half_square():
    """Right is 1; held within 0.2 of 0 and of 0.9, and free: the larger of both squares, halved."""
    values, before, right = (
        torch.tensor([0.5, 1.0]),
        torch.tensor([0.0, 0.9]),
        torch.tensor([1.0, 1.0]),
    )
    losses, clipped = Critic(clip=0.2).losses(values, before, right)
    torch.testing.assert_close(losses, torch.tensor([0.5 * 0.8**2, 0.0]))
    assert clipped.tolist() == [True, False]
    random = torch.Generator().manual_seed(0)
    before, moves = torch.randn(2, 1000, generator=random)
    held = Critic(clip=0.2).losses(before + moves.clamp(-0.1, 0.1), before, torch.ones(1000))[1]
    assert not held.any()  # rounding is no clipping
    torch.testing.assert_close(
        Critic(clip=None).losses(values, before, right)[0], torch.tensor([0.125, 0.0])
    )


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [
        (PPO(), [-1.2, 0.8, 4.0]),
        (PPO(clip_high=0.28), [-1.28, 0.8, 4.0]),
        (PPO(dual_clip=3.0), [-1.2, 0.8, 3.0]),
    ],
)
def test_a_ratio_is_clipped_on_its_side(objective, wanted):
    """Ratios 2, 0.5 and 4 of advantages 1, -1 and -1: held above, held below, and bounded by dual_clip alone."""
    old = torch.zeros(3)
    tokens = PolicyTokens(torch.tensor([2.0, 0.5, 4.0]).log(), old, old, torch.arange(3))
    torch.testing.assert_close(
        objective(tokens, torch.tensor([1.0, -1.0, -1.0])), torch.tensor(wanted)
    )


def test_every_point_of_the_list_is_shown_by_a_test():
    here = "\n".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    named = re.findall(r"(test_\w+)$", lit_align.rl.__doc__, re.MULTILINE)
    assert len(named) == 33
    assert [name for name in named if not re.search(rf"def {name}", here)] == []
