"""Where a policy that is rewarded for abstaining goes from "unsure" to an answer: at the probability (1 + m) / 2.

An answer that is right with probability p earns 2p - 1 on average, with 1 for right and -1 for wrong, and abstaining
earns m; so that it pays to abstain where p < (1 + m) / 2.

``python -m tests.proofs.abstention_law`` trains a Llama of two layers on statements about 3,200 people, of which a
share s, from 0.1 to 1, name the same of ten towns, and the rest any other. That town is the true one with probability
s, so that the model knows no more than how sure it is, and is calibrated. Then, with LoRA: the arms of
`tests.proofs.abstention`, RL with three m, and people whom no arm has seen at the end. Three seeds, each with a world
of its own. Figures go to ``abstention_law.json`` and ``abstention_law.png`` beside this file.
"""

import random
import tempfile
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_align.advantages.rloo import RLOO
from lit_align.data.datamodules import Demonstrations, Prompts
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.rewards.abstention import Abstention
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.stage import RL
from lit_align.stages.sft import SFT
from tests.proofs.abstention import (
    ANSWERS,
    EDGES,
    LABELLER,
    MODEL,
    by_bin,
    draw,
    fit,
    measure,
    written,
)
from tests.proofs.experiments import measure_seeds, untrained_llama

FILE = Path(__file__).parent / "abstention_law.json"
SEEDS = (1, 2, 3)
TOWNS, LEARNED, PRACTISED, HELD_OUT = 10, 400, 2400, 400
PEOPLE = LEARNED + PRACTISED + HELD_OUT
UNSURE = "unsure"
MS = (-0.5, 0.0, 0.5)
ARMS = (ANSWERS, LABELLER, MODEL, *(f"RL, m = {m:g}" for m in MS))
WORDS = [
    *(f"person{k}" for k in range(PEOPLE)),
    *(f"town{k}" for k in range(TOWNS)),
    UNSURE,
    "<end>",
]
DATA = {"token_budget": 4096, "max_length": 8}


class World(NamedTuple):
    """What is said of people.

    Args:
        stated: share of the statements that name each town, ``[people, towns]``.
        true: the place of the true town, ``[people]``.
    """

    stated: Tensor
    true: Tensor


def world(seed: int) -> World:
    """Shares of statements, and true towns that are drawn from them."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(1 / TOWNS, 1, PEOPLE)
    stated = np.repeat(((1 - shares) / (TOWNS - 1))[:, None], TOWNS, axis=1)
    stated[np.arange(PEOPLE), rng.integers(TOWNS, size=PEOPLE)] = shares
    true = [rng.choice(TOWNS, p=row) for row in stated]
    return World(torch.tensor(stated).float(), torch.tensor(true))


def teach(facts: World, folder: Path, seed: int) -> float:
    """Write a Llama into ``folder`` that has learned the statements by heart; its mean KL from them, in nats."""
    model = untrained_llama(folder, WORDS, seed, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=400)
    ids, said = torch.arange(PEOPLE)[:, None], slice(PEOPLE, PEOPLE + TOWNS + 1)
    unsure = torch.full((PEOPLE, 1), 0.02)  # the word is known, and says nothing
    target = torch.cat([0.98 * facts.stated, unsure], 1)
    for _ in range(400):
        logits = model(input_ids=ids).logits[:, -1]
        log_probs = logits.log_softmax(-1)[:, said]
        loss = (target * (target.log() - log_probs)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    return loss.item()


def settings(base: Path, seed: int, lr: float, adapter: Path | None = None) -> dict[str, Any]:
    """Settings of a stage."""
    return {
        "base": Base(str(base), "none", "float32"), "lora": Lora(r=8, alpha=16), "seed": seed, "max_new_tokens": 1,
        "optimizer": partial(torch.optim.AdamW, lr=lr, weight_decay=0.0), "gradient_checkpointing": False,
        "init_adapter": None if adapter is None else str(adapter),
    }  # fmt: skip


def imitate(base: Path, folder: Path, seed: int, answers: list[str]) -> SFT:
    """SFT on one answer for each of the first people."""
    rows = [
        {"prompt": f"person{k}", "responses": [f" {answer}"]} for k, answer in enumerate(answers)
    ]
    data = Demonstrations(written(folder / "rows.jsonl", rows), batch_size=50, seed=seed, **DATA)
    stage = fit(SFT(CrossEntropy(), **settings(base, seed, 5e-3)), data, folder, epochs=6)
    stage.save_adapter(folder / "adapter")
    return stage


def reinforce(base: Path, folder: Path, seed: int, facts: World, m: float, adapter: Path) -> RL:
    """RL with 1, m and -1, from an adapter that sometimes abstains; each person is asked about once."""
    rows = []
    for person in range(LEARNED, LEARNED + PRACTISED):
        town = f"town{facts.true[person]}"
        rows.append({"prompt": f"person{person}", "responses": [], "answers": [town]})
    stage = RL(
        PolicyGradient(), Abstention(m, patterns=[UNSURE]), RLOO(), KLControl(0.0), Critic(), num_generations=8,
        log_samples_every=0, **settings(base, seed, 2e-3, adapter),
    )  # fmt: skip
    data = Prompts(written(folder / "rows.jsonl", rows), batch_size=32, seed=seed, **DATA)
    return fit(stage, data, folder)


@torch.no_grad()
def chances(stage: Any, role: str = "policy") -> Tensor:
    """Probability of each town and of "unsure" for all people, ``[people, towns + 1]``."""
    with stage.adapters.activate(role, training=False) as model:
        logits = model(input_ids=torch.arange(PEOPLE)[:, None]).logits[:, -1]
    return logits.softmax(-1)[:, PEOPLE : PEOPLE + TOWNS + 1]


def learn(seed: int) -> dict[str, Any]:
    """All arms in one world."""
    began, facts = process_time(), world(seed)
    held = slice(PEOPLE - HELD_OUT, PEOPLE)
    right = facts.true[held]
    arms: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = folder / "base"
        divergence = teach(facts, base, seed)
        towns = [f"town{town}" for town in facts.true[:LEARNED].tolist()]

        def keep(arm: str, stage: Any) -> None:
            probabilities = chances(stage)[held]
            is_right = probabilities.gather(1, right[:, None])[:, 0]
            arms[arm] = measure(probabilities[:, TOWNS], is_right, sure[held], MS)

        stage = imitate(base, folder / "answers", seed, towns)
        before = chances(stage, "reference")[:, :TOWNS]
        sure, guess = (before / before.sum(1, keepdim=True)).max(1)
        keep(ANSWERS, stage)
        rng = random.Random(seed)
        some = [UNSURE if rng.random() < 1 / 3 else town for town in towns]
        keep(LABELLER, imitate(base, folder / "labeller", seed, some))
        doubts = (sure[:LEARNED] < 0.5).tolist()
        own = [UNSURE if doubt else town for doubt, town in zip(doubts, towns, strict=True)]
        keep(MODEL, imitate(base, folder / "model", seed, own))
        for k, m in enumerate(MS):
            adapter = folder / "labeller/adapter"
            keep(ARMS[3 + k], reinforce(base, folder / f"rl{k}", seed, facts, m, adapter))
    is_right = (guess[held] == right).float()
    return {
        "seed": seed, "KL of the base from the statements": divergence, "arms": arms,
        "right by how sure": by_bin(is_right, sure[held]), "CPU seconds": round(process_time() - began, 1),
    }  # fmt: skip


if __name__ == "__main__":
    plot = partial(draw, ms=MS, file=FILE.with_suffix(".png"), title="Held-out people")
    beside = {"held out": HELD_OUT, "edges": EDGES.tolist()}
    measure_seeds(FILE, SEEDS, learn, plot, **beside)
