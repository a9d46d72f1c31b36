"""Scoring pairs here and in TRL 1.16's RewardTrainer: the same ids, body and head; equal scores first, then the cost.

Run as ``python -m tests.benchmarks.reward_vs_trl``. TRL's side is its own collator, which pads both responses of some
pairs to the longest of them, and the sequence classifier that its trainer calls; ours is packed trees. Both run in turn
in one process on one thread, and a figure is the median CPU time of a round.
"""

import gzip
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

from lit_align.data.formats.hh import HH
from lit_align.data.packing import pack
from lit_align.data.scoring import score_trees
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import Malformed
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Tree

from . import inputs
from .our_side import tree

ROOT = Path(__file__).parents[2]
PROOF = ROOT / "tests/proofs/reward_vs_trl.json"
TOLERANCE, BATCH, ROUNDS = 1e-4, 8, 3
AIMS = {"prompts twice as long as responses": 1.35, "hh_harmless as it is": 2.0}


def hh_harmless(rows: int) -> list[Tree]:
    """Pairs of the real set, whatever their length, in the order of a shuffled epoch."""
    data = Path(os.environ.get("LIT_ALIGN_DATA", ROOT.parent / "shared" / "data"))
    chat, found = ChatTokenizer(load_tokenizer(Base(inputs.SMOL)), max_length=2**20), []
    with gzip.open(data / "hh_harmless" / "harmless-base-test.jsonl.gz", "rt") as file:
        lines = random.Random(0).sample(file.readlines(), 2 * rows)
    for line in lines:
        try:
            found.append(chat.encode(HH()(json.loads(line))).tree)
        except Malformed:
            continue
    return found[:rows]


class Theirs:
    """The classifier as RewardTrainer calls it, on what its collator makes of the pairs."""

    def __init__(self, body: torch.nn.Module, folder: str, head: torch.Tensor):
        from transformers import AutoModelForSequenceClassification
        from trl.trainer.reward_trainer import DataCollatorForPreference

        body.save_pretrained(folder)
        made = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32
        )
        self.model = made.eval()
        self.model.score.weight.data.copy_(head)
        self.model.config.pad_token_id = 0
        self.collate = DataCollatorForPreference(pad_token_id=0)

    @torch.no_grad()
    def __call__(self, trees: list[Tree]) -> torch.Tensor:
        """``[pairs, 2]``"""
        found = []
        for start in range(0, len(trees), BATCH):
            sides = [
                [one.prompt + response for response in one.responses]
                for one in trees[start : start + BATCH]
            ]
            given = self.collate([{"chosen_ids": a, "rejected_ids": b} for a, b in sides])
            found.append(torch.stack(self.model(**given, use_cache=False).logits[:, 0].chunk(2), 1))
        return torch.cat(found)


class Ours:
    """Packed trees and a head that reads the last token of each response."""

    def __init__(self, body: torch.nn.Module, head: torch.Tensor):
        self.tree_forward, self.head = TreeForward(body), head

    @torch.no_grad()
    def __call__(self, trees: list[Tree]) -> torch.Tensor:
        """``[pairs, 2]``"""
        budget = sum(
            one.tokens for one in trees[:BATCH]
        )  # as much at once as theirs, prompts counted once
        return score_trees(
            trees,
            lambda b: self.tree_forward.last_hidden(b.trees) @ self.head.T,
            budget,
            dense=True,
        ).view(-1, 2)


def compare(name: str, trees: list[Tree], theirs: Theirs, ours: Ours) -> dict:
    """Gate, then rounds in turn."""
    off = (theirs(trees) - ours(trees)).abs().max().item()
    if off > TOLERANCE:
        sys.exit(f"{name}: scores differ by {off:.1e}, over {TOLERANCE}; no ratio is printed")
    spent: dict[str, list[float]] = {"theirs": [], "ours": []}
    for _ in range(ROUNDS):
        for side, score in (("theirs", theirs), ("ours", ours)):
            start = time.process_time()
            score(trees)
            spent[side].append(time.process_time() - start)
    medians = {side: statistics.median(times) for side, times in spent.items()}
    rows = [
        max(len(t.prompt) + len(r) for t in trees[k : k + BATCH] for r in t.responses)
        for k in range(0, len(trees), BATCH)
    ]
    read = {
        "theirs": sum(2 * BATCH * length for length in rows),
        "ours": sum(
            batch.trees.input_ids.numel()
            for batch in pack(trees, sum(t.tokens for t in trees[:BATCH]), dense=True)
        ),
    }
    return {
        "pairs": len(trees),
        "scores differ by": off,
        "CPU seconds": medians,
        "spread": {side: [min(times), max(times)] for side, times in spent.items()},
        "tokens read": read,
        "ratio": medians["theirs"] / medians["ours"],
        "aim": AIMS[name],
    }


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    body = load_model(Base(inputs.SMOL, quantization="none", dtype="float32"))
    head = torch.randn(1, body.config.hidden_size, generator=torch.Generator().manual_seed(0)) / 24
    uniform = [tree(row) for row in inputs.text(128, 64, 2 * BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Theirs(body, folder, head), Ours(body, head)
        found = {
            name: compare(name, trees, theirs, ours)
            for name, trees in zip(AIMS, (uniform, hh_harmless(3 * BATCH)), strict=True)
        }
    found["machine"] = {
        "processor": platform.processor() or platform.machine(),
        **{name: version(name) for name in ("torch", "transformers", "trl")},
    }
    PROOF.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
