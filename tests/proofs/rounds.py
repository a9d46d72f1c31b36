"""Where on-line training ends, against closed forms, in a language whose 57 answers can all be listed.

``python -m tests.proofs.rounds`` trains with the command's own parts (Online, Preference) and compares: recorded pairs,
the same pairs labelled anew, and fresh pairs, all with DPO, against π* ∝ ρ exp(r / β); and SPIN against the
distribution of the data. Figures go to ``rounds.json`` and ``rounds.png`` beside this file.
"""

import json
import math
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.nn.functional import kl_div

from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.self_play import SelfPlay
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.dpo import DPO
from lit_align.online.datamodule import Online
from lit_align.stages.preference import Preference
from lit_align.types import Pair
from tests.tiny import WORDS, words

HERE = Path(__file__).parent
PROMPT = "d f"
ANSWERS = [""] + [f"{a} {b}".strip() for a in WORDS for b in ["", *WORDS]]
BETA, PROMPTS, RECORDED, ROUNDS = 0.5, 128, 48, 200


def gold(text: str) -> float:
    """What an answer is worth."""
    return 1.0 * ("a" in text or "c" in text) + 0.5 * text.endswith("b")


@dataclass(frozen=True)
class LastNumber(Feedback):
    """Preferences as Bradley and Terry have them."""

    def __call__(self, groups, label_kind):
        opinions = []
        for group in groups:
            a, b = (gold(text) for text in group.responses)
            chance = torch.tensor(a - b).sigmoid().item()
            same = group.responses[0] == group.responses[1]
            labelled = None if same else group._replace(pairs=(Pair(0, 1, chance),))
            opinions.append(FeedbackResult(labelled, reason="twice the same" if same else ""))
        return opinions


def ids(answer: str) -> list[int]:
    """An answer as the model says it: two words are cut there, fewer end."""
    found = [WORDS.index(word) for word in answer.split()]
    return found if len(found) == 2 else [*found, len(WORDS)]


@torch.no_grad()
def spoken(module: Preference, role: str = "policy", text: str = PROMPT) -> Tensor:
    """Log-probability of every answer to a prompt."""
    prompt = [WORDS.index(word) for word in text.split()]
    with module.adapters.activate(role, training=False) as model:
        first = model(input_ids=torch.tensor([prompt])).logits[0, -1].double().log_softmax(-1)
        rows = torch.tensor([[*prompt, word] for word in range(len(WORDS))])
        second = model(input_ids=rows).logits[:, -1].double().log_softmax(-1)
    each = [ids(answer) for answer in ANSWERS]
    return torch.stack([first[a] + (second[a, b[0]] if b else 0) for a, *b in each])


def distance(target: Tensor, module: Preference) -> float:
    """KL(target || policy), in nats."""
    return kl_div(spoken(module), target, log_target=True, reduction="sum").item()


def module_of(base: Path) -> Preference:
    """What is trained in each arm."""
    fading = partial(
        torch.optim.lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.02, total_iters=ROUNDS
    )
    return Preference(
        DPO(BETA), base=Base(str(base), "none", "float32"), lora=Lora(r=8), max_new_tokens=2,
        gradient_checkpointing=False,
        optimizer=partial(torch.optim.Adam, lr=0.01), lr_scheduler=fading,
    )  # fmt: skip


class Watched(Callback):
    """Notes the distance to a target as rounds go by."""

    def __init__(self, target: Tensor) -> None:
        self.target, self.curve = target, []

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step % 5 == 0:
            self.curve.append([trainer.global_step, distance(self.target, module)])


def learn(
    base: Path,
    folder: Path,
    target: Tensor,
    rows: list[dict],
    feedback: Feedback | None,
    **settings,
) -> list:
    """Train on rounds over ``rows``; the distance to ``target`` by step."""
    train = folder / "rows.jsonl"
    folder.mkdir(parents=True)
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Online(
        str(train),
        feedback,
        rounds=ROUNDS,
        round_size=256,
        batch_size=256,
        token_budget=100_000,
        **settings,
    )
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    watched = Watched(target)
    trainer = Trainer(
        default_root_dir=folder, callbacks=[watched], enable_checkpointing=False, **quiet
    )
    trainer.fit(module_of(base), data)
    return watched.curve


def recorded(reference: Tensor, count: int) -> list[dict]:
    """Pairs from the reference, each with the choice of one annotator."""
    draw, rows = random.Random(0), []
    weights = reference.exp().tolist()
    while len(rows) < count:
        a, b = draw.choices(ANSWERS, weights, k=2)
        if a != b:
            better = draw.random() < 1 / (1 + math.exp(gold(b) - gold(a)))
            pair = [0, 1] if better else [1, 0]
            rows.append(
                {"prompt": PROMPT, "responses": [a, b], "pairs": [pair], "tokens": [ids(a), ids(b)]}
            )
    return rows


def main() -> None:
    """All arms, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = words(folder / "model")
        module = module_of(base)
        module.configure_model()
        reference = spoken(module, "reference")
        assert abs(reference.logsumexp(0).item()) < 1e-6
        optimum = (
            reference + torch.tensor([gold(answer) for answer in ANSWERS]).double() / BETA
        ).log_softmax(-1)
        pairs, prompts = recorded(reference, RECORDED), [{"prompt": PROMPT}] * PROMPTS
        fresh = {"num_generations": 2, "responses": "fresh"}
        arms = {
            "recorded pairs": (
                optimum,
                pairs,
                None,
                {"responses": "dataset", "relabel": False},
            ),
            "the same, labelled anew": (optimum, pairs, LastNumber(), {"responses": "dataset"}),
            "fresh pairs": (optimum, prompts, LastNumber(), fresh),
        }
        # people speak otherwise than the model: a Zipf-like distribution over shuffled answers
        order = random.Random(1).sample(range(len(ANSWERS)), len(ANSWERS))
        people = torch.tensor([1 / (3 + rank) for rank in order]).double().log().log_softmax(-1)
        said = random.Random(2).choices(ANSWERS, people.exp().tolist(), k=2048)
        shown = [{"prompt": PROMPT, "responses": [one], "tokens": [ids(one)]} for one in said]
        count = Counter(said)
        empirical = (
            torch.tensor([count[one] / len(said) for one in ANSWERS])
            .double()
            .clamp(min=1e-12)
            .log()
        )
        spin = {"num_generations": 1, "include_reference_answer": True, "reference_update": "round"}
        arms["SPIN"] = (empirical, shown, SelfPlay(), spin)
        found = {}
        for number, (arm, (target, rows, feedback, settings)) in enumerate(arms.items()):
            curve = learn(base, folder / str(number), target, rows, feedback, **settings)
            start = kl_div(reference, target, log_target=True, reduction="sum").item()
            found[arm] = {"start": start, "end": curve[-1][1], "curve": curve}
            print(arm, found[arm]["start"], found[arm]["end"], flush=True)
    (HERE / "rounds.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found)


def draw(found: dict) -> None:
    """Distance to what each arm is measured by."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for arm, of in found.items():
        axis.plot(
            *zip(*of["curve"], strict=True),
            label=f"{arm}: {of['end']:.3f}",
            ls="--" if arm == "SPIN" else "-",
        )
    axis.axhline(0.02, color="k", lw=0.8, ls=":")
    axis.set(xlabel="step", ylabel="nats to the closed form", yscale="log")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(HERE / "rounds.png", dpi=110)


if __name__ == "__main__":
    main()
