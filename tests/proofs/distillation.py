"""Does a model that teaches itself with the answer in its prompt forget less, and does a teacher save samples?

``python -m tests.proofs.distillation`` answers in languages whose answers can all be listed, so that every figure but
the samples is exact. Figures go to ``distillation.json`` and ``distillation.png`` beside this file. With a part behind
it, ``itself`` or ``smaller``, only that runs.

**Itself.** A small model is trained to answer questions of a subject and an attribute in two words, a content and an
ending: without a hint it guesses the content, after a demonstration it repeats its content, and in both cases it ends
with a full stop. Demonstrations have the right content, which the attribute decides, and another ending, as another
author writes. SFT imitates them; self-distillation (`GKD` with a `Teacher` that is shown the demonstration) learns from
its own samples. Held out are two of eight subjects, and questions of another kind that nobody trains.

**Smaller.** The first layer of a model learns what the whole model has learned from a reward: by that reward, by the
teacher's log-probability of each sampled token, or by the teacher's whole distribution.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer

from lit_align.advantages.reverse_kl import ReverseKL
from lit_align.advantages.rloo import RLOO
from lit_align.data.packing import pack
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.gkd import GKD
from lit_align.objectives.policy_gradient import PolicyGradient
from lit_align.rewards.teacher import Teacher
from lit_align.rl.kl_control import KLControl
from lit_align.stages.sft import SFT
from lit_align.types import Group, Step, Tree
from tests.rl.listable import REWARD, TREE, answers, earned, listable, logps_of
from tests.rl.on_policy import OfflineRL, stage
from tests.tiny import words

HERE = Path(__file__).parent
FILE = HERE / "distillation.json"
SEEDS = (1, 2, 3)

SUBJECTS = [f"s{k}" for k in range(8)]
ATTRIBUTES = [f"t{k}" for k in range(4)]
CONTENTS = [f"c{k}" for k in range(4)]
STOP, MARK, OTHER, END = "stop", "mark", "other", "<end>"
WORDS = [*SUBJECTS, *ATTRIBUTES, *CONTENTS, STOP, MARK, OTHER, END]
VOCABULARY = {word: k for k, word in enumerate(WORDS)}
TRAINED, HELD = SUBJECTS[:6], SUBJECTS[6:]
STEPS, EVERY, RATE, GENERATIONS = 16, 2, 0.01, 4
SAMPLES, ITERATIONS = 32, 40
"""Of the smaller student: responses of an iteration, and iterations."""
STUDENT_RATE, BETA, NEAR = 0.01, 0.1, 0.1
"""Its learning rate; the coefficient of the KL penalty that the teacher was made with, and that RL has; nats that are
near."""


ASKED = TREE._replace(group=Group("d f", []))
"""The prompt that the smaller student is asked, as text too."""


def ids(text: str) -> list[int]:
    """Token ids of words."""
    return [VOCABULARY[word] for word in text.split()]


def wished(contents: dict[str, float], stop: float) -> tuple[Tensor, Tensor]:
    """Distributions of both words of an answer."""
    first, second = torch.full((len(VOCABULARY),), 1e-4), torch.full((len(VOCABULARY),), 1e-4)
    for word, share in contents.items():
        first[VOCABULARY[word]] = share
    second[VOCABULARY[STOP]], second[VOCABULARY[MARK]] = stop, 1 - stop
    return first / first.sum(), second / second.sum()


def lessons() -> list[tuple[list[int], Tensor, Tensor]]:
    """Prompts with the distributions of the two words of an answer, from which the base is made."""
    guess, rows = dict.fromkeys(CONTENTS, 0.25), []
    for subject in SUBJECTS:
        rows.append((ids(f"{OTHER} {subject}"), *wished({CONTENTS[0]: 0.6, CONTENTS[1]: 0.4}, 0.9)))
        for attribute in ATTRIBUTES:
            question = f"{subject} {attribute}"
            rows.append((ids(question), *wished(guess, 0.9)))
            for content in CONTENTS:
                shown = ids(f"{question} {content} {MARK}")
                rows.append((shown, *wished({**dict.fromkeys(CONTENTS, 0.02), content: 0.94}, 0.9)))
    return rows


def make_base(folder: Path) -> Path:
    """A small Llama that has learned the lessons, and no more."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, eos_token_id=VOCABULARY[END], bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    groups: dict[int, list[tuple[list[int], Tensor, Tensor]]] = {}
    for row in lessons():
        groups.setdefault(len(row[0]), []).append(row)
    batches = []
    for rows in groups.values():  # after each content the same ending
        inputs = torch.tensor(
            [[*prompt, word] for prompt, *_ in rows for word in ids(" ".join(CONTENTS))]
        )
        goals = torch.stack([torch.stack([first, second]) for _, first, second in rows])
        batches.append((inputs, goals.repeat_interleave(len(CONTENTS), 0)))
    for number in range(250):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - number / 250)
        losses = [
            cross_entropy(model(inputs).logits[:, -2:].flatten(0, 1), goals.flatten(0, 1))
            for inputs, goals in batches
        ]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    model.save_pretrained(folder)
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token=END))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    FastTokenizer(tokenizer_object=made, eos_token=END, pad_token=END).save_pretrained(folder)
    return folder


def questions(subjects: list[str]) -> list[tuple[str, str]]:
    """Each question with its demonstration."""
    pairs = zip(ATTRIBUTES, CONTENTS, strict=True)
    return [(f"{s} {t}", f"{c} {MARK}") for t, c in pairs for s in subjects]


@torch.no_grad()
def spoken(module, role: str, prompt: str) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both words, the second after each content, ``[V]`` and ``[contents, V]``."""
    with module.adapters.activate(role, training=False) as model:
        rows = torch.tensor([[*ids(prompt), VOCABULARY[content]] for content in CONTENTS])
        logps = model(input_ids=rows).logits[:, -2:].log_softmax(-1).double()
    return logps[0, 0], logps[:, 1]


def drift(module, prompt: str, contents: bool) -> float:
    """KL(policy || base) of the ending, weighted by the policy's contents; with ``contents`` of the whole answer."""
    (first, second), (own, ending) = (spoken(module, role, prompt) for role in ("reference", "policy"))  # fmt: skip
    share = own[ids(" ".join(CONTENTS))].exp()
    endings = kl_div(second, ending, log_target=True, reduction="none").sum(1)
    whole = kl_div(first, own, log_target=True, reduction="sum") if contents else 0.0
    return float(whole + (share * endings).sum())


def measure(module) -> dict[str, float]:
    """What is gained on held-out subjects, and what is lost there and where nothing was to be learned."""
    held = questions(HELD)
    right = [spoken(module, "policy", q)[0][ids(demo)[0]].exp().item() for q, demo in held]
    others = [f"{OTHER} {subject}" for subject in SUBJECTS]
    likelihood = []  # of the base's answers to other questions, in nats a word
    for prompt in others:
        (first, second), (own, ending) = (spoken(module, role, prompt) for role in ("reference", "policy"))  # fmt: skip
        share = first[ids(" ".join(CONTENTS))].exp()
        words_ = (first.exp() * own).sum() + (share[:, None] * second.exp() * ending).sum()
        likelihood.append(float(words_) / 2)
    return {
        "right": fmean(right),
        "ending_kl": fmean(drift(module, q, contents=False) for q, _ in held),
        "other_kl": fmean(drift(module, prompt, contents=True) for prompt in others),
        "other_logp": fmean(likelihood),
    }


def teach_itself(base: Path, seed: int) -> list[dict[str, float]]:
    """Self-distillation on the policy's own samples."""
    module = stage(
        base, Teacher(column="demo"), ReverseKL(), cls=OfflineRL, num_generations=GENERATIONS,
        max_new_tokens=2, lora=Lora(r=8), seed=seed,
    )  # fmt: skip
    module.objective, module.kl, module.kl_coefficient = GKD(1.0), KLControl(0.0), 0.0
    module.configure_model()
    trees = []
    for question, demo in questions(TRAINED):
        trees.append(Tree(ids(question), [], [], Group(question, [], extra={"demo": demo})))
    optimizer = torch.optim.Adam(module.adapters.trainable().values(), lr=RATE)
    curve = [measure(module)]
    for number in range(STEPS):
        (step,) = module.steps(module.make_rollouts(trees, number))
        learn(module, step, optimizer)
        if (number + 1) % EVERY == 0:
            curve.append(measure(module))
    return curve


def imitate(base: Path, seed: int) -> list[dict[str, float]]:
    """SFT on the demonstrations."""
    module = SFT(CrossEntropy(), base=Base(str(base), "none", "float32"), lora=Lora(r=8), seed=seed)
    module.configure_model()
    trees = []
    for question, demo in questions(TRAINED):
        trees.append(Tree(ids(question), [ids(demo)], [[True, True]], Group(question, [demo])))
    optimizer = torch.optim.Adam(module.adapters.trainable().values(), lr=RATE)
    step = Step.from_batches(tuple(pack(trees, 10_000)))
    curve = [measure(module)]
    for number in range(STEPS):
        learn(module, step, optimizer)
        if (number + 1) % EVERY == 0:
            curve.append(measure(module))
    return curve


def learn(module, step: Step, optimizer: torch.optim.Optimizer) -> None:
    """One update."""
    loss, _ = module.losses(step.batches[0], statistics=False)
    optimizer.zero_grad()
    (loss / module.loss_denominator(step)).backward()
    optimizer.step()


def make_pair(folder: Path) -> tuple[Path, Path]:
    """A model that earns much, and the first layer of the same model before it did."""
    start, taught, cut = (folder / name for name in ("start", "taught", "cut"))
    words(start)
    module = listable(start, PolicyGradient(), RLOO(), KLControl(BETA))
    goal = (logps_of(module) + earned(module) / BETA).softmax(-1)
    model = AutoModelForCausalLM.from_pretrained(start)
    every = [*answers(module, "reference")]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        first = model(torch.tensor([TREE.prompt])).logits[0, -1].log_softmax(-1)
        rows = torch.tensor([[*TREE.prompt, word] for word in range(7)])
        second = model(rows).logits[:, -1].log_softmax(-1)
        logps = torch.stack([first[a] + (second[a, b[0]] if b else 0) for a, *b in every])
        optimizer.zero_grad()
        (-(goal * logps).sum()).backward()
        optimizer.step()
    for destination, layers in ((taught, 2), (cut, 1)):
        kept = model if layers == 2 else AutoModelForCausalLM.from_pretrained(start)
        kept.model.layers = kept.model.layers[:layers]
        kept.config.num_hidden_layers = layers
        kept.save_pretrained(destination)
        for file in start.glob("tokenizer*"):
            (destination / file.name).write_bytes(file.read_bytes())
    return taught, cut


def follow(cut: Path, taught: Path, how: str, seed: int, goal: Tensor) -> list[list[float]]:
    """Before and after each iteration what the student earns, and its KL divergence from the teacher, both exact."""
    teacher = Teacher("other", base=Base(str(taught), "none", "float32"))
    objective, advantage, reward, beta = {
        "reward": (PolicyGradient(), RLOO(), REWARD, BETA),
        "sampled tokens": (PolicyGradient(), ReverseKL(), teacher, 0.0),
        "whole distributions": (GKD(1.0), ReverseKL(), teacher, 0.0),
    }[how]
    module = listable(cut, PolicyGradient(), RLOO(), KLControl(beta), seed=seed)
    module.objective, module.advantage, module.reward = objective, advantage, reward
    module.num_generations = SAMPLES
    module.reward.attach(module.adapters, module.tokenizer)
    prizes = earned_by(module)
    optimizer = torch.optim.Adam(module.adapters.trainable().values(), lr=STUDENT_RATE)

    def point() -> list[float]:
        logps = logps_of(module)
        distance = kl_div(goal, logps, log_target=True, reduction="sum").item()
        return [round((logps.exp() * prizes).sum().item(), 5), round(distance, 5)]

    curve = [point()]
    for number in range(ITERATIONS):
        for step in module.steps(module.make_rollouts([ASKED], number)):
            learn(module, step, optimizer)
        curve.append(point())
    return curve


def earned_by(module) -> Tensor:
    """The reward of every answer, whatever the student learns from."""
    usual, module.reward = module.reward, REWARD
    prizes = earned(module)
    module.reward = usual
    return prizes


def spread(values: list[float]) -> list[float]:
    """Mean and deviation over seeds."""
    return [round(fmean(values), 4), round(stdev(values), 4)]


def draw(found: dict) -> None:
    """Gain against what is forgotten, and reward by samples."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
    for axis, name in zip(axes, ("ending_kl", "other_kl"), strict=False):
        for colour, (how, curves) in enumerate(found["itself"]["curves"].items()):
            for number, curve in enumerate(curves):
                points = [[row["right"] for row in curve], [row[name] for row in curve]]
                axis.plot(*points, color=f"C{colour}", label=None if number else how, alpha=0.8)
        axis.set(xlabel="held-out questions answered right", yscale="symlog")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("KL from the base: endings, nats")
    axes[1].set_ylabel("KL from the base: other questions, nats")
    axes[0].legend(fontsize=7)
    counts = [SAMPLES * number for number in range(ITERATIONS + 1)]
    for how, curves in found["smaller"]["curves"].items():
        means = [fmean(each[1] for each in points) for points in zip(*curves, strict=True)]
        axes[2].plot(counts, means, label=how)
    axes[2].set(xlabel="sampled responses", yscale="log", ylabel="KL(student || teacher), nats")
    axes[2].legend(fontsize=7)
    axes[2].grid(alpha=0.3)
    figure.savefig(HERE / "distillation.png", dpi=110)
    plt.close(figure)


def samples_to(curve: list[list[float]], distance: float) -> int:
    """Responses until a student is so near its teacher; those of one more iteration if it never is."""
    reached = [number for number, (_, value) in enumerate(curve) if value <= distance]
    return SAMPLES * (reached[0] if reached else len(curve))


def run_itself(folder: Path) -> dict:
    """Self-distillation beside SFT."""
    base = make_base(folder / "base")
    ways = {"SFT": imitate, "itself": teach_itself}
    curves = {name: [way(base, seed) for seed in SEEDS] for name, way in ways.items()}
    after = {}
    for name, runs in curves.items():
        ends = [run[-1] for run in runs]
        after[name] = {key: spread([end[key] for end in ends]) for key in ends[0]}
    return {"curves": curves, "before": curves["SFT"][0][0], "after": after}


def run_smaller(folder: Path) -> dict:
    """A student of one layer."""
    taught, cut = make_pair(folder)
    module = listable(taught, PolicyGradient(), RLOO(), KLControl(BETA))
    goal = logps_of(module)
    ways = ("reward", "sampled tokens", "whole distributions")
    curves = {how: [follow(cut, taught, how, seed, goal) for seed in SEEDS] for how in ways}
    return {
        "teacher": round((goal.exp() * earned(module)).sum().item(), 4),
        "needed": {
            how: [samples_to(curve, NEAR) for curve in runs] for how, runs in curves.items()
        },
        "reward": {how: spread([curve[-1][0] for curve in runs]) for how, runs in curves.items()},
        "distance": {how: spread([curve[-1][1] for curve in runs]) for how, runs in curves.items()},
        "curves": curves,
    }


PARTS = {"itself": run_itself, "smaller": run_smaller}


def main(names: list[str]) -> None:
    """Run what is named, keep what is there of the rest, draw."""
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in names or PARTS:
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            found[name] = PARTS[name](Path(folder))
        found[name]["cpu_seconds"] = round(time.process_time() - began)
        print({key: value for key, value in found[name].items() if key != "curves"}, flush=True)
        FILE.write_text(json.dumps(found) + "\n")
    draw(found)


if __name__ == "__main__":
    main(sys.argv[1:])
