"""Small studies of what data, reward model and method are worth, in a language whose 57 answers can all be listed.

All of them share the setting of `tests.proofs.frontier`: gold is a function of the text, people choose with the noise
of Bradley and Terry, and KL and rewards are exact sums. ``python -m tests.proofs.studies`` runs them with three seeds
each, and writes ``studies.json`` and ``studies.png`` beside this file; with names behind it, only those run:

* ``methods``: DPO against RL on a reward model, on the same 40 pairs; gold at equal KL from the initial policy;
* ``noise``: none, a fifth and two fifths of the choices flipped, for a reward model (gold of the best of 16), and for
  DPO with and without the label noise in its loss (gold at one nat);
* ``size``: reward models of 4, 16 and 64 hidden units on the same 160 pairs (gold of the best of 16).

Best-of-n against RL, and rejection sampling, are in ``frontier.png``; fresh text against fresh labels in
``rounds.png``; IPO against DPO where one response always wins in ``ipo.png``.
"""

import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from lit_align.data.datamodules import Comparisons
from lit_align.evaluation.frontier import FrontierPoint
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.stages.preference import Preference
from lit_align.stages.sft import SFT
from lit_align.types import Group
from tests.proofs.frontier import (
    BEST_OF,
    PAIRS,
    QUIET,
    SEEDS,
    Listed,
    best_of,
    labelled,
    reinforce,
    reward_model,
    settings,
    write,
)
from tests.proofs.rounds import ANSWERS, PROMPT, spoken
from tests.tiny import words

HERE = Path(__file__).parent
FILE = HERE / "studies.json"
NATS = (0.25, 0.5, 1.0, 1.5)
FLIPPED = (0.0, 0.2, 0.4)
SIZES = (4, 16, 64)
EPOCHS = 30
N = BEST_OF.index(16)


def reference_of(base: Path, seed: int) -> Tensor:
    """Log-probabilities of all answers under the initial policy."""
    stage = SFT(CrossEntropy(), **settings(base, seed, 0.003))
    stage.configure_model()
    return spoken(stage, "reference")


def scores(judge: Any) -> Tensor:
    """What a reward model gives to all answers."""
    return judge([Group(PROMPT, list(ANSWERS))]).total.double()


def prefer(
    base: Path, folder: Path, rows: list[dict], watched: Listed, seed: int, noise: float = 0.0
) -> None:
    """DPO on the pairs themselves, far enough to pass the KL that is compared at."""
    stage = Preference(DPO(0.1), label_noise=noise, **settings(base, seed, 0.003))
    data = Comparisons(
        write(folder / "pairs.jsonl", rows), batch_size=16, token_budget=4096, seed=seed
    )
    Trainer(default_root_dir=folder, max_epochs=EPOCHS, callbacks=[watched], **QUIET).fit(
        stage, data
    )


def gold_at(points: list[FrontierPoint], nats: float) -> float | None:
    """Gold where a policy first is so far from the initial one, between two epochs; None if it never is."""
    for before, after in pairwise(points):
        if before.kl <= nats < after.kl:
            share = (nats - before.kl) / (after.kl - before.kl)
            return before.gold + share * (after.gold - before.gold)
    return None


def methods(base: Path, folder: Path, seed: int) -> dict[str, Any]:
    """DPO and RL from the same pairs."""
    reference = reference_of(base, seed)
    rows = labelled(reference, seed)
    judge = reward_model(base, folder / "judge", rows, seed)
    by_dpo, by_rl = (Listed(reference, scores(judge)) for _ in range(2))
    prefer(base, folder / "dpo", rows, by_dpo, seed)
    reinforce(base, folder / "rl", judge, by_rl, seed)
    traces = {"DPO": by_dpo.points, "RL": by_rl.points}
    return {
        name: {
            "initial": points[0].gold,
            "gold at nats": {str(nats): gold_at(points, nats) for nats in NATS},
            "path": [(each.kl, each.gold) for each in points],
        }
        for name, points in traces.items()
    }


def noise(base: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Clean and flipped choices."""
    reference = reference_of(base, seed)
    results: dict[str, Any] = {}
    for share in FLIPPED:
        rows = labelled(reference, seed, pairs=160, flipped=share)
        at = folder / f"noise{share}"
        proxy = scores(reward_model(base, at, rows, seed))
        results[str(share)] = {"best of 16": best_of(reference, proxy)[N].gold}
        for label, smoothing in (("DPO", 0.0), ("DPO, label noise", share)):
            watched = Listed(reference, proxy)
            prefer(base, at / label, rows, watched, seed, smoothing)
            results[str(share)][label] = gold_at(watched.points, 1.0)
    return results


def size(base: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Small and large reward models."""
    reference = reference_of(base, seed)
    rows = labelled(reference, seed, pairs=160)
    results = {}
    for hidden in SIZES:
        other = words(folder / f"base{hidden}")
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=8, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, eos_token_id=7, bos_token_id=None, initializer_range=0.2,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(other)
        proxy = scores(reward_model(other, folder / f"judge{hidden}", rows, seed))
        chosen = best_of(reference, proxy)
        results[str(hidden)] = {
            "best of 16": chosen[N].gold,
            "largest gold": max(each.gold for each in chosen),
        }
    return results


STUDIES = {"methods": methods, "noise": noise, "size": size}


def draw(found: dict[str, Any]) -> None:
    """A panel for each study: paths with the points at equal KL, then means of the seeds as lines, seeds as dots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    if "methods" in found:
        for k, name in enumerate(("DPO", "RL")):
            for number, run in enumerate(found["methods"]):
                kl, gold = np.array(run[name]["path"]).T
                axes[0].plot(
                    kl, gold, f"C{k}", lw=0.6, alpha=0.6, label=name if number == 0 else None
                )
                at_equal = run[name]["gold at nats"]
                axes[0].plot(
                    list(map(float, at_equal)), list(at_equal.values()), f"C{k}o", markersize=4
                )
        axes[0].set(title=f"DPO and RL, the same {PAIRS} pairs", xlabel="KL, nats", xlim=(0, 2.5))
    if "noise" in found:
        for k, name in enumerate(("best of 16", "DPO", "DPO, label noise")):
            table = [[run[str(share)][name] for share in FLIPPED] for run in found["noise"]]
            _lines(axes[1], FLIPPED, table, name, k)
        axes[1].set(title="Flipped labels, 160 pairs", xlabel="share of choices that are flipped")
    if "size" in found:
        for k, name in enumerate(("best of 16", "largest gold")):
            table = [[run[str(hidden)][name] for hidden in SIZES] for run in found["size"]]
            label = "best of n, the best n" if k else name
            _lines(axes[2], SIZES, table, label, k)
        axes[2].set(
            title="Size of the reward model, 160 pairs", xlabel="hidden units", xscale="log"
        )
        axes[2].set_xticks(SIZES, map(str, SIZES))
        axes[2].minorticks_off()
    for axis in axes:
        axis.set_ylabel("gold reward, mean over answers")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.savefig(HERE / "studies.png", dpi=110)
    plt.close(figure)


def _lines(
    axis: Any, places: tuple[float, ...], table: list[list[float | None]], label: str, k: int
) -> None:
    values = np.array(table, float)
    axis.plot(places, values.mean(0), f"C{k}", label=label)  # no line where a seed has no value
    for row in values:
        axis.plot(places, row, "o", color=f"C{k}", markersize=4, alpha=0.6)


def main(names: list[str]) -> None:
    """Run what is named, or all; keep what is there of the rest, draw."""
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in names or STUDIES:
        began, runs = process_time(), []
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as at:
                folder = Path(at)
                runs.append(STUDIES[name](words(folder / "model"), folder, seed))
        found[name] = runs
        print(name, f"{process_time() - began:.0f} CPU s", flush=True)
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        draw(found)


if __name__ == "__main__":
    main(sys.argv[1:])
