"""Does it matter whether the policy is trained on the prompts that its reward model was trained on?

``python -m tests.proofs.seen_prompts``, with some of the seeds after it for these alone, trains a Llama of two layers
to answer prompts of three words with two words. The first word of a prompt tells which four of the eight words are
right; the other two words tell nothing. Gold is the number of right words of an answer, and the base says right ones
somewhat more often than wrong ones. A reward model learns from people's choices (with the noise of Bradley and Terry)
between answers to 24 prompts. Two policies are then trained on it by RL (RLOO, no KL penalty): on those same 24
prompts, and on 24 others of the same kind. All answers can be listed, so that the KL from the base, the score and gold
are sums and not estimates; they are noted on the prompts that the policy is trained on, and on 48 that neither it nor
the reward model has seen.

Done with a reward model of few choices a prompt, read often, and with that of many, by equally many updates. Six seeds,
each with a language of its own; the settings were chosen before any result and not changed. Figures go to
``seen_prompts.json`` and ``seen_prompts.png`` beside this file.
"""

import math
import random
import sys
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lit_align.advantages.rloo import RLOO
from lit_align.data.datamodules import Comparisons, Prompts
from lit_align.jsonl import write_jsonl
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.stage import RL
from lit_align.stages.reward_model import RewardModel
from lit_align.types import Group
from tests.proofs.experiments import QUIET, measure_seeds, untrained_llama

HERE = Path(__file__).parent
FIGURES = HERE / "seen_prompts.json"
SEEDS = (1, 2, 3, 4, 5, 6)
WORDS = [*"abcdefgh"]
RIGHT, RIGHT_SHARE, TEACHING = 4, 0.6, 300
ANSWERS = [(first, second) for first in range(len(WORDS)) for second in range(len(WORDS))]
TEXTS = [f"{WORDS[first]} {WORDS[second]}" for first, second in ANSWERS]
SEEN, UNSEEN, FRESH = "seen", "unseen", "fresh"
COUNTS = {SEEN: 24, UNSEEN: 24, FRESH: 48}
CHOICES = {"few": 4, "many": 64}
"""Pairs a prompt that a reward model learns from."""
UPDATES, GENERATIONS, ITERATIONS = 480, 16, 60


class Language:
    """Which answers are right, and prompts of each kind.

    Args:
        seed: of both.
    """

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        topics = range(len(WORDS))
        self.right = [set(self.draw.sample(topics, RIGHT)) for _ in topics]
        others = [(second, third) for second in topics for third in topics]
        by_topic = [self.draw.sample(others, len(others)) for _ in topics]
        self.prompts: dict[str, list[tuple[int, ...]]] = {}
        begin = 0
        for kind, count in COUNTS.items():
            end = begin + count // len(WORDS)  # as many of each topic in each kind
            self.prompts[kind] = [
                (topic, *rest) for topic in topics for rest in by_topic[topic][begin:end]
            ]
            begin = end

    def golds(self, prompt: tuple[int, ...]) -> list[float]:
        """What each answer is worth."""
        right = self.right[prompt[0]]
        return [float((first in right) + (second in right)) for first, second in ANSWERS]

    def say(self, topic: int) -> list[int]:
        """An answer as the base is taught to give it."""
        right = sorted(self.right[topic])
        wrong = [word for word in range(len(WORDS)) if word not in right]
        return [
            self.draw.choice(right if self.draw.random() < RIGHT_SHARE else wrong) for _ in range(2)
        ]

    def choose(self, prompt: tuple[int, ...], pairs: int) -> list[dict[str, Any]]:
        """People's choices between two different answers of the base."""
        golds, rows = dict(zip(ANSWERS, self.golds(prompt), strict=True)), []
        while len(rows) < pairs:
            first, second = tuple(self.say(prompt[0])), tuple(self.say(prompt[0]))
            if first == second:
                continue
            is_first = self.draw.random() < 1 / (1 + math.exp(golds[second] - golds[first]))
            pair = (first, second) if is_first else (second, first)
            chosen, rejected = (TEXTS[ANSWERS.index(answer)] for answer in pair)
            rows.append({"prompt": text_of(prompt), "chosen": chosen, "rejected": rejected})
        return rows


def text_of(prompt: tuple[int, ...]) -> str:
    """A prompt's words."""
    return " ".join(WORDS[word] for word in prompt)


def teach(language: Language, folder: Path, seed: int) -> None:
    """Write a Llama into ``folder`` that says right words somewhat more often."""
    model = untrained_llama(folder, [*WORDS, "<end>"], seed, 8, initializer_range=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    draw, words = random.Random(seed), range(len(WORDS))
    for _ in range(TEACHING):
        prompts = [[draw.choice(words) for _ in range(3)] for _ in range(128)]
        ids = torch.tensor([[*prompt, *language.say(prompt[0])] for prompt in prompts])
        logits = model(input_ids=ids).logits[:, 2:-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 3:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


def settings(base: Path, seed: int, lr: float) -> dict[str, Any]:
    """Settings of a stage."""
    return {
        "base": Base(str(base), "none", "float32"), "lora": Lora(r=16, alpha=32), "seed": seed, "max_new_tokens": 2,
        "optimizer": partial(torch.optim.AdamW, lr=lr, weight_decay=0.0), "gradient_checkpointing": False,
    }  # fmt: skip


def reward_model(
    language: Language, base: Path, folder: Path, pairs: int, seed: int
) -> RewardModelScore:
    """What learned from choices between answers to the seen prompts; as many updates with few as with many."""
    rows = [row for prompt in language.prompts[SEEN] for row in language.choose(prompt, pairs)]
    folder.mkdir(parents=True)
    write_jsonl(folder / "choices.jsonl", rows)
    stage = RewardModel(BradleyTerry(), **settings(base, seed, 3e-3))
    data = Comparisons(
        str(folder / "choices.jsonl"), batch_size=48, token_budget=4096, max_length=8, seed=seed
    )
    Trainer(default_root_dir=folder, max_steps=UPDATES, **QUIET).fit(stage, data)
    stage.save_adapter(folder / "adapter")
    return RewardModelScore(str(folder / "adapter"))


@torch.no_grad()
def answer_logps(module: RL, prompts: list[tuple[int, ...]], role: str = "policy") -> Tensor:
    """``[prompts, answers]`` log-probabilities among the answers of two words."""
    words = len(WORDS)
    rows = torch.tensor([[*prompt, word] for prompt in prompts for word in range(words)])
    with module.adapters.activate(role, training=False) as model:
        logits = model(input_ids=rows).logits[..., :words].double().log_softmax(-1)
    first = logits[::words, 2]
    second = logits[:, 3].view(-1, words, words)
    return (first[:, :, None] + second).flatten(1)


class Means:
    """KL from the base, score and gold, in the mean over prompts of a kind.

    Args:
        language: of the prompts.
        kind: of them.
        judge: that scores.
        module: whose reference is the base.
    """

    def __init__(self, language: Language, kind: str, judge: RewardModelScore, module: RL) -> None:
        self.prompts = language.prompts[kind]
        self.golds = torch.tensor([language.golds(prompt) for prompt in self.prompts]).double()
        groups = [Group(text_of(prompt), list(TEXTS)) for prompt in self.prompts]
        self.scores = judge(groups).total.double().view(self.golds.shape)
        self.reference = answer_logps(module, self.prompts, "reference")

    def __call__(self, module: RL) -> list[float]:
        """The three of a policy."""
        logps = answer_logps(module, self.prompts)
        weighted = [logps - self.reference, self.scores, self.golds]
        return [round((logps.exp() * each).sum(1).mean().item(), 4) for each in weighted]

    def agreement(self) -> float:
        """How often the reward model prefers the better of two answers to a prompt, of those that differ in gold."""
        differences = [each[:, :, None] - each[:, None] for each in (self.scores, self.golds)]
        differs = differences[1] != 0
        return (differences[0] * differences[1] > 0)[differs].double().mean().item()


class Traced(Callback):
    """Notes the means before the first iteration and at the end of every third.

    Args:
        kinds: of prompts, and how they are measured.
    """

    def __init__(self, kinds: dict[str, Means]) -> None:
        self.kinds = kinds
        self.points: dict[str, list[list[float]]] = {kind: [] for kind in kinds}

    def on_train_start(self, trainer, module):
        self.note(module)

    def on_train_epoch_end(self, trainer, module):
        if (trainer.current_epoch + 1) % 3 == 0:
            self.note(module)

    def note(self, module: RL) -> None:
        """A point more of each."""
        for kind, means in self.kinds.items():
            self.points[kind].append(means(module))


def gold_at(path: list[list[float]], nats: float) -> float:
    """Gold where a policy first is so far from the base, between two points that were noted."""
    for (kl, _, gold), (next_kl, _, next_gold) in pairwise(path):
        if kl <= nats < next_kl:
            return gold + (nats - kl) / (next_kl - kl) * (next_gold - gold)
    raise ValueError(f"it never is {nats} nats away")


def reinforce(
    language: Language, base: Path, folder: Path, judge: RewardModelScore, kind: str, seed: int
) -> dict[str, Any]:
    """RL on the prompts of a kind, an iteration for each pass over them."""
    stage = RL(
        PolicyGradient(), judge, RLOO(), KLControl(0.0), Critic(), num_generations=GENERATIONS, log_samples_every=0,
        **settings(base, seed, 1e-3),
    )  # fmt: skip
    stage.configure_model()
    means = {name: Means(language, name, judge, stage) for name in (kind, FRESH)}
    traced = Traced(means)
    folder.mkdir(parents=True)
    rows = [{"prompt": text_of(prompt)} for prompt in language.prompts[kind]]
    write_jsonl(folder / "prompts.jsonl", rows)
    data = Prompts(
        str(folder / "prompts.jsonl"), batch_size=len(rows), token_budget=8192, max_length=8, seed=seed
    )  # fmt: skip
    Trainer(
        default_root_dir=folder, max_epochs=ITERATIONS, callbacks=[traced], **QUIET
    ).fit(stage, data)  # fmt: skip
    own, fresh = traced.points[kind], traced.points[FRESH]
    return {
        "gold at 1 nat": {"own": gold_at(own, 1.0), "fresh": gold_at(fresh, 1.0)},
        "agreement": means[kind].agreement(), "agreement, fresh": means[FRESH].agreement(), "own": own, "fresh": fresh
    }  # fmt: skip


def learn(seed: int) -> dict[str, Any]:
    """All of one seed."""
    began, language = process_time(), Language(seed)
    run: dict[str, Any] = {"seed": seed}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teach(language, folder / "base", seed)
        for label, pairs in CHOICES.items():
            judge = reward_model(language, folder / "base", folder / label, pairs, seed)
            run[label] = {
                kind: reinforce(language, folder / "base", folder / label / kind, judge, kind, seed)
                for kind in (SEEN, UNSEEN)
            }
    return {**run, "CPU seconds": round(process_time() - began, 1)}


def draw(runs: list[dict[str, Any]]) -> None:
    """Gold by KL: a column for each reward model, the policy's own prompts above and others below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(CHOICES), figsize=(8, 5.5), layout="constrained", sharex=True, sharey=True
    )
    for column, (label, pairs) in enumerate(CHOICES.items()):
        for row, prompts in enumerate(("own", FRESH)):
            axis = axes[row, column]
            for color, kind in enumerate((SEEN, UNSEEN)):
                for number, run in enumerate(runs):
                    kl, _, gold = np.array(run[label][kind][prompts]).T
                    name = f"trained on {kind} prompts" if number == 0 else None
                    axis.plot(kl, gold, f"C{color}", lw=1, alpha=0.7, label=name)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(f"{pairs} choices a prompt")
        axes[1, column].set_xlabel("KL from the base, nats")
    axes[0, 0].set_ylabel("gold on the prompts trained on")
    axes[1, 0].set_ylabel("gold on prompts new to both")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(HERE / "seen_prompts.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    seeds = [int(word) for word in sys.argv[1:]] or SEEDS
    measure_seeds(FIGURES, seeds, learn, draw, choices=CHOICES)
