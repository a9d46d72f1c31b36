"""Parts of on-policy learning against their definitions."""

from types import SimpleNamespace

import pytest
import torch

from lit_align.advantages import Rollouts, whitened
from lit_align.advantages.gae import GAE
from lit_align.advantages.grpo import GRPO
from lit_align.advantages.rloo import RLOO
from lit_align.batches import Scores
from lit_align.cli import main
from lit_align.rewards.base import text_of
from lit_align.rewards.pattern import Pattern
from lit_align.stages.kl import KL
from tests.stages.on_policy import rl_arguments, stage, table, write_prompts


def test_minibatches_and_budgets_do_not_change_what_is_learned(tiny, tmp_path):
    """One update of everything, in one micro-batch or one a prompt."""
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    more = ["--trainer.max_steps=2", "--model.epochs=1", "--model.minibatches=1"]
    for name, budget in (("one", 4096), ("many", 120)):
        main(rl_arguments(tiny, prompts, tmp_path / name, *more, f"--data.token_budget={budget}"))
    ones, parts = (table(tmp_path / name, "loss", "grad_norm", "objective/scores") for name in ("one", "many"))
    for one, many in zip(ones, parts, strict=True):
        assert [float(x) for x in many] == pytest.approx([float(x) for x in one], rel=1e-4, abs=1e-6)


def test_a_missing_end_and_a_far_score_count_as_they_are_told(tiny):
    """The third of 10 tokens is cut off at the limit; of the last 4 before it each costs a quarter."""
    scores = Scores(torch.tensor([3.0, 0.25, -9.0, 0.25]))
    ended, length = torch.tensor([True, True, False, True]), torch.tensor([1, 6, 10, 8])
    now = SimpleNamespace(scores=scores, ended=ended, length=length)
    module = stage(tiny, Pattern("a"), no_end=-1.0, reward_clip=0.5, max_new_tokens=10)
    assert module._earned(now).tolist() == [0.5, 0.25, -1.0, 0.25]
    module.overlong = 4
    assert module._earned(now).tolist() == [0.5, 0.25, -2.0, -0.25]


def test_the_price_of_kl_moves_towards_its_target():
    """β (1 + clip(KL / target - 1, ±0.2) n / horizon): of 16 responses and a horizon of 160, by at most a fiftieth."""
    kl = KL(0.1, target=6.0, horizon=160)
    price = 0.1
    for measured, wanted in ((12.0, 0.1 * 1.02), (6.3, 0.1 * 1.02 * 1.005), (0.0, 0.1 * 1.02 * 1.005 * 0.98)):
        price = kl.adapted(price, measured, 16)
        assert price == pytest.approx(wanted)
    assert KL(0.1).adapted(0.1, 12.0, 16) == 0.1


def test_grpo_and_rloo_among_prompts_of_different_samples():
    """Against the definitions, prompt by prompt."""
    totals, prompt = torch.tensor([1.0, 4.0, 0.0, 2.0, 5.0]), torch.tensor([0, 0, 0, 1, 1])
    there = torch.ones(5, 1, dtype=torch.bool)
    rollouts = Rollouts(totals[:, None], there, prompt, torch.zeros(5, 1), torch.tensor(0.0))
    for part in (slice(0, 3), slice(3, 5)):
        mine = totals[part]
        others = torch.stack([(mine.sum() - one) / (len(mine) - 1) for one in mine])
        torch.testing.assert_close(RLOO()(rollouts)[part, 0], mine - others)
        torch.testing.assert_close(GRPO()(rollouts)[part, 0], (mine - mine.mean()) / mine.std(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(GRPO(std=False)(rollouts)[part, 0], mine - mine.mean())


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_gae_is_its_sum(gamma):
    draw = torch.Generator().manual_seed(0)
    length = torch.tensor([4, 2, 1])
    mask = torch.arange(4) < length[:, None]
    rewards, values = (torch.randn(3, 4, generator=draw, dtype=torch.float64) * mask for _ in range(2))
    found = GAE(gamma=gamma, lam=0.8)(Rollouts(rewards, mask, torch.arange(3), values, torch.tensor(0.0)))
    for i, n in enumerate(length.tolist()):
        after = [*values[i, 1:n].tolist(), 0.0]
        delta = [rewards[i, t].item() + gamma * after[t] - values[i, t].item() for t in range(n)]
        for t in range(4):
            wanted = sum((gamma * 0.8) ** (u - t) * delta[u] for u in range(t, n))
            assert found[i, t].item() == pytest.approx(wanted)


def test_text_is_what_the_reward_reads():
    assert text_of([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]) == "y"


# ---------------------------------------------------------------- published numbers


@pytest.mark.parametrize(("centre", "mean"), [(True, 0.0), (False, -11 / 6)])
def test_whitening_is_torchtunes(centre, mean):
    """The expected values of its own test (whiten with shift_mean=False), and the same moved to mean 0."""
    values = torch.tensor([[-1.0, 0.0, 4.0, 8.0, 3.0, -25.0]])
    published = torch.tensor([[0.0774, 0.1704, 0.5421, 0.9138, 0.4491, -2.1528]])
    there = torch.ones(1, 6, dtype=torch.bool)
    if not centre:
        mean = 0.0
    torch.testing.assert_close(whitened(values, there, centre), published - mean, rtol=1e-4, atol=1e-4)


def test_gae_is_torchtunes():
    """Values and rewards [0, 0, 0, 1], γ 0.9, λ 0.95: its test expects the returns γ³λ², γ²λ, γ, 1."""
    one, there = torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.ones(1, 4, dtype=torch.bool)
    found = GAE(gamma=0.9, lam=0.95)(Rollouts(one, there, torch.tensor([0]), one, torch.tensor(0.0)))
    torch.testing.assert_close(found + one, torch.tensor([[0.9**3 * 0.95**2, 0.9**2 * 0.95, 0.9, 1.0]]))
