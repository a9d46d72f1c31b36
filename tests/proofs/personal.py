"""Whom does a reward model of everyone serve? Two simulated tastes in conflict.

``python -m tests.proofs.personal`` trains reward models with one head and with a head for each person on simulated
votes, three seeds, and a policy for each of two people from the one of all. The language is that of
`tests.proofs.rounds`. Names of parts, such as ``'seed 0'``, measure these alone; the figures of all that are measured
go to ``personal.json`` beside this file. A seed takes a minute of one core.

The intervals in the file that is there are percentiles of resampled people alone. Those of a new run reach as far as
Student's t, with eight people about 1.3 times as far (2.36 sqrt(8 / 7) / 1.96), and where two models are right equally
often for everyone, as in agreed votes of seeds 0 and 1, it has none in place of [0.0, 0.0].
"""

import json
import logging
import math
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from lit_align.data.datamodules import Comparisons
from lit_align.evaluation.personal import personal_report, personal_verdicts
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.models.personal_head import load_shifts
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.dpo import DPO
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.personal_reward_model import PersonalRewardModel
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from lit_align.types import Group, Pair
from tests.proofs.rounds import ANSWERS, PROMPT, spoken
from tests.tiny import words

HERE = Path(__file__).parent
PARTS = HERE.parents[1] / ".cache/proofs/personal"
"""What is measured already; delete it to measure again."""
SEEDS = (0, 1, 2)
VOTES = (4, 16, 64, 256)
"""Training votes of the people of each taste."""
HELD_OUT, EPOCHS, BATCH = 200, 10, 40
SHRINKAGE = (0.1, 1.0, 10.0)
TASTES = {"warm": 2.0, "cold": -2.0}
PEOPLE = {f"{taste}{votes}": (taste, votes) for taste in TASTES for votes in VOTES}


def worth(text: str, taste: str) -> float:
    """All like an a or a c; half of the people like an end in b or e, and the others dislike it as much."""
    shared = float("a" in text or "c" in text)
    return shared + TASTES[taste] * text.endswith(("b", "e"))


def draw_pairs(draw: random.Random, count: int) -> list[tuple[str, str]]:
    """Two answers each, which differ."""
    return [tuple(draw.sample(ANSWERS[1:], 2)) for _ in range(count)]


def votes_of(
    name: str, taste: str, pairs: list[tuple[str, str]], draw: random.Random
) -> list[dict]:
    """What that person prefers, as Bradley and Terry have it, with what is true beside it."""
    rows = []
    for pair in pairs:
        first, second = (worth(text, taste) for text in pair)
        better = int(draw.random() >= 1 / (1 + math.exp(second - first)))
        row = {"prompt": PROMPT, "responses": [*pair], "pairs": [[better, 1 - better]]}
        rows.append({**row, "annotator": name, "true": [first, second]})
    return rows


def are_disputed(row: dict) -> bool:
    """Whether the tastes, which are opposite, are all that tells the two answers apart."""
    first, second = (sum(worth(text, taste) for taste in TASTES) for text in row["responses"])
    warm = [worth(text, "warm") for text in row["responses"]]
    return first == second and warm[0] != warm[1]


def fit(module, rows: list[dict], folder: Path, epochs: int = EPOCHS, **settings) -> Path:
    """Train, and the folder of the adapter."""
    folder.mkdir(parents=True)
    file = folder / "votes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Comparisons(
        str(file), batch_size=BATCH, token_budget=100_000, ignore_columns=["true"], **settings
    )
    trainer = Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, data)
    module.save_adapter(folder / "adapter")
    return folder / "adapter"


def settings_of(base: Path, seed: int, **more) -> dict:
    """What all stages share."""
    return {
        "base": Base(str(base), "none", "float32"), "lora": Lora(r=8), "seed": seed,
        "gradient_checkpointing": False, "optimizer": partial(torch.optim.Adam, lr=0.01), **more,
    }  # fmt: skip


def groups_of(rows: list[dict]) -> list[Group]:
    return [
        Group(row["prompt"], row["responses"], (Pair(*row["pairs"][0]),), annotator=row["annotator"],
              extra={"true": row["true"]})
        for row in rows
    ]  # fmt: skip


def measure(personal: Path, pooled: Path, rows: list[dict]) -> dict:
    """Accuracies on held-out votes, as ``evaluate personal`` reports them."""
    reward = RewardModelScore(str(personal), by_annotator=True)
    verdicts = personal_verdicts(
        reward, RewardModelScore(str(pooled)), groups_of(rows), 512, "true"
    )
    _, annotators = load_shifts(personal)
    return personal_report(verdicts, dict(zip(annotators.keys, annotators.votes, strict=True)))


def simulated(base: Path, folder: Path, seed: int) -> dict:
    """One seed: reward models of both kinds, and policies."""
    draw = random.Random(seed)
    train, held_out = [], []
    for name, (taste, count) in PEOPLE.items():
        train += votes_of(name, taste, draw_pairs(draw, count), draw)
        held_out += votes_of(name, taste, draw_pairs(draw, HELD_OUT), draw)
    settings = settings_of(base, seed)
    pooled = fit(RewardModel(BradleyTerry(), **settings), train, folder / "pooled")
    disputed = [row for row in held_out if are_disputed(row)]
    agreed = [row for row in held_out if worth_alike(row)]
    by_shrinkage = {}
    for shrinkage in SHRINKAGE:
        module = PersonalRewardModel(BradleyTerry(), shrinkage=shrinkage, **settings)
        personal = fit(module, train, folder / f"personal {shrinkage}")
        report = measure(personal, pooled, disputed)
        by_shrinkage[str(shrinkage)] = {
            "all": without_people(measure(personal, pooled, held_out)),
            "disputed": without_people(report),
            "disputed, by votes": by_votes(report),
            "agreed": without_people(measure(personal, pooled, agreed)),
        }
    return {"shrinkage": by_shrinkage, "policies": policies(base, folder, seed, train)}


def worth_alike(row: dict) -> bool:
    """Whether both answers are the same to the tastes, and what all like tells them apart."""
    first, second = (text.endswith(("b", "e")) for text in row["responses"])
    return first == second and row["true"][0] != row["true"][1]


def by_votes(report: dict) -> dict:
    """Mean accuracy of the people with each number of training votes."""
    means = {}
    for count in VOTES:
        people = [person for person in report["persons"] if person["trained_on"] == count]
        means[str(count)] = {
            model: float(np.mean([person[model] for person in people]))
            for model in ("pooled", "personal", "oracle")
        }
    return means


def without_people(report: dict) -> dict:
    return {name: report[name] for name in ("votes", "mean", "difference")}


def policies(base: Path, folder: Path, seed: int, train: list[dict]) -> dict:
    """What answers are worth to two people, by the base, by DPO on all votes, and by DPO on their own from there."""
    settings = settings_of(base, seed)
    of_all = Preference(DPO(beta=0.5), **settings)
    adapter = fit(of_all, train, folder / "policy", epochs=5)
    worths = {}
    for taste in TASTES:
        name = f"{taste}{VOTES[-1]}"
        own = Preference(DPO(beta=0.5), **settings, init_adapter=str(adapter))
        fit(own, train, folder / name, epochs=15, only_annotator=name)
        value = torch.tensor([worth(text, taste) for text in ANSWERS]).double()
        arms = {
            "base": spoken(of_all, "reference"),
            "of all": spoken(of_all),
            "own": spoken(own),
        }
        worths[name] = {arm: (logps.exp() @ value).item() for arm, logps in arms.items()}
    return worths


def part(name: str, measure: Callable[[], Any]) -> Any:
    """The figures of a part, measured in another call or now."""
    file = PARTS / f"{name}.json"
    if not file.is_file():
        started = time.process_time()
        figures = measure()
        figures["CPU seconds"] = time.process_time() - started
        PARTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures))
    return json.loads(file.read_text())


def seed_part(seed: int) -> dict:
    """One seed, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        return simulated(words(Path(name) / "base"), Path(name), seed)


def main() -> None:
    """Measure the parts that are named, or all, and write the figures of all that are there."""
    warnings.filterwarnings("ignore")
    for noisy in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    parts: dict[str, Callable[[], Any]] = {
        f"seed {seed}": partial(seed_part, seed) for seed in SEEDS
    }
    for name in sys.argv[1:] or parts:
        print(name, json.dumps(part(name, parts[name])), flush=True)
    figures = {}
    for name, measure in parts.items():
        if (PARTS / f"{name}.json").is_file():
            figures[name] = part(name, measure)
    (HERE / "personal.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
