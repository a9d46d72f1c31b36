"""Learning from uncertain tokens alone and the entropy bonus, against TRL's own code on the same entropies."""

import pytest
import torch
from torch.testing import assert_close

from lit_align.advantages import Rollouts
from lit_align.advantages.grpo import GRPO
from lit_align.advantages.top_entropy import TopEntropy
from lit_align.functional.kl import kl_estimates
from lit_align.objectives import PolicyTokens
from lit_align.objectives.ppo import PPO
from lit_align.rl.entropy_bonus import EntropyBonus, EntropyControl
from lit_align.types import Group, Tree
from tests.peers.trl_code import grpo_loss, grpo_reads
from tests.rl.on_policy import move, policy_in_double, response_logits

pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")
LENGTHS = torch.tensor([3, 7, 1, 5, 2, 4])
LONGEST = 7
MASK = torch.arange(LONGEST) < LENGTHS[:, None]


class Uncertain:
    """Ragged responses to two prompts, with entropies in single precision of which some are equal."""

    def __init__(self, seed):
        draw = torch.Generator().manual_seed(seed)
        uniform = torch.rand(3, *MASK.shape, generator=draw)
        self.entropy = (8 * uniform[0]).round() / 4 * MASK
        self.old_logps, moves = -3 * uniform[1] * MASK, (uniform[2] - 0.5) * MASK
        self.logps = (self.old_logps + moves).requires_grad_()
        rewards = torch.zeros(MASK.shape)
        rewards[range(len(MASK)), LENGTHS - 1] = torch.randn(len(MASK), generator=draw)
        prompt = torch.tensor([0, 0, 0, 1, 1, 1])
        self.rollouts = Rollouts(
            rewards, MASK, prompt, 0 * rewards, torch.tensor(0.0), entropy=self.entropy
        )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9, 1.0])
def test_top_entropy_keeps_the_tokens_that_trl_keeps(share, seed):
    from trl.trainer.grpo_trainer import GRPOTrainer

    drawn = Uncertain(seed)
    kept = TopEntropy(GRPO(), share)(drawn.rollouts) != 0
    theirs = GRPOTrainer.get_high_entropy_mask(grpo_reads(), drawn.entropy, MASK.long(), 1 - share)
    assert (GRPO()(drawn.rollouts) != 0).equal(MASK)
    assert kept.equal(theirs)
    assert kept.any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_other_tokens_stay_in_what_the_loss_is_divided_by(seed):
    """And they keep their KL penalty, in the loss and its gradient."""
    drawn, share, beta = Uncertain(seed), 0.3, 0.1
    reference = drawn.old_logps - 0.2 * MASK
    advantages = TopEntropy(GRPO(), share)(drawn.rollouts)
    owner = MASK.nonzero()[:, 0]
    tokens = PolicyTokens(drawn.logps[MASK], drawn.old_logps[MASK], reference[MASK], owner)
    kl = kl_estimates(tokens.policy, tokens.reference)["k3"]
    ours = (PPO()(tokens, advantages[MASK]) + beta * kl).mean()
    inputs = {
        "completion_mask": MASK.long(),
        "advantages": GRPO()(drawn.rollouts)[:, 0],
        "old_per_token_logps": drawn.old_logps,
        "ref_per_token_logps": reference,
    }
    reads = grpo_reads(loss_type="bnpo", top_entropy_quantile=share, beta=beta)
    theirs = grpo_loss(reads, inputs, drawn.logps, drawn.entropy)
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, drawn.logps)[0] for loss in (ours, theirs)]
    assert gradients[0].abs().max() > 1e-2
    assert_close(*gradients, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def module(tiny):
    """A policy in double precision, but for its norms, without a penalty."""
    module = policy_in_double(tiny, GRPO())
    module.kl_coefficient = 0.0
    return module


def policy_tables(module, rollouts):
    """TRL's log-probabilities and entropies of the tokens, from all logits of a row, with gradient."""
    from torch.nn.utils.rnn import pad_sequence
    from trl.trainer.utils import selective_log_softmax_and_entropy

    tables = []
    for logits, tokens in response_logits(module, rollouts):
        tables.append(
            selective_log_softmax_and_entropy(logits, tokens, temperature=module.temperature)
        )
    return [pad_sequence(rows, batch_first=True) for rows in zip(*tables, strict=True)]


@pytest.mark.parametrize(
    ("aggregation", "loss_type"),
    [("token", "bnpo"), ("sequence", "grpo"), ("constant", "dr_grpo")],
)
def test_the_bonus_takes_off_what_trl_takes_off(aggregation, loss_type, module):
    """TRL's is a mean over tokens under every kind of loss, ours has the weights of the loss: nothing else differs."""
    coefficient, module.loss_aggregation = 0.3, aggregation
    module.entropy_control = EntropyControl(EntropyBonus(coefficient))
    move(module, 0)
    trees = [Tree([40 + k, 50, 51], [], [], Group("", [])) for k in range(2)]
    rollouts = module.make_rollouts(trees)
    assert len(set(rollouts.length.tolist())) > 1
    move(module, 1)
    (step,) = module.steps(rollouts)
    loss, _ = module.losses(step.batches[0], statistics=False)
    ours = loss / module.loss_denominator(step)
    logps, entropies = policy_tables(module, rollouts)
    mask, tokens = rollouts.mask, rollouts.tokens
    inputs = {
        "completion_mask": mask.long(),
        "advantages": tokens["advantages"][:, 0],
        "old_per_token_logps": tokens["old_logps"],
    }
    reads = grpo_reads(
        loss_type=loss_type,
        max_completion_length=module.max_new_tokens,
        _entropy_bonus_enabled=True,
        use_adaptive_entropy=False,
        entropy_coef=coefficient,
    )
    theirs = grpo_loss(reads, inputs, logps, entropies)
    summed = (entropies * mask).sum(1)
    means = {
        "token": summed.sum() / mask.sum(),
        "sequence": (summed / rollouts.length).mean(),
        "constant": summed.sum() / (len(mask) * module.max_new_tokens),
    }
    theirs = theirs + coefficient * (means["token"] - means[aggregation])
    assert_close(ours, theirs, rtol=1e-6, atol=1e-8, check_dtype=False)
    weights = list(module.adapters.trainable().values())
    gradients = [torch.autograd.grad(value, weights, retain_graph=True) for value in (ours, theirs)]
    assert max(part.abs().max() for part in gradients[0]) > 1e-4
    for ours_part, theirs_part in zip(*gradients, strict=True):
        assert_close(ours_part, theirs_part, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_coefficient_goes_where_trl_lets_it_go(seed):
    """Of iterations of two micro-batches of 4 and 12 tokens, whose mean is often just the target."""
    draw = torch.Generator().manual_seed(seed)
    target = 0.25
    control = EntropyControl(EntropyBonus(0.01, target=target, step=0.004, limit=0.018))
    arguments = {
        "entropy_target": target,
        "entropy_coef_delta": 0.004,
        "entropy_coef_min": 0.0,
        "entropy_coef_max": 0.018,
    }
    reads = grpo_reads(
        arguments=arguments,
        loss_type="bnpo",
        current_gradient_accumulation_steps=2,
        _entropy_bonus_enabled=True,
        use_adaptive_entropy=True,
        entropy_coef=0.01,
        _last_world_entropy=float("inf"),  # as the trainer begins
        _entropy_window_stats=None,
    )
    coefficients, ties = set(), 0
    for _ in range(60):
        levels = torch.randint(10, (2,), generator=draw).double() / 16
        batches = [level.repeat(1, count) for level, count in zip(levels, (4, 12), strict=True)]
        losses = []
        for batch, reads.accelerator.sync_gradients in zip(batches, (False, True), strict=True):
            zeros = torch.zeros_like(batch)
            inputs = {"completion_mask": torch.ones_like(batch).long(), "advantages": zeros[:, 0]}
            losses.append(grpo_loss(reads, inputs, zeros, batch).item())
        assert sum(losses) == pytest.approx(-control.applied * levels.mean().item(), abs=1e-12)
        measured = torch.cat(batches, 1).mean().item()
        control.end_iteration(measured)
        assert control.coefficient == pytest.approx(reads.entropy_coef, abs=1e-12)
        coefficients.add(round(control.coefficient, 6))
        ties += measured == target
    assert {0.0, 0.018} <= coefficients
    assert ties
