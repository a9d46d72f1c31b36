"""Does a head for each person predict real people's votes better than one for everyone?

``python -m tests.proofs.annotators`` trains reward models of both kinds on votes of PandaLM's three annotators and of
the four busiest workers of LLMFAO, on short answers (LLMFAO: on their beginnings), and asks them for votes that were
kept back: on other prompts (PandaLM), on other pairs (LLMFAO, which has few prompts). The base is the first six layers
of SmolLM2-135M-Instruct. It needs both data sets in the folder ``LIT_ALIGN_DATA``; no text of theirs is kept. Intervals
are over people. Figures go to ``annotators.json`` beside this file.
"""

import csv
import json
import os
import random
import sys
import tempfile
from collections import Counter
from functools import partial
from itertools import combinations
from pathlib import Path
from time import process_time
from typing import Any

import torch
from lightning.pytorch import Trainer

from lit_align.data.datamodules import Comparisons
from lit_align.evaluation.personal import personal_report, personal_verdicts
from lit_align.jsonl import read_jsonl, write_jsonl
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.models.personal_head import load_shifts
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.personal_reward_model import PersonalRewardModel
from lit_align.stages.reward_model import RewardModel
from lit_align.types import Group, Pair
from tests.benchmarks.inputs import first_layers
from tests.proofs.experiments import QUIET

HERE = Path(__file__).parent
DATA = Path(os.environ.get("LIT_ALIGN_DATA", HERE.parents[2] / "shared/data"))
LAYERS, WORKERS, SEED = 6, 4, 1
WORDS, LONGEST, BEGINNING = 60, 250, 24
"""Of a row of PandaLM; of both answers of LLMFAO, and of the beginning of each that is read."""


def pandalm() -> list[dict[str, Any]]:
    """Votes on short pairs; ties and texts that are none are left out."""
    votes = []
    rows = json.loads((DATA / "pandalm/testset-v1.json").read_text("utf-8"))
    for row in rows:
        texts = [row[name] for name in ("instruction", "input", "response1", "response2")]
        if all(isinstance(text, str) for text in texts) and len(" ".join(texts).split()) <= WORDS:
            prompt = "\n".join(filter(None, texts[:2]))
            for number in (1, 2, 3):
                vote = row[f"annotator{number}"]
                if vote:
                    votes.append(
                        a_vote(prompt, texts[2:], vote - 1, f"annotator{number}", str(row["idx"]))
                    )
    return list(filter(are_different, votes))


def llmfao() -> list[dict[str, Any]]:
    """Votes of the busiest workers on shorter pairs, of which the beginnings are read; ties are left out."""
    folder = DATA / "llmfao"
    pairs = {str(row["id"]): row for row in read_jsonl(folder / "pairs-crowd.jsonl")}
    votes = []
    with (folder / "crowd-comparisons.csv").open(encoding="utf-8", newline="") as file:
        for vote in csv.DictReader(file):
            row = pairs[vote["id"]]
            texts = [row["result_x"], row["result_y"]]
            if vote["winner"] != "tie" and len(" ".join(texts).split()) <= LONGEST:
                better = 0 if vote["winner"] == "left" else 1
                begins = [" ".join(text.split()[:BEGINNING]) for text in texts]
                votes.append(a_vote(row["text"], begins, better, vote["worker"], vote["id"]))
    busiest = dict(Counter(vote["annotator"] for vote in votes).most_common(WORKERS))
    return [vote for vote in votes if vote["annotator"] in busiest and are_different(vote)]


def a_vote(prompt: str, texts: list[str], better: int, annotator: str, item: str) -> dict[str, Any]:
    """A row, and the item that it is about."""
    return {
        "prompt": prompt, "responses": texts, "pairs": [[better, 1 - better]], "annotator": annotator, "item": item,
    }  # fmt: skip


def are_different(vote: dict[str, Any]) -> bool:
    """Whether a reward model can tell the two texts apart."""
    first, second = vote["responses"]
    return first.strip() != second.strip() and all(text.strip() for text in vote["responses"])


def agreement(votes: list[dict[str, Any]]) -> float:
    """Share of pairs of votes on the same item that agree."""
    by_item: dict[str, list[int]] = {}
    for vote in votes:
        by_item.setdefault(vote["item"], []).append(vote["pairs"][0][0])
    agree = [a == b for several in by_item.values() for a, b in combinations(several, 2)]
    return sum(agree) / len(agree)


def train(stage: RewardModel, rows: list[dict[str, Any]], folder: Path) -> Path:
    """The folder of the adapter."""
    folder.mkdir()
    file = folder / "votes.jsonl"
    write_jsonl(file, rows)
    data = Comparisons(
        str(file), batch_size=32, token_budget=4096, max_length=256, ignore_columns=["item"], seed=SEED
    )  # fmt: skip
    Trainer(default_root_dir=folder, max_epochs=2, **QUIET).fit(stage, data)
    stage.save_adapter(folder / "adapter")
    return folder / "adapter"


def compare(base: str, folder: Path, votes: list[dict[str, Any]]) -> dict[str, Any]:
    """Both kinds of reward model on votes about items that neither was trained on."""
    folder.mkdir()
    of_prompts = folder.name == pandalm.__name__
    kept_apart = sorted({vote["prompt" if of_prompts else "item"] for vote in votes})
    random.Random(SEED).shuffle(kept_apart)
    held = set(kept_apart[: len(kept_apart) // 2])
    is_held = [vote["prompt" if of_prompts else "item"] in held for vote in votes]
    learned = [vote for vote, kept in zip(votes, is_held, strict=True) if not kept]
    settings = {
        "base": Base(base, "none", "float32"), "lora": Lora(r=8), "seed": SEED,
        "gradient_checkpointing": False, "optimizer": partial(torch.optim.AdamW, lr=5e-4, weight_decay=0.0),
    }  # fmt: skip
    pooled = train(RewardModel(BradleyTerry(), **settings), learned, folder / "pooled")
    personal = train(
        PersonalRewardModel(BradleyTerry(), shrinkage=1.0, **settings), learned, folder / "personal"
    )
    groups = [
        Group(vote["prompt"], vote["responses"], (Pair(*vote["pairs"][0]),), annotator=vote["annotator"])
        for vote, kept in zip(votes, is_held, strict=True)
        if kept
    ]  # fmt: skip
    reward = RewardModelScore(str(personal), by_annotator=True)
    verdicts = personal_verdicts(reward, RewardModelScore(str(pooled)), groups, 4096, None)
    _, annotators = load_shifts(personal)
    report = personal_report(verdicts, dict(zip(annotators.keys, annotators.votes, strict=True)))
    return {
        "people": len({vote["annotator"] for vote in votes}), "learned": len(learned), "held out": len(groups),
        "votes on the same item agree": agreement(votes),
        **{name: report[name] for name in ("mean", "difference")},
    }  # fmt: skip


def main() -> None:
    """The data sets that are named, or both; the figures of the other stay."""
    readers = {read.__name__: read for read in (pandalm, llmfao)}
    file = HERE / "annotators.json"
    figures = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = first_layers(LAYERS, folder / "base")
        for name in sys.argv[1:] or readers:
            began = process_time()
            figures[name] = compare(base, folder / name, readers[name]())
            figures[name]["CPU seconds"] = round(process_time() - began, 1)
            print(name, json.dumps(figures[name]), flush=True)
            file.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
