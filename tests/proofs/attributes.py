"""A policy that was trained on rated answers gives answers of the length and the quality that are asked for.

``python -m tests.proofs.attributes``, with some of the seeds after it for these alone, trains a Llama of two layers to
tell of 12 nouns in 20 places: a noun has 8 of 16 adjectives, and an answer names 1 to 14, right and wrong ones. Each
answer is rated from 0 to 4: verbosity is the fifth that its length is in, and helpfulness how many of its adjectives
are right. SFT with LoRA (RatedDemonstrations, 1400 rows) then writes both into the prompts; 60 pairs of noun and place
are held out. Measured there, at temperature 1, by asking through what the adapter's provenance records:

* the length of answers, with helpfulness 4 and verbosity 0 to 4;
* the share of right adjectives, with verbosity 2 and helpfulness 0 to 4;
* both without any rating in the prompt, from the base.

Three seeds, each with a world of its own. Figures go to ``attributes.json`` and ``attributes.png`` beside this file.
"""

import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from lit_align.chat.attribute_line import Steering, add_line
from lit_align.data.rated_demonstrations import RatedDemonstrations
from lit_align.jsonl import write_jsonl
from lit_align.models.adapters import read_provenance
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.stages.sft import SFT
from lit_align.types import Group
from tests.proofs.experiments import QUIET, measure_seeds, untrained_llama

HERE = Path(__file__).parent
FIGURES = HERE / "attributes.json"
SEEDS = (1, 2, 3)
NOUNS, PLACES, ADJECTIVES, LONGEST = 12, 20, 16, 14
HELD_OUT, ROWS, TEACHING = 60, 1400, 600
EDGES = (3, 6, 9, 12)
"""Lengths from which verbosity is 1, 2, 3 and 4."""
HELPFULNESS, VERBOSITY = "helpfulness", "verbosity"


def vocabulary() -> list[str]:
    """Words of the language, those of the line among them, the end last."""
    names = [f"noun{k}" for k in range(NOUNS)] + [f"place{k}" for k in range(PLACES)]
    line = ["Attributes", "of", "the", "answer:", HELPFULNESS, VERBOSITY]
    values = [f"{k}{comma}" for k in range(5) for comma in (",", "")]
    return [
        *names,
        *(f"adj{k}" for k in range(ADJECTIVES)),
        "in",
        "?",
        "is",
        *line,
        *values,
        "<end>",
    ]


class World:
    """Nouns and their adjectives.

    Args:
        seed: of what is true, and of what is said.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.true = [set(self.draw.sample(range(ADJECTIVES), 8)) for _ in range(NOUNS)]
        pairs = [(noun, place) for noun in range(NOUNS) for place in range(PLACES)]
        self.draw.shuffle(pairs)
        self.held_out, self.pairs = pairs[:HELD_OUT], pairs[HELD_OUT:]

    def row(self) -> dict[str, Any]:
        """A rated answer of random length and quality."""
        noun, place = self.draw.choice(self.pairs)
        length, wanted = (
            self.draw.randint(1, LONGEST),
            self.draw.random() ** 0.5,
        )  # right ones more often
        words = []
        for _ in range(length):
            is_right = self.draw.random() < wanted
            among = [k for k in range(ADJECTIVES) if (k in self.true[noun]) == is_right]
            words.append(f"adj{self.draw.choice(among)}")
        answer = " ".join([f"noun{noun}", "is", *words])
        length, share = self.measure(noun, answer)
        return {
            "prompt": prompt_of(noun, place), "response": answer,
            VERBOSITY: int(np.searchsorted(EDGES, length, side="right")), HELPFULNESS: round(4 * share),
        }  # fmt: skip

    def measure(self, noun: int, answer: str) -> tuple[int, float]:
        """Adjectives of an answer, and the share of them that are right."""
        said = [int(word[3:]) for word in answer.split() if word.startswith("adj")]
        right = [k in self.true[noun] for k in said]
        return len(said), float(np.mean(right)) if said else 0.0


def prompt_of(noun: int, place: int) -> str:
    """A question."""
    return f"noun{noun} in place{place} ?"


def teach(world: World, folder: Path, seed: int) -> None:
    """Write a Llama into ``folder`` that gives answers of every kind."""
    words = vocabulary()
    places = {word: k for k, word in enumerate(words)}
    model = untrained_llama(folder, words, seed, 48, initializer_range=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=TEACHING)
    end = places["<end>"]
    for _ in range(TEACHING):
        rows = [world.row() for _ in range(64)]
        texts = [[places[word] for word in f"{row['prompt']} {row['response']}".split()] for row in rows]  # fmt: skip
        longest = max(map(len, texts)) + 1
        ids = torch.tensor([text + [end] * (longest - len(text)) for text in texts])
        target = torch.tensor([text + [end] + [-100] * (longest - len(text) - 1) for text in texts])
        logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)


def train(base: Path, folder: Path, world: World, seed: int) -> SFT:
    """SFT under prompts with ratings; the adapter is in ``folder/adapter``."""
    rows = [world.row() for _ in range(ROWS)]
    file = folder / "rated.jsonl"
    write_jsonl(file, rows)
    stage = SFT(
        CrossEntropy(), base=Base(str(base), "none", "float32"), lora=Lora(r=16, alpha=32), seed=seed,
        optimizer=partial(torch.optim.AdamW, lr=4e-3, weight_decay=0.0), gradient_checkpointing=False,
        max_new_tokens=LONGEST + 6,
    )  # fmt: skip
    data = RatedDemonstrations(
        str(file), [HELPFULNESS, VERBOSITY], batch_size=64, token_budget=4096, max_length=48, seed=seed
    )  # fmt: skip
    Trainer(default_root_dir=folder, max_epochs=10, **QUIET).fit(stage, data)
    stage.save_adapter(folder / "adapter")
    return stage


def ask(stage: SFT, world: World, line: str, role: str = "policy") -> dict[str, float]:
    """Mean length and share of right adjectives of answers to what is held out."""
    groups = []
    for noun, place in world.held_out:
        prompt = prompt_of(noun, place)
        groups.append(Group(add_line(prompt, line) if line else prompt, []))
    answers = stage.responder.answer_groups(groups, role=role, num_generations=2, temperature=1.0)
    measured = []
    for (noun, _), texts in zip(world.held_out, answers, strict=True):
        measured += [world.measure(noun, text) for text in texts]
    length, right = np.array(measured).mean(0)
    return {"length": float(length), "right": float(right)}


def learn(seed: int) -> dict[str, Any]:
    """All of one seed."""
    began, world = process_time(), World(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teach(world, folder / "base", seed)
        stage = train(folder / "base", folder, world, seed)
        steering = Steering.of_provenance(read_provenance(folder / "adapter"))
        assert steering is not None
        asked: dict[str, list[dict[str, float]]] = {VERBOSITY: [], HELPFULNESS: []}
        for value in range(5):
            line = steering.line({VERBOSITY: value, HELPFULNESS: 4})
            asked[VERBOSITY].append(ask(stage, world, line))
            line = steering.line({HELPFULNESS: value, VERBOSITY: 2})
            asked[HELPFULNESS].append(ask(stage, world, line))
        without = ask(stage, world, "", "reference")
    return {
        "seed": seed, "asked": asked, "base": without, "line": steering._asdict(),
        "CPU seconds": round(process_time() - began, 1),
    }  # fmt: skip


def draw(runs: list[dict[str, Any]]) -> None:
    """Length by verbosity, and right adjectives by helpfulness; the base is dotted."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    panels = (
        (VERBOSITY, "length", "adjectives"),
        (HELPFULNESS, "right", "share of right adjectives"),
    )
    for axis, (attribute, measure, label) in zip(axes, panels, strict=True):
        for run in runs:
            values = [row[measure] for row in run["asked"][attribute]]
            axis.plot(range(5), values, "o-", label=f"seed {run['seed']}")
        axis.axhline(np.mean([run["base"][measure] for run in runs]), color="k", ls=":", lw=1)
        axis.set(xlabel=f"{attribute} asked for", ylabel=label, title="Held-out prompts")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(HERE / "attributes.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    measure_seeds(FIGURES, [int(word) for word in sys.argv[1:]] or SEEDS, learn, draw)
