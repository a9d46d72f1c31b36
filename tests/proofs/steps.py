"""A process reward model finds the first error of a sum, and teaches in fewer samples than the outcome alone.

``python -m tests.proofs.steps``, with some of the seeds after it for these alone, trains a Llama of two layers on sums
of five digits modulo 5, written as a chain of four additions: first on right ones, then on chains in which each result
is right with probability 0.65, and wrong ones are carried on. Then, with LoRA:

* a process reward model learns from 1500 chains that are labelled up to the first error, and is asked for the place of
  the first error in 300 others (or that there is none). Chance is the most common place;
* it chooses the best of 8 sampled chains, by each way to make one score of those of steps;
* RL is rewarded by whether the last result is right, by the steps, or by both: each step is paid how much it changes
  the score so far, at the token where it ends. Critic, advantages (GAE) and all other settings are the same. No prompt
  is seen twice, so that the share of right results in each iteration is that on unseen prompts.

Three seeds, each with a model of its own. Figures go to ``steps.json`` and ``steps.png`` beside this file.
"""

import json
import random
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from lit_align.advantages.gae import GAE
from lit_align.data.datamodules import Prompts
from lit_align.data.labelled_steps import Steps
from lit_align.functional.step_scores import running_aggregates
from lit_align.jsonl import write_jsonl
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.ppo import PPO
from lit_align.objectives.step_cross_entropy import StepCrossEntropy
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import response_text
from lit_align.rewards.process import ProcessScore
from lit_align.rewards.weighted import Weighted
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.stage import RL
from lit_align.stages.process_reward_model import ProcessRewardModel
from lit_align.types import Group
from tests.proofs.experiments import QUIET, measure_seeds, untrained_llama

HERE = Path(__file__).parent
FIGURES = HERE / "steps.json"
SEEDS = (1, 2, 3)
BASE = 5
WORDS = [*map(str, range(BASE)), "+", "=", ";", "?", "<end>"]
DIGITS, RIGHT, RIGHT_STEPS, TEACHING = 5, 0.65, 250, 500
ROWS, HELD_OUT, BEST_OF = 1500, 300, 8
PROMPTS, GENERATIONS, ITERATIONS = 32, 4, 20
AGGREGATES = ("min", "product", "last", "mean")
OUTCOME, STEPS, BOTH = "outcome", "steps", "steps and outcome"
ARMS = {OUTCOME: (0.0, 1.0), STEPS: (1.0, 0.0), BOTH: (1.0, 1.0)}
"""Weights of the score of steps and of whether the last result is right."""


def prompt_of(digits: list[int]) -> str:
    """A sum to compute."""
    return " ".join(map(str, digits)) + " ?"


def chain(
    digits: list[int], draw: random.Random, right: float = RIGHT
) -> tuple[list[str], list[bool]]:
    """Additions from left to right, each right with probability ``right``, and whether all is right so far."""
    value, total, steps, labels = digits[0], digits[0], [], []
    for digit in digits[1:]:
        result = (value + digit) % BASE
        if draw.random() > right:
            result = (result + draw.randrange(1, BASE)) % BASE
        steps.append(f"{value} + {digit} = {result}")
        total = (total + digit) % BASE
        labels.append(steps[-1].endswith(str(total)) and all(labels))
        value = result
    return steps, labels


def draw_digits(draw: random.Random) -> list[int]:
    """A sum's digits."""
    return [draw.randrange(BASE) for _ in range(DIGITS)]


def teach(folder: Path, seed: int) -> None:
    """Write a Llama into ``folder`` that writes such chains."""
    vocabulary = {word: k for k, word in enumerate(WORDS)}
    model = untrained_llama(folder, WORDS, seed, 48, initializer_range=0.1)
    draw = random.Random(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=TEACHING)
    for number in range(TEACHING):
        rows = []
        for _ in range(64):
            digits = draw_digits(draw)
            steps, _ = chain(
                digits, draw, 1.0 if number < RIGHT_STEPS else RIGHT
            )  # what is right comes first
            text = f"{prompt_of(digits)} {' ; '.join(steps)} <end>"
            rows.append([vocabulary[word] for word in text.split()])
        ids = torch.tensor(rows)
        logits = model(input_ids=ids).logits[:, DIGITS:-1]
        target = ids[:, DIGITS + 1 :]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)


def settings(base: Path, seed: int, lr: float) -> dict[str, Any]:
    """Settings of a stage."""
    return {
        "base": Base(str(base), "none", "float32"), "lora": Lora(r=16, alpha=32), "seed": seed,
        "optimizer": partial(torch.optim.AdamW, lr=lr, weight_decay=0.0), "gradient_checkpointing": False,
        "max_new_tokens": 6 * (DIGITS - 1),
    }  # fmt: skip


def train_scorer(base: Path, folder: Path, seed: int) -> ProcessRewardModel:
    """A process reward model, saved in ``folder/scorer``."""
    draw, rows = random.Random(100 + seed), []
    for _ in range(ROWS):
        digits = draw_digits(draw)
        steps, labels = chain(digits, draw)
        rows.append({"prompt": prompt_of(digits), "completions": steps, "labels": labels})
    file = folder / "labelled.jsonl"
    write_jsonl(file, rows)
    stage = ProcessRewardModel(StepCrossEntropy(), **settings(base, seed, 3e-3))
    data = Steps(
        str(file), step_separator=" ;", learned_steps="to_first_error", batch_size=64, token_budget=4096, max_length=48,
        seed=seed,
    )  # fmt: skip
    Trainer(default_root_dir=folder, max_epochs=6, **QUIET).fit(stage, data)
    stage.save_adapter(folder / "scorer")
    return stage


def first_errors(scorer: ProcessScore, seed: int) -> dict[str, float]:
    """How often the first step that is held wrong is the first wrong one."""
    draw, hits, places = random.Random(200 + seed), [], []
    for _ in range(HELD_OUT):
        digits = draw_digits(draw)
        steps, labels = chain(digits, draw)
        group = Group(prompt_of(digits), [" ; ".join(steps)])
        scores = scorer.step_scores([group])[0]
        held = next((k for k, score in enumerate(scores) if score < 0.5), len(steps))
        place = labels.index(False) if False in labels else len(steps)
        hits.append(held == place)
        places.append(place)
    return {"found": float(np.mean(hits)), "chance": max(np.bincount(places)) / len(places)}


@dataclass(frozen=True)
class Outcome(Reward):
    """1 for a right last result."""

    curve: list[float] = field(default_factory=list)

    def __call__(self, groups):
        scores = []
        for group in groups:
            digits = [int(word) for word in group.prompt.split()[:-1]]
            for response in group.responses:
                last = response_text(response).split()[-1:]
                scores.append(float(last == [str(sum(digits) % BASE)]))
        self.curve.append(float(np.mean(scores)))
        return Scores(torch.tensor(scores))


def best_of(
    stage: ProcessRewardModel, scorer: ProcessScore, base: Path, seed: int
) -> dict[str, float]:
    """Share of right results among all samples, and among the chosen of each way to score."""
    draw = random.Random(300 + seed)
    groups = [Group(prompt_of(draw_digits(draw)), []) for _ in range(64)]
    texts = stage.responder.answer_groups(
        groups, role="reference", num_generations=BEST_OF, temperature=1.0
    )
    answered = [group._replace(responses=row) for group, row in zip(groups, texts, strict=True)]
    is_right = Outcome()(answered).total.view(-1, BEST_OF)
    scores = scorer.step_scores(answered)
    found = {"any": is_right.mean().item(), "oracle": is_right.max(1).values.mean().item()}
    for aggregate in AGGREGATES:
        totals = torch.tensor([running_aggregates(row, aggregate)[-1] for row in scores])
        chosen = totals.view(-1, BEST_OF).argmax(1)
        found[aggregate] = is_right.gather(1, chosen[:, None]).mean().item()
    return found


def reinforce(base: Path, folder: Path, seed: int, arm: str) -> list[float]:
    """Share of right results in each iteration."""
    draw = random.Random(400 + seed)
    rows = [{"prompt": prompt_of(draw_digits(draw))} for _ in range(PROMPTS * ITERATIONS)]
    file = folder / f"{arm}.jsonl"
    write_jsonl(file, rows)
    outcome = Outcome()
    reward: Reward = outcome
    if arm != OUTCOME:
        scorer = ProcessScore(str(folder / "scorer"), aggregate="min", credit="steps")
        reward = Weighted([scorer, outcome], list(ARMS[arm]))
    stage = RL(
        PPO(), reward, GAE(gamma=1.0, lam=0.95), KLControl(0.0), Critic(), num_generations=GENERATIONS,
        log_samples_every=0, **settings(base, seed, 3e-3),
    )  # fmt: skip
    data = Prompts(str(file), batch_size=PROMPTS, token_budget=8192, max_length=48, seed=seed)
    Trainer(default_root_dir=folder / arm, max_epochs=1, **QUIET).fit(stage, data)
    return outcome.curve


def learn(seed: int) -> dict[str, Any]:
    """All of one seed."""
    began = process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = folder / "base"
        teach(base, seed)
        stage = train_scorer(base, folder, seed)
        scorer = ProcessScore(str(folder / "scorer"))
        run = {
            "seed": seed,
            "first error": first_errors(scorer, seed),
            "best of": best_of(stage, scorer, base, seed),
        }
        print(json.dumps(run), round(process_time() - began, 1), flush=True)
        run["right"] = {arm: reinforce(base, folder, seed, arm) for arm in ARMS}
    last = {arm: float(np.mean(curve[-5:])) for arm, curve in run["right"].items()}
    until = {arm: samples_until(curve, 0.5) for arm, curve in run["right"].items()}
    return {
        **run, "CPU seconds": round(process_time() - began, 1), "right at the end": last,
        "samples until half are right": until,
    }  # fmt: skip


def smoothed(curve: list[float], width: int = 5) -> np.ndarray:
    """Means over ``width`` iterations."""
    return np.convolve(curve, np.ones(width) / width, "valid")


def samples_until(curve: list[float], share: float) -> int | None:
    """Samples until the mean of five iterations is ``share``; None if it never is."""
    reached = np.flatnonzero(smoothed(curve) >= share)
    return int((reached[0] + 5) * PROMPTS * GENERATIONS) if len(reached) else None


def draw_curves(runs: list[dict[str, Any]]) -> None:
    """Share of right results by samples."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for color, arm in enumerate(ARMS):
        curves = np.array([smoothed(run["right"][arm]) for run in runs])
        samples = (np.arange(curves.shape[1]) + 5) * PROMPTS * GENERATIONS
        axis.plot(samples, curves.mean(0), color=f"C{color}", label=f"rewarded by {arm}")
        axis.fill_between(samples, curves.min(0), curves.max(0), color=f"C{color}", alpha=0.15)
    axis.set(xlabel="samples", ylabel="share of right results", title="Unseen sums; range of seeds")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(HERE / "steps.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    measure_seeds(FIGURES, [int(word) for word in sys.argv[1:]] or SEEDS, learn, draw_curves)
