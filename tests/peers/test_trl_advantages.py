"""Advantages of several rewards against TRL's own lines, read out of its installed trainer and run as they are."""

import inspect
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lit_align.advantages import Rollouts
from lit_align.advantages.gdpo import GDPO
from lit_align.advantages.grpo import GRPO

ZOO = Path(__file__).parents[2] / "plugins/lit-align-zoo"
if str(ZOO) not in sys.path:
    sys.path.append(str(ZOO))

from lit_align_zoo.batch_grpo import BatchGRPO  # noqa: E402 - from its folder

pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")
PROMPTS, GENERATIONS = 4, 3
WEIGHTS = {"format": 1.0, "length": 0.3}


def trl_advantages(scores, **settings):
    """The lines of ``_generate_and_score_completions`` that make advantages of ``[responses, rewards]``."""
    from trl.trainer import grpo_trainer

    source = inspect.getsource(grpo_trainer.GRPOTrainer._generate_and_score_completions)
    lines = textwrap.dedent(source).splitlines()
    first = next(k for k, line in enumerate(lines) if "unscorable_mask = " in line)
    last = next(k for k, line in enumerate(lines) if "advantages = torch.nan_to_num" in line)
    trainer = SimpleNamespace(
        reward_weights=torch.tensor([*WEIGHTS.values()], dtype=scores.dtype),
        reward_funcs=[*WEIGHTS],
        **settings,
    )
    names = {
        **vars(grpo_trainer),
        "self": trainer,
        "rewards_per_func": scores,
        "num_generations": GENERATIONS,
        "device": "cpu",
    }
    exec(textwrap.dedent("\n".join(lines[first : last + 1])), names)
    return names["advantages"]


def drawn(seed):
    """Scores of responses by two rewards of other sizes, one of them coarse so that groups may be equal."""
    draw = torch.Generator().manual_seed(seed)
    shape = (PROMPTS * GENERATIONS,)
    form = torch.randint(2, shape, generator=draw).double()
    form[:GENERATIONS] = 1.0
    length = -900 * torch.rand(shape, generator=draw, dtype=torch.float64)
    return torch.stack([form, length], 1)


def ours(advantage, scores):
    weights = torch.tensor([*WEIGHTS.values()], dtype=scores.dtype)
    rewards = (scores * weights).sum(1)[:, None]
    mask = torch.ones_like(rewards).bool()
    prompt = torch.arange(PROMPTS).repeat_interleave(GENERATIONS)
    parts = dict(zip(WEIGHTS, scores.unbind(1), strict=True))
    rollouts = Rollouts(rewards, mask, prompt, 0 * rewards, torch.tensor(0.0), parts)
    return advantage(rollouts)[:, 0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gdpo_is_normalize_then_sum(seed):
    scores = drawn(seed)
    theirs = trl_advantages(scores, multi_objective_aggregation="normalize_then_sum")
    found = ours(GDPO(WEIGHTS), scores)
    assert found.abs().max() > 0.5
    torch.testing.assert_close(found, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("scale", "std"), [("group", True), ("none", False)])
def test_grpo_is_sum_then_normalize(scale, std):
    """To what is added to a deviation so that none is 0."""
    scores = drawn(3)
    theirs = trl_advantages(
        scores, multi_objective_aggregation="sum_then_normalize", scale_rewards=scale
    )
    found = ours(GRPO(std=std), scores)
    assert found.abs().max() > 0.5
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_batch_grpo_divides_by_the_deviation_of_all_rewards(seed):
    """To TRL's factor n / (n - 1), which it computes in single precision."""
    scores = drawn(seed)
    theirs = trl_advantages(
        scores, multi_objective_aggregation="sum_then_normalize", scale_rewards="batch"
    )
    found = ours(BatchGRPO(), scores)
    assert found.abs().max() > 0.5
    torch.testing.assert_close(found, theirs, rtol=1e-7, atol=1e-12)


def test_batch_grpo_has_no_advantage_where_all_rewards_are_equal():
    scores = torch.full((PROMPTS * GENERATIONS, len(WEIGHTS)), 0.1, dtype=torch.float64)
    theirs = trl_advantages(
        scores, multi_objective_aggregation="sum_then_normalize", scale_rewards="batch"
    )
    assert ours(BatchGRPO(), scores).abs().max() == 0
    torch.testing.assert_close(theirs, torch.zeros_like(theirs), rtol=0, atol=1e-9)
