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
from tests.peers.trl_code import grpo_loss, grpo_reads

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
