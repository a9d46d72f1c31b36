"""How the token losses of a minibatch become one number, against TRL's own code on the same log-probabilities."""

import re
from pathlib import Path

import pytest
import torch

from lit_align.advantages.grpo import GRPO
from lit_align.objectives.ppo import PPO
from lit_align.rewards.length import Length
from lit_align.rl.kl_control import KLControl
from lit_align.rl.rollouts import TokenValues
from tests.peers.trl_code import grpo_loss, grpo_reads
from tests.rl.on_policy import OfflineRL, stage
from tests.rl.test_rl_edges import sampled

PAGE = Path(__file__).parents[2] / "lit_align/docs/pages/rl.md"
pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")
BETA, MAX_NEW_TOKENS = 0.04, 8
KINDS = [
    ("sequence", "grpo", "token"),
    ("token", "bnpo", "token"),
    ("token", "dapo", "token"),
    ("constant", "dr_grpo", "token"),
    ("sequence", "grpo", "sequence"),
]


@pytest.mark.parametrize(("aggregation", "loss_type", "ratio"), KINDS)
def test_a_minibatch_has_the_loss_that_trl_gives_it(aggregation, loss_type, ratio, tiny):
    module = stage(
        tiny,
        Length(max_words=3),
        GRPO(),
        cls=OfflineRL,
        max_new_tokens=MAX_NEW_TOKENS,
        loss_aggregation=aggregation,
        num_minibatches=2,
    )
    module.objective = PPO(ratio=ratio)
    module.kl, module.kl_coefficient = KLControl(BETA, where="loss", estimator="k3"), BETA
    module.configure_model()
    module.adapters.model.generation_config.eos_token_id = list(range(60))
    rollouts = sampled(module)
    assert len(set(rollouts.length.tolist())) > 2
    random = torch.Generator().manual_seed(0)
    for parameter in module.adapters.trainable().values():
        parameter.data += torch.randn(parameter.shape, generator=random) * 0.1
    for step in module.steps(rollouts):
        (batch,) = step.batches
        loss, _ = module.losses(batch, statistics=True)
        with torch.no_grad():
            forward_pass = module.actor_critic().forward(batch, with_critic=False)
        rollouts.set_tokens([TokenValues("entropy", batch, forward_pass.policy.logps)])
        rows = [row for tree in batch.source for row in rollouts.rows(tree)]
        tokens = {name: table[rows] for name, table in rollouts.tokens.items()}
        mask = rollouts.mask[rows].long()
        inputs = {
            "completion_mask": mask,
            "advantages": tokens["advantages"][:, 0],
            "old_per_token_logps": tokens["old_logps"],
            "ref_per_token_logps": tokens["ref_logps"],
        }
        reads = grpo_reads(
            loss_type=loss_type,
            importance_sampling_level=ratio,
            beta=BETA,
            max_completion_length=MAX_NEW_TOKENS,
        )
        theirs = grpo_loss(reads, inputs, tokens["entropy"], 0 * tokens["entropy"])
        ours = loss / module.loss_denominator(step)
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-5, atol=1e-6)


def test_the_table_names_every_kind_of_loss():
    """Each row with a ``loss_type`` is compared above, and each that TRL knows is in the table or beside it."""
    from trl import GRPOConfig

    words = GRPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    known = set(re.findall(r"'(\w+)'", words.partition("'grpo': ")[0]))
    assert "grpo" in known
    page = PAGE.read_text("utf-8")
    section = page.partition("TRL's `loss_type`")[2].partition("`equal_scores: drop`")[0]
    table, _, beside = section.partition("Of TRL's further kinds")
    rows = {row for row in re.findall(r"^\|.*\|$", table, re.MULTILINE)}
    compared = {loss_type for _, loss_type, _ in KINDS}
    named = set()
    for row in rows:
        named |= known.intersection(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1]))
    missing = known.intersection(re.findall(r"`(\w+)`", beside))
    assert named == compared
    assert named | missing == known
    assert not named & missing
