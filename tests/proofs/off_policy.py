"""When does it matter how an objective bounds the ratio? Where samples are learned from often, or are stale.

``python -m tests.proofs.off_policy`` trains a table of logits by every policy objective, with the project's objectives,
advantages and importance weights, on answers of two of eight words that can all be listed: what is earned, and the
distance to the optimum π* ∝ ρ exp(r / β), are exact. Three regimes, three seeds: one update of fresh samples, four
updates of the same samples, and four updates of samples of the policy that was there an iteration before. Figures go to
``off_policy.json`` and ``off_policy.png`` beside this file.
"""

import json
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from lit_align.advantages import Rollouts
from lit_align.advantages.rloo import RLOO
from lit_align.functional.importance import truncated_importance_weights
from lit_align.objectives import PolicyObjective, PolicyTokens
from lit_align.objectives.cispo import CISPO
from lit_align.objectives.dppo import DPPO
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.objectives.ppo import PPO

HERE = Path(__file__).parent
FILE = HERE / "off_policy.json"
sys.path.append(str(HERE.parents[1] / "plugins/lit-align-zoo"))

from lit_align_zoo.gmpo import GMPO  # noqa: E402 - from its folder
from lit_align_zoo.sapo import SAPO  # noqa: E402
from lit_align_zoo.vespo import VESPO  # noqa: E402

OBJECTIVES: dict[str, PolicyObjective] = {
    "REINFORCE": PolicyGradient(),
    "PPO": PPO(),
    "CISPO": CISPO(),
    "DPPO": DPPO(),
    "SAPO": SAPO(),
    "GMPO": GMPO(),
    "VESPO": VESPO(),
}


class Regime(NamedTuple):
    """How samples are learned from.

    Args:
        updates: of the same samples.
        stale: whether they are of the policy of the iteration before.
    """

    updates: int
    stale: bool


REGIMES = {
    "1 update, fresh": Regime(1, stale=False),
    "4 updates, fresh": Regime(4, stale=False),
    "4 updates, stale": Regime(4, stale=True),
}
SEEDS = (1, 2, 3)
VOCABULARY, SAMPLES, ITERATIONS, LAST, BETA, CAP = 8, 64, 80, 20, 0.2, 2.0
RATES = (0.05, 0.2)
"""Of Adam, for each logit: a usual one, and one that is too high."""


class Table:
    """Log-probabilities of two words, the second after each first.

    Args:
        seed: of the logits that it starts from, which are the reference.
    """

    def __init__(self, seed: int) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(1 + VOCABULARY, VOCABULARY, generator=self.draw)
        self.logits.requires_grad_()
        self.reference = self.logits.detach().clone()
        self.rewards = torch.rand(VOCABULARY, VOCABULARY, generator=self.draw).round(decimals=2)

    def all_logps(self, logits: Tensor) -> Tensor:
        """Of every answer, ``[V, V]``."""
        logps = logits.log_softmax(-1)
        return logps[0][:, None] + logps[1:]

    def token_logps(self, logits: Tensor, answers: Tensor) -> Tensor:
        """Of the words of answers, ``[n, 2]``."""
        first, second = answers.T
        logps = logits.log_softmax(-1)
        return torch.stack([logps[0, first], logps[1 + first, second]], 1)

    def sample(self, logits: Tensor) -> Tensor:
        """Answers, ``[n, 2]``."""
        share = self.all_logps(logits).exp().flatten()
        drawn = torch.multinomial(share, SAMPLES, replacement=True, generator=self.draw)
        return torch.stack([drawn // VOCABULARY, drawn % VOCABULARY], 1)

    def optimum(self) -> Tensor:
        """Log-probabilities under π*, ``[V * V]``."""
        tilted = self.all_logps(self.reference) + self.rewards / BETA
        return tilted.flatten().log_softmax(-1)


def advantages_of(table: Table, answers: Tensor, logps: Tensor) -> Tensor:
    """RLOO of the reward and the KL penalty, as the stage pays them, ``[n, 2]``."""
    penalty = BETA * (logps - table.token_logps(table.reference, answers))
    rewards = -penalty
    rewards[:, 1] += table.rewards[answers[:, 0], answers[:, 1]]
    mask, prompt = torch.ones_like(rewards).bool(), torch.zeros(len(answers)).long()
    return RLOO()(Rollouts(rewards, mask, prompt, 0 * rewards, torch.tensor(0.0)))


def train(objective: PolicyObjective, seed: int, regime: Regime, rate: float) -> dict:
    """One run: the exact distance to the optimum, and how far the policy went within a batch."""
    table = Table(seed)
    optimizer, goal = torch.optim.Adam([table.logits], lr=rate), table.optimum()
    owner = torch.arange(SAMPLES).repeat_interleave(2)
    before, distances, moves = table.reference, [], []
    for _ in range(ITERATIONS):
        now = table.logits.detach().clone()
        sampler = before if regime.stale else now
        answers = table.sample(sampler)
        old, sampled = (table.token_logps(logits, answers) for logits in (now, sampler))
        advantages = advantages_of(table, answers, old.clone()).flatten()
        weights = truncated_importance_weights(old.flatten(), sampled.flatten(), CAP)
        for _ in range(regime.updates):
            logps = table.token_logps(table.logits, answers).flatten()
            reference = table.token_logps(table.reference, answers).flatten()
            tokens = PolicyTokens(logps, old.flatten(), reference, owner, sampler=sampled.flatten())
            optimizer.zero_grad()
            (objective(tokens, advantages) * weights).mean().backward()
            optimizer.step()
        before = now
        policy = table.all_logps(table.logits.detach()).flatten()
        distances.append(kl_div(goal, policy, log_target=True, reduction="sum").item())
        started = table.all_logps(now).flatten()
        moves.append(kl_div(policy, started, log_target=True, reduction="sum").item())
    return {"distance": distances, "moved": fmean(moves)}


def summary(runs: list[dict]) -> dict[str, float]:
    """Over the seeds: mean and deviation of the distance at the end, the worst after the start, and the drift."""
    ends = [fmean(run["distance"][-LAST:]) for run in runs]
    values = {
        "end": fmean(ends),
        "sd": stdev(ends),
        "worst": max(max(run["distance"][LAST:]) for run in runs),
        "moved": fmean(run["moved"] for run in runs),
    }
    return {name: round(value, 5) for name, value in values.items()}


def draw(curves: dict) -> None:
    """The distance by iteration, a mean over seeds: a column a regime, a row a learning rate."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shape = len(RATES), len(REGIMES)
    figure, axes = plt.subplots(*shape, figsize=(11, 6), sharey=True, layout="constrained")
    for row, rate in zip(axes, RATES, strict=True):
        for axis, regime in zip(row, REGIMES, strict=True):
            for name in OBJECTIVES:
                of_seeds = curves[f"{rate}"][regime][name]
                means = [fmean(values) for values in zip(*of_seeds, strict=True)]
                axis.plot(range(1, len(means) + 1), means, label=name, linewidth=1.2)
            axis.set(title=f"{regime}, rate {rate}", xlabel="iteration", yscale="log")
            axis.grid(alpha=0.3)
        row[0].set_ylabel("KL(policy || optimum), nats")
    axes[0][0].legend(fontsize=7)
    figure.savefig(HERE / "off_policy.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Run everything, keep the figures, draw."""
    began = time.process_time()
    summaries: dict = {}
    curves: dict = {}
    for rate in RATES:
        for regime, how in REGIMES.items():
            for name, objective in OBJECTIVES.items():
                runs = [train(objective, seed, how, rate) for seed in SEEDS]
                kept = [[round(value, 6) for value in run["distance"]] for run in runs]
                curves.setdefault(f"{rate}", {}).setdefault(regime, {})[name] = kept
                found = summary(runs)
                summaries.setdefault(f"{rate}", {}).setdefault(regime, {})[name] = found
                print(rate, regime, name, found, flush=True)
    settings = {"iterations": ITERATIONS, "samples": SAMPLES, "beta": BETA, "seeds": SEEDS}
    spent = round(time.process_time() - began)
    record = {"settings": settings, "summary": summaries, "curves": curves, "cpu_seconds": spent}
    FILE.write_text(json.dumps(record) + "\n")
    draw(curves)


if __name__ == "__main__":
    main()
