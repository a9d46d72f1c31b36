"""A policy whose answers can be listed, learning from responses that something else samples."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import kl_div

from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.models.samplers.in_process import InProcess
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.weighted import Weighted
from lit_align.rl.critic import Critic
from lit_align.types import Group, Tree
from tests.engine import token_noise
from tests.rl.on_policy import OfflineRL

TREE = Tree([3, 5], [], [], Group("", []))
REWARD = Weighted([Pattern("a|c"), Pattern("b$")], [1.0, 0.5])


def listable(words, objective, advantage, kl, *, max_new_tokens=2, **settings):
    """A stage over seven words and an end; an answer has at most two tokens."""
    module = OfflineRL(
        objective, REWARD, advantage, kl, Critic(clip=None), num_generations=256, max_new_tokens=max_new_tokens,
        base=Base(str(words), "none", "float32"), lora=Lora(r=8), **settings,
    )  # fmt: skip
    module.configure_model()
    return module


def answers(module, role):
    """Log-probability of every answer: the end, or a word and then, if there is room, a word or the end."""
    with torch.no_grad(), module.adapters.activate(role, training=False) as model:
        ids = torch.tensor([TREE.prompt])
        first = model(input_ids=ids).logits[0, -1].double().log_softmax(-1)
        if module.max_new_tokens == 1:
            return {(a,): first[a].item() for a in range(8)}
        rows = torch.tensor([[*TREE.prompt, word] for word in range(7)])
        second = model(input_ids=rows).logits[:, -1].double().log_softmax(-1)
    pairs = {(a, b): (first[a] + second[a, b]).item() for a in range(7) for b in range(8)}
    return {(7,): first[7].item(), **pairs}


def earned(module):
    """The reward of every answer."""
    texts = [
        module.tokenizer.decode(answer, skip_special_tokens=True)
        for answer in answers(module, "reference")
    ]
    return module.reward([Group("", texts)]).total.double()


def logps_of(module, role="policy"):
    """Log-probabilities of all answers, ``[answers]``."""
    return torch.tensor(list(answers(module, role).values())).double()


def optimum(module):
    """Log-probabilities under π* ∝ ρ exp(r / β)."""
    return (logps_of(module, "reference") + earned(module) / module.kl.coefficient).log_softmax(-1)


def biased_optimum(module, noise):
    r"""Where a KL penalty in the loss leads without weights, when :math:`\mu \propto \pi e^{noise}` samples; one token.

    The gradient :math:`E_\mu[f \nabla \log\pi]` with :math:`f = r - E_\mu[r] - \beta \log(\pi/\rho)` vanishes for a
    softmax where :math:`\mu f = \pi E_\mu[f]`; followed with plain steps.
    """
    reference, reward, beta = logps_of(module, "reference"), earned(module), module.kl.coefficient
    logps = optimum(module)
    for _ in range(5_000):
        mu, pi = (logps + noise).softmax(-1), logps.exp()
        f = reward - (mu * reward).sum() - beta * (logps - reference)
        logps = (logps + 0.5 * (mu * f - pi * (mu * f).sum())).log_softmax(-1)
    return logps


def distance(wanted, module, role="policy"):
    """Nats from a role to a distribution over all answers."""
    return kl_div(logps_of(module, role), wanted, log_target=True, reduction="sum").item()


@dataclass(frozen=True)
class Noisy(InProcess):
    """The model in memory with other logits, as an engine has them.

    Args:
        scale: of `token_noise`.
    """

    is_exact: ClassVar[bool] = False
    scale: float = 0.0

    def sample(self, model, request):
        with model.activate() as base:
            noise = token_noise(self.scale, base.config.vocab_size)
            head = base.get_output_embeddings()
            hook = head.register_forward_hook(lambda head, given, logits: logits + noise)
            try:
                return super().sample(model, request)
            finally:
                hook.remove()
