"""What an update from eight responses to a prompt costs, against a padded row for each: no timing, no noise.

Counted, with prompts of 124 tokens and responses of 52: 0.437 times as much for PPO with a critic, 0.424 for RLOO.

The model has the width of SmolLM2-135M, a fifteenth of its layers and a fifteenth of its vocabulary, so that body,
head and attention have the shares that they have in the whole of it.
"""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lit_align.advantages.gae import GAE
from lit_align.advantages.rloo import RLOO
from lit_align.data.packing import pack
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.ppo import PPO
from lit_align.rewards.pattern import Pattern
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.rollouts import RolloutBatch
from lit_align.types import Group, TokenLogps, Tree
from tests import tiny
from tests.rl.on_policy import OfflineRL
from tests.strategies import padded, padded_logps

from .flops import counted

RESPONSES, PROMPT, RESPONSE, VOCABULARY = 8, 124, 52, 49152 // 15
AIM = 0.45


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("thin")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=2, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, eos_token_id=2, pad_token_id=2, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(at)
    tiny.tokenizer().save_pretrained(at)
    return at


class Rows:
    """An ordinary padded pass, a row for each response, in the place of `TreeForward`."""

    def __init__(self, model, trees):
        self.model, self.trees = model, trees

    def predictions(self, *_):
        return self

    def score(self, *_):
        return TokenLogps(padded_logps(self.model, [self.trees]))

    def hidden(self, _):
        ids, mask, where = padded([self.trees])
        states = self.model.base_model(
            input_ids=ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return states[where[:, 0], where[:, 1] - 1]


@pytest.fixture(params=[GAE(), RLOO()], ids=["PPO with a critic", "RLOO"])
def stage(request, folder):
    """A stage in the middle of an iteration, its adapters no longer zero."""
    module = OfflineRL(
        PPO(), Pattern("a"), request.param, KLControl(), Critic(),
        num_generations=RESPONSES, lora=Lora(r=16), gradient_checkpointing=False,
        base=Base(str(folder), "none", "float32"),
    )  # fmt: skip
    module.configure_model()
    draw = torch.Generator().manual_seed(0)
    for weight in module.adapters.trainable().values():
        weight.data += 0.01 * torch.randn(weight.shape, generator=draw)
    ids = lambda count: torch.randint(5, VOCABULARY, (count,), generator=draw).tolist()  # noqa: E731
    scored = [[True] * RESPONSE] * RESPONSES
    tree = Tree(ids(PROMPT), [ids(RESPONSE) for _ in scored], scored, Group("", []))
    rollouts = RolloutBatch([tree], [], torch.ones(0), torch.zeros(0), None)
    new = module.tree_forward(pack([tree], 10**6)[0].trees).logps.detach().view(RESPONSES, RESPONSE)
    for name in ("old_logps", "ref_logps"):
        rollouts.tokens[name] = new + 0.2 * torch.randn(
            new.shape, generator=draw
        )  # some ratios are clipped, most are not
    for name in ("advantages", "values", "returns", "sampler_logps", "entropy"):
        rollouts.tokens[name] = torch.randn(new.shape, generator=draw)
    module.adapters.peft.train()
    module._policy_update = module.policy_update(rollouts)
    return module


def test_the_update_costs_less_than_half_of_padded_rows(stage):
    """Losses and gradients first: those of packed trees are those of padded rows."""
    rollouts = stage._policy_update.rollouts
    batch = pack(rollouts.trees, 10**6)[0]
    readers = {"trees": stage.tree_forward, "rows": Rows(stage.adapters.model, batch.source)}
    losses, gradients, flops = {}, {}, {}
    for name, reader in readers.items():
        stage._tree_forward = reader
        stage._policy_update = stage.policy_update(rollouts)

        def step(name=name):
            losses[name], _ = stage.losses(batch, statistics=False)
            losses[name].backward()

        stage.zero_grad()
        flops[name] = counted(step)
        gradients[name] = torch.cat([p.grad.flatten() for p in stage.adapters.trainable().values()])
    torch.testing.assert_close(losses["trees"], losses["rows"], rtol=1e-5, atol=1e-5)
    assert gradients["rows"].norm() > 1
    assert (gradients["trees"] - gradients["rows"]).norm() < 1e-5 * gradients["rows"].norm()
    assert flops["trees"] <= AIM * flops["rows"]
