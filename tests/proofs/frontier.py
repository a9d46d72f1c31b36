"""Does gold turn while the proxy rises? Best-of-n, rejection sampling and RL on one axis, with exact KL and rewards.

The language is that of `tests.proofs.rounds`: 57 answers to one prompt, which can all be listed, so that the KL from
the initial policy and the mean of both rewards are sums, not estimates. Gold is a function of the text. The proxy is
a RewardModel of two layers that has learned from 40 pairs of the initial policy, each labelled once with the noise of
Bradley and Terry.

``python -m tests.proofs.frontier`` trains, with three seeds, a reward model; a policy by RL (RLOO, no KL penalty);
and another by rejection sampling (the best of 8 by the proxy, SFT, in rounds). Best-of-n needs no training: the
distribution of the best of n is known for every n. Beside them is the best that any policy can do for the proxy at a
KL, π ∝ π0 exp(proxy / β). Figures go to ``frontier.json`` and ``frontier.png`` beside this file, with the curves that
``lit-align evaluate frontier`` fits.
"""

import json
import random
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lit_align.advantages.rloo import RLOO
from lit_align.data.datamodules import Comparisons, Prompts
from lit_align.evaluation.frontier import (
    BEST_OF_N,
    RL_ITERATIONS,
    FrontierPoint,
    FrontierRun,
    summarize,
)
from lit_align.feedback.from_reward import FromReward
from lit_align.functional.best_of import best_of_kl
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.online.datamodule import Online
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.rewards.weighted import Weighted
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.stage import RL
from lit_align.stages.reward_model import RewardModel
from lit_align.stages.sft import SFT
from tests.proofs.experiments import QUIET
from tests.proofs.rounds import ANSWERS, PROMPT, gold, ids, spoken
from tests.tiny import words

HERE = Path(__file__).parent
SEEDS = (1, 2, 3)
PAIRS, ITERATIONS, ROUNDS = 40, 60, 12
BEST_OF = [2**k for k in range(13)]
REJECTION, OPTIMUM = "rejection sampling", "closed form"


@dataclass(frozen=True)
class Gold(Reward):
    """What an answer is worth."""

    def __call__(self, groups):
        texts = [response_text(response) for group in groups for response in group.responses]
        return Scores(torch.tensor([gold(text) for text in texts]))


def settings(base: Path, seed: int, lr: float) -> dict[str, Any]:
    """Settings of a stage."""
    return {
        "base": Base(str(base), "none", "float32"), "lora": Lora(r=8), "max_new_tokens": 2, "seed": seed,
        "gradient_checkpointing": False, "optimizer": partial(torch.optim.Adam, lr=lr),
    }  # fmt: skip


def write(file: Path, rows: list[dict]) -> str:
    """Lines of JSON in a folder of their own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def labelled(reference: Tensor, seed: int, pairs: int = PAIRS, flipped: float = 0.0) -> list[dict]:
    """Pairs of different answers that are not empty, each with one choice; a share of the choices is flipped."""
    draw, rows = random.Random(seed), []
    weights = reference.exp().tolist()
    while len(rows) < pairs:
        a, b = draw.choices(ANSWERS, weights, k=2)
        chance = torch.tensor(gold(a) - gold(b)).sigmoid().item()
        if a and b and a != b:
            is_better = (draw.random() < chance) != (draw.random() < flipped)
            pair = [0, 1] if is_better else [1, 0]
            responses = {"responses": [a, b], "tokens": [ids(a), ids(b)]}
            rows.append({"prompt": PROMPT, "pairs": [pair], **responses})
    return rows


def reward_model(base: Path, folder: Path, rows: list[dict], seed: int) -> RewardModelScore:
    """What learned from the pairs."""
    stage = RewardModel(BradleyTerry(), **settings(base, seed, 0.01))
    data = Comparisons(
        write(folder / "pairs.jsonl", rows), batch_size=16, token_budget=4096, seed=seed
    )
    Trainer(default_root_dir=folder, max_epochs=10, **QUIET).fit(stage, data)
    stage.save_adapter(folder / "adapter")
    return RewardModelScore(str(folder / "adapter"))


class Listed(Callback):
    """Notes the exact point of the policy at the end of each epoch.

    Args:
        reference: log-probabilities of all answers under the initial policy.
        proxy: of all answers.
    """

    def __init__(self, reference: Tensor, proxy: Tensor) -> None:
        self.reference, self.proxy = reference, proxy
        self.points = [point(reference, reference, proxy, "initial")]

    def on_train_epoch_end(self, trainer, module):
        logps = spoken(module)
        label = f"epoch {trainer.current_epoch + 1}"
        self.points.append(point(logps, self.reference, self.proxy, label))


def point(logps: Tensor, reference: Tensor, proxy: Tensor, label: str) -> FrontierPoint:
    """KL and mean rewards of a policy, from the log-probabilities of all answers."""
    golds = torch.tensor([gold(answer) for answer in ANSWERS]).double()
    chances = logps.exp()
    kl = (chances * (logps - reference)).sum().item()
    return FrontierPoint(kl, (chances * proxy).sum().item(), (chances * golds).sum().item(), label)


def best_of(reference: Tensor, proxy: Tensor) -> tuple[FrontierPoint, ...]:
    """The best of n answers for every n, by the proxy, whose answers all have scores of their own."""
    order = proxy.argsort()
    upper = reference[order].exp().cumsum(0)
    points = []
    for n in BEST_OF:
        chances = (upper / upper[-1]) ** n
        chances = torch.cat([chances[:1], chances.diff()]).clamp(min=1e-300)
        logps = torch.empty_like(reference)
        logps[order] = chances.log()
        points.append(point(logps, reference, proxy, f"n = {n}"))
    return tuple(points)


def optimum(reference: Tensor, proxy: Tensor) -> tuple[FrontierPoint, ...]:
    """The policies with the highest proxy at each KL."""
    points = []
    for power in range(-8, 13):
        strength = 2.0 ** (power / 2)
        logps = (reference + strength * proxy).log_softmax(-1)
        points.append(point(logps, reference, proxy, f"1/β = {strength:.3g}"))
    return tuple(points)


def reinforce(base: Path, folder: Path, judge: Reward, watched: Listed, seed: int) -> None:
    """RL on the proxy; gold has weight 0."""
    stage = RL(
        PolicyGradient(), Weighted([judge, Gold()], [1.0, 0.0]), RLOO(), KLControl(0.0), Critic(),
        num_generations=64, log_samples_every=0, **settings(base, seed, 0.003),
    )  # fmt: skip
    rows = write(folder / "prompts.jsonl", [{"prompt": PROMPT}] * 4)
    data = Prompts(rows, batch_size=4, token_budget=8192, seed=seed)
    Trainer(default_root_dir=folder, max_epochs=ITERATIONS, callbacks=[watched], **QUIET).fit(
        stage, data
    )


def reject(base: Path, folder: Path, judge: Reward, watched: Listed, seed: int) -> None:
    """SFT on the best of 8 fresh answers by the proxy, in rounds."""
    stage = SFT(CrossEntropy(), **settings(base, seed, 0.003))
    rows = write(folder / "prompts.jsonl", [{"prompt": PROMPT}] * 32)
    data = Online(
        rows, FromReward(judge), num_generations=8, rounds=ROUNDS, round_size=32, batch_size=8, token_budget=8192,
        seed=seed,
    )  # fmt: skip
    Trainer(default_root_dir=folder, callbacks=[watched], **QUIET).fit(stage, data)


def sampled_divergence(reference: Tensor, proxy: Tensor, n: int, samples: int) -> float:
    """The KL of best-of-n as the command estimates it from samples."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(reference.exp(), samples, replacement=True, generator=generator)
    return best_of_kl(proxy[drawn].tolist(), n)


def learn(seed: int) -> tuple[list[FrontierRun], dict[str, Any]]:
    """All methods against one reward model."""
    began = process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = words(folder / "model")
        stage = SFT(CrossEntropy(), **settings(base, seed, 0.003))
        stage.configure_model()
        reference = spoken(stage, "reference")
        judge = reward_model(base, folder / "judge", labelled(reference, seed), seed)
        proxy = judge([Group(PROMPT, list(ANSWERS))]).total.double()
        by_rl, by_rejection = Listed(reference, proxy), Listed(reference, proxy)
        reinforce(base, folder / "rl", judge, by_rl, seed)
        reject(base, folder / "sft", judge, by_rejection, seed)
    golds = torch.tensor([gold(answer) for answer in ANSWERS]).double()
    best = best_of(reference, proxy)
    runs = [
        FrontierRun(f"seed {seed}", RL_ITERATIONS, tuple(by_rl.points)),
        FrontierRun(f"seed {seed}", REJECTION, tuple(by_rejection.points)),
        FrontierRun(f"seed {seed}", BEST_OF_N, best),
        FrontierRun(f"seed {seed}", OPTIMUM, optimum(reference, proxy)),
    ]
    exact = best[BEST_OF.index(64)]
    facts = {
        "seed": seed,
        "correlation of proxy and gold": torch.corrcoef(torch.stack([proxy, golds]))[0, 1].item(),
        "KL of the best of 64": {
            "exact": exact.kl,
            "log n - (n - 1) / n": torch.tensor(64.0).log().item() - 63 / 64,
            "of 256 samples": sampled_divergence(reference, proxy, 64, 256),
        },
        "highest gold of any answer": golds.max().item(),
        "CPU seconds": round(process_time() - began, 1),
    }
    return runs, facts


def draw(runs: list[FrontierRun]) -> None:
    """A column for each seed, gold above and proxy below, along the path of each method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(SEEDS), figsize=(11, 5.5), layout="constrained", sharex=True)
    styles = {RL_ITERATIONS: "o-", REJECTION: "s-", BEST_OF_N: "^-", OPTIMUM: "k-"}
    for run in runs:
        column = SEEDS.index(int(run.name.removeprefix("seed ")))
        kl = [each.kl for each in run.points]
        for axis, kind in zip(axes[:, column], ("gold", "proxy"), strict=True):
            values = [getattr(each, kind) for each in run.points]
            label = "π0 exp(proxy / β)" if run.method == OPTIMUM else run.method
            axis.plot(kl, values, styles[run.method], markersize=3, lw=1, alpha=0.8, label=label)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(run.name)
        axes[1, column].set_xlabel("KL from the initial policy, nats")
    axes[0, 0].set_ylabel("gold, mean over answers")
    axes[1, 0].set_ylabel("proxy, mean over answers")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(HERE / "frontier.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """All seeds."""
    runs: list[FrontierRun] = []
    facts = []
    for seed in SEEDS:
        more, known = learn(seed)
        runs += more
        facts.append(known)
        print(json.dumps(known), flush=True)
        found = {"seeds": facts, "runs": [summarize(run) for run in runs]}
        (HERE / "frontier.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(runs)


if __name__ == "__main__":
    main()
