"""On-policy learning converges to what can be worked out by hand."""

import pytest
import torch
from tokenizers import Tokenizer, models
from torch.nn.functional import kl_div
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_align.advantages.gae import GAE
from lit_align.advantages.reinforce import Reinforce
from lit_align.advantages.rloo import RLOO
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.objectives.ppo import PPO
from lit_align.rewards.abstention import Abstention
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.weighted import Weighted
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.types import Group, Tree
from tests import tiny
from tests.rl.on_policy import OfflineRL


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return tiny.words(tmp_path_factory.mktemp("words"))


def answers(module: OfflineRL, tree: Tree, role: str) -> dict[tuple[int, ...], float]:
    """Log-probability of every answer: the end, or a word and then a word or the end."""
    with torch.no_grad(), module.adapters.activate(role, training=False) as model:
        first = model(input_ids=torch.tensor([tree.prompt])).logits[0, -1].double().log_softmax(-1)
        rows = torch.tensor([[*tree.prompt, word] for word in range(7)])
        second = model(input_ids=rows).logits[:, -1].double().log_softmax(-1)
    both = {(a, b): (first[a] + second[a, b]).item() for a in range(7) for b in range(8)}
    return {(7,): first[7].item(), **both}


@pytest.mark.parametrize(
    ("objective", "advantage", "kl"),
    [
        (PPO(), GAE(lam=1.0, whiten=False), KLControl(0.5)),
        (PolicyGradient(), RLOO(), KLControl(0.5)),
        (PolicyGradient(), Reinforce(), KLControl(0.5)),
        (PolicyGradient(), RLOO(), KLControl(0.5, where="loss", estimator="k2")),
    ],
    ids=["PPO", "RLOO", "REINFORCE", "RLOO, KL in the loss"],
)
def test_it_converges_to_the_optimum_in_closed_form(objective, advantage, kl, words):
    """π* ∝ ρ exp(r / β) over all answers."""
    reward = Weighted([Pattern("a|c"), Pattern("b$")], [1.0, 0.5])
    module = OfflineRL(
        objective, reward, advantage, kl, Critic(clip=None), num_generations=256, max_new_tokens=2,
        base=Base(str(words), "none", "float32"), lora=Lora(r=8),
    )  # fmt: skip
    module.configure_model()
    tree = Tree([3, 5], [], [], Group("", []))
    reference = answers(module, tree, "reference")
    texts = [module.tokenizer.decode(answer, skip_special_tokens=True) for answer in reference]
    earned = reward([Group("", texts)]).total.double()
    optimum = (
        torch.tensor(list(reference.values())).double() + earned / kl.coefficient
    ).log_softmax(-1)
    assert torch.tensor(list(reference.values())).logsumexp(0).item() == pytest.approx(0, abs=1e-6)

    def distance(role):
        return kl_div(
            optimum,
            torch.tensor(list(answers(module, tree, role).values())),
            log_target=True,
            reduction="sum",
        )

    assert distance("reference") > 0.2
    module.learn([tree], 150, 0.01)
    # a term of the loss has the noise of its samples besides: half as near
    assert distance("policy") < (0.04 if kl.where == "loss" else 0.02)


def test_it_abstains_exactly_where_it_would_be_wrong_too_often(tmp_path):
    """1 for right, 0.4 for abstaining, -1 for wrong: answering pays 2p - 1, so that 0.7 is where it begins to pay."""
    sure = {"q1": 0.2, "q2": 0.4, "q3": 0.6, "q4": 0.8, "q5": 0.9}
    vocabulary = {word: i for i, word in enumerate([*"abcdef", *sure, "don't know", "<end>"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<end>", pad_token="<end>"
    ).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        eos_token_id=vocabulary["<end>"], bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    trees = []
    for (
        question,
        p,
    ) in sure.items():  # ten people ask; the commonest answer is right for 10 p of them
        right = "a" * round(10 * p) + "bcdefbcdef"[: 10 - round(10 * p)]
        trees += [
            Tree([vocabulary[question]], [], [], Group(question, [], extra={"answers": [one]}))
            for one in right
        ]
    module = OfflineRL(
        PolicyGradient(), Abstention(0.4), RLOO(), KLControl(), Critic(), num_generations=16, max_new_tokens=1,
        base=Base(str(tmp_path), "none", "float32"), lora=Lora(r=8), gradient_checkpointing=False,
    )  # fmt: skip
    module.configure_model()
    for module.kl_coefficient in (
        0.3,
        0.1,
        0.03,
    ):  # at once so cheap, it would settle before it has tried the answers
        module.learn(trees, 30, 0.01)
    with torch.no_grad(), module.adapters.activate("policy", training=False) as model:
        logits = model(torch.tensor([[vocabulary[question]] for question in sure])).logits[:, -1]
    chance, said = logits.softmax(-1).max(-1)
    assert (chance > 0.9).all()
    wanted = {question: "a" if p > 0.7 else "don't know" for question, p in sure.items()}
    assert dict(zip(sure, module.tokenizer.batch_decode(said[:, None]), strict=True)) == wanted
