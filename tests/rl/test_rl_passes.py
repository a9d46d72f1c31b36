"""No model reads a response more often than it must, and what is learned is what separate passes would teach."""

from collections import Counter

import lightning.pytorch as lightning
import pytest
import torch

from lit_align.advantages.gae import GAE
from lit_align.advantages.grpo import GRPO
from lit_align.advantages.rloo import RLOO
from lit_align.data.datamodules import Prompts
from lit_align.models.tree_forward import TreeForward
from lit_align.rewards.length import Length
from lit_align.rl.kl_control import KLControl
from lit_align.types import Group, Tree
from tests.rl.on_policy import OfflineRL, stage, write_prompts

IN_LOSS = KLControl(0.1, where="loss", estimator="k3")
METHODS = {
    "GRPO": (GRPO(), IN_LOSS),
    "RLOO": (RLOO(), KLControl()),
    "PPO": (GAE(), KLControl()),
    "PPO, KL in the loss": (GAE(), IN_LOSS),
}
SINGLE, SEVERAL = 4096, 64  # token budgets: all prompts in one micro-batch, or each in its own
PROMPTS, RESPONSES = 4, 12


class CountingForward(TreeForward):
    """Counts the responses that each role reads in packed passes, with gradient and without."""

    def count(self, adapters) -> None:
        self.adapters, self.read = adapters, Counter()

    def hidden(self, trees):
        self.read[self.adapters.active, torch.is_grad_enabled()] += trees.responses
        return super().hidden(trees)


def responses_read(module, data, folder):
    """Responses that each role reads in one iteration, by role and whether with gradient."""
    module.configure_model()
    module._tree_forward = CountingForward(module.adapters.model)
    module._tree_forward.count(module.adapters)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, data)
    return module._tree_forward.read, trainer.callback_metrics


@pytest.mark.parametrize(
    ("method", "budget", "updates", "expected"),
    [
        ("GRPO", SINGLE, (1, 1), {"policy": (0, 1), "reference": (1, 0)}),
        ("GRPO", SEVERAL, (1, 1), {"policy": (0, 1), "reference": (1, 0)}),
        ("RLOO", SINGLE, (1, 1), {"policy": (0, 1), "reference": (1, 0)}),
        # its graphs do not fit, and the KL penalty is part of the reward
        ("RLOO", SEVERAL, (1, 1), {"policy": (1, 1), "reference": (1, 0)}),
        ("PPO", SINGLE, (1, 1), {"policy": (0, 1), "reference": (1, 0), "critic": (0, 1)}),
        ("PPO", SEVERAL, (1, 1), {"policy": (1, 1), "reference": (1, 0), "critic": (1, 1)}),
        # of two minibatches the second is read before the first update; then two passes of updates
        ("PPO", SINGLE, (2, 2), {"policy": (0.5, 2), "reference": (1, 0), "critic": (0.5, 2)}),
        ("GRPO", SEVERAL, (2, 2), {"policy": (0.5, 2), "reference": (1, 0)}),
        ("GRPO", SINGLE, (3, 1), {"policy": (0, 3), "reference": (1, 0)}),
    ],
)
def test_passes_of_an_iteration(method, budget, updates, expected, tiny, tmp_path):
    """In units of an iteration's responses: (without gradient, with gradient)."""
    advantage, kl = METHODS[method]
    num_iterations, num_minibatches = updates
    module = stage(
        tiny, Length(max_words=1), advantage, num_generations=3, max_new_tokens=4,
        num_iterations=num_iterations, num_minibatches=num_minibatches, log_samples_every=1,
    )  # fmt: skip
    module.kl = kl
    prompts = write_prompts(tmp_path / "prompts.jsonl", rows=PROMPTS)
    data = Prompts(str(prompts), batch_size=PROMPTS, token_budget=budget)
    read, metrics = responses_read(module, data, tmp_path)
    wanted = Counter()
    for role, (without_gradient, with_gradient) in expected.items():
        wanted[role, False] = int(without_gradient * RESPONSES)
        wanted[role, True] = int(with_gradient * RESPONSES)
    assert +read == +wanted
    assert metrics["policy/sampler_gap"] < 1e-5
    assert metrics["objective/entropy"] > 1
    assert metrics["objective/kl"] == pytest.approx(0, abs=1e-6)
    if (
        wanted["policy", False] < RESPONSES
    ):  # the old log-probabilities are those of the first update
        assert metrics["policy/first_ratio"] == 1


# ---------------------------------------------------------------- the same is learned


@pytest.fixture(scope="module", params=list(METHODS))
def moved(request, tiny):
    """A policy, and a critic, that have left where they started, with responses to learn from."""
    advantage, kl = METHODS[request.param]
    module = stage(
        tiny, Length(max_words=1), advantage, cls=OfflineRL, num_generations=3, max_new_tokens=6
    )
    module.kl, module.kl_coefficient = kl, kl.coefficient
    module.configure_model()
    random = torch.Generator().manual_seed(0)
    for parameter in module.adapters.trainable().values():
        parameter.data += torch.randn(parameter.shape, generator=random) * 0.02
    trees = [Tree([40 + k, 50, 51], [], [], Group("", [])) for k in range(4)]
    return module, module.experience_builder().sample(trees, 0)


@pytest.mark.parametrize("budget", [SINGLE, 30])
@pytest.mark.parametrize("num_minibatches", [1, 2])
def test_shared_passes_teach_what_separate_ones_do(budget, num_minibatches, moved):
    """Stored numbers, and the gradient of the first update."""
    module, rollouts = moved
    module.token_budget, module.num_minibatches = budget, num_minibatches
    experience = module.experience_builder()
    first, *_ = module.minibatches(rollouts)

    def gradient(shared):
        rollouts.tokens.clear()
        forward_pass = experience.score(rollouts, first if shared else None)
        experience.add_advantages(rollouts, module.kl_coefficient, 0.0)
        scores_policy = shared and forward_pass is None and module.kl.where == "loss"
        update = module.policy_update(rollouts, 0.0, forward_pass, scores_policy)
        module.zero_grad()
        for batch in first.step.batches:
            (update.losses(batch)[0] / module.loss_denominator(first.step)).backward()
        rollouts.set_tokens(update.scored)
        weights = module.adapters.trainable().values()
        return torch.cat([weight.grad.flatten() for weight in weights]), dict(rollouts.tokens)

    separate, stored = gradient(shared=False)
    shared, stored_as_shared = gradient(shared=True)
    assert separate.norm() > 1e-3
    assert (shared - separate).norm() < 1e-5 * separate.norm()
    assert stored.keys() == stored_as_shared.keys()
    for name, values in stored.items():
        torch.testing.assert_close(stored_as_shared[name], values, rtol=1e-5, atol=1e-5)
