"""Tables of claims about reward models, judges, people and other modalities, and of costs beside TRL's."""

from __future__ import annotations

from statistics import mean
from typing import Any

from tests.docs.claims.markdown import by_seed, decimals, interval, percent, table

Figures = dict[str, Any]
PEOPLE = {"warm256": "a person of one taste", "cold256": "a person of the other"}


def reward_models(figures: Figures) -> str:
    """Held-out accuracy beside what length alone would get."""
    rows = []
    for name, part in figures.items():
        pooled = part["pooled"]
        length = "always the longer"
        share = pooled["longer_wins"]
        if share < pooled["shorter_wins"]:
            length, share = "always the shorter", pooled["shorter_wins"]
        right = percent(pooled["accuracy"])[0]
        bounds = interval(pooled["interval"], digits=0, scale=100)
        counts = [str(pooled["comparisons"]), str(pooled["prompts"]), str(len(part["runs"]))]
        rows.append([name, right, bounds, f"{length}: {percent(share)[0]}", *counts])
    head = ["data", "right", "95 % interval", "by length alone", "comparisons", "prompts", "seeds"]
    return table(head, rows)


def judges(figures: Figures) -> str:
    """A small judge, by the order in which the better response was shown."""
    rows = []
    arms = (
        ("judge, better one shown first", "judge, better one first"),
        ("judge, better one shown last", "judge, better one last"),
        ("judge, both orders", "judge, both orders"),
        ("marks 1 to 10", "marks from 1 to 10"),
        ("longer", "always the longer"),
        ("another person", "another person"),
    )
    for key, name in arms:
        cells = []
        for data in ("pandalm", "llmbar"):
            part = figures[data].get(key)
            cell = percent(part["accuracy"])[0] if part else ""
            if part and "interval" in part:
                cell += f" ({interval(part['interval'], digits=0, scale=100)})"
            cells.append(cell)
        rows.append([name, *cells])
    return table(["right (95 % interval)", "PandaLM", "LLMBar"], rows)


def personal(figures: Figures) -> str:
    """How often votes are predicted where tastes conflict and where they agree, and what policies are worth."""
    seeds = [name for name in figures if name.startswith("seed ")]
    parts = [figures[name] for name in seeds]
    learned = [part["shrinkage"]["1.0"] for part in parts]
    rows = []
    for where in ("disputed", "agreed"):
        for key, name in (
            ("pooled", "one head for all"),
            ("personal", "own head"),
            ("oracle", "oracle"),
        ):
            means = [run[where]["mean"][key]["mean"] for run in learned]
            rows.append((f"{where} votes right: {name}", percent(*means)))
    gains = [run["disputed"]["difference"]["personal - pooled"] for run in learned]
    bounds = [interval(gain["interval"], digits=0, scale=100) for gain in gains]
    rows.append(("disputed votes: 95 % of the gain, points", bounds))
    for person in parts[0]["policies"]:
        for key, name in (("of all", "policy of all"), ("own", "own policy")):
            worth = [part["policies"][person][key] for part in parts]
            rows.append((f"worth to {PEOPLE.get(person, person)}: {name}", decimals(*worth)))
    return by_seed([int(name.split()[1]) for name in seeds], rows)


def annotators(figures: Figures) -> str:
    """Votes of real people: a head for each beside one for everyone."""
    rows = []
    for name, part in figures.items():
        gain = part["difference"]["personal - pooled"]["interval"]
        means = [100 * part["mean"][key]["mean"] for key in ("personal", "pooled")]
        shares = [f"{value} %" for value in decimals(*means, digits=1)]
        counts = [str(part[key]) for key in ("people", "learned", "held out")]
        agree = percent(part["votes on the same item agree"])
        rows.append([name, *counts, *agree, *shares, interval(gain, digits=1, scale=100)])
    head = ["data", "people", "votes learned", "held out", "agree on an item", "own head right"]
    return table([*head, "one head right", "95 % of the difference, points"], rows)


def seen_prompts(figures: Figures) -> str:
    """Policies that learn on the prompts of their reward model, beside others: gold at one nat, mean of the seeds."""
    runs, rows = figures["runs"], []
    for label, choices in figures["choices"].items():
        for prompts, where in (("own", "the prompts trained on"), ("fresh", "prompts new to both")):
            golds = {
                kind: [run[label][kind]["gold at 1 nat"][prompts] for run in runs]
                for kind in ("seen", "unseen")
            }
            pairs = [*zip(golds["seen"], golds["unseen"], strict=True)]
            means = decimals(*(mean(golds[kind]) for kind in ("seen", "unseen")))
            higher = f"{sum(seen > unseen for seen, unseen in pairs)} of {len(pairs)}"
            differences = decimals(*(seen - unseen for seen, unseen in pairs))
            spread = " to ".join(sorted(differences, key=float)[:: len(pairs) - 1])
            rows.append([f"{choices} choices a prompt, {where}", *means, higher, spread])
    head = ["gold at 1 nat", "on seen prompts", "on others", "seen is higher", "differences"]
    return table(head, rows)


def like_minded(figures: Figures) -> str:
    """Disputed votes that are predicted, for many people of two minds, by how heads are shared."""
    runs, rows = figures["runs"], []
    for votes, arms in runs[0]["votes"].items():
        pooled, *_ = arms
        for arm, model in ((pooled, "pooled"), *((arm, "personal") for arm in arms), (pooled, "oracle")):  # fmt: skip
            means = [run["votes"][votes][arm]["mean"][model]["mean"] for run in runs]
            name = {"pooled": "one head for all", "oracle": "oracle"}.get(model, arm)
            rows.append((f"{votes} votes each: {name}", percent(*means)))
    return by_seed([run["seed"] for run in runs], rows)


def cross_modal(figures: Figures) -> str:
    """Accuracy of each arm on each task."""
    names = {
        "scratch": "from scratch",
        "naive": "fine-tuning",
        "orca": "ORCA",
        "otdd": "ORCA by OTDD",
        "gated": "gated ORCA",
    }
    rows = []
    for task, part in figures["tasks"].items():
        arms = part["arms"]
        cells = [
            f"{decimals(arms[arm]['mean'], digits=3)[0]} ± {decimals(arms[arm]['sd'], digits=3)[0]}"
            for arm in names
        ]
        baselines = (part["baselines"][key] for key in ("nearest neighbour", "random convolutions"))
        rows.append([task.removeprefix("orca_"), *cells, *decimals(*baselines, digits=3)])
    head = ["accuracy ± sd of 3 seeds", *names.values()]
    return table([*head, "nearest neighbour", "random convolutions"], rows)


def otdd(figures: Figures) -> str:
    """A joint step of OTDD beside the same maths pair by pair."""
    seconds, peak = figures["seconds"], figures["peak gb"]
    rows = [
        ["seconds a step", *decimals(seconds["step"], seconds["literal step"], digits=1)],
        ["peak memory, GB", *decimals(peak["ours"], peak["literal"])],
    ]
    return table(["", "ours", "pair by pair"], rows)


def reward_vs_trl(figures: Figures) -> str:
    """CPU seconds of scoring pairs."""
    rows = []
    for name, part in figures.items():
        if name == "machine":
            continue
        seconds, tokens = part["CPU seconds"], part["tokens read"]
        cells = decimals(seconds["theirs"], seconds["ours"], digits=1)
        cells += decimals(part["ratio"])
        rows.append([name, *cells, f"{tokens['theirs']:,}", f"{tokens['ours']:,}"])
    head = ["pairs", "TRL, CPU s", "ours, CPU s", "times less"]
    return table([*head, "tokens TRL reads", "tokens we read"], rows)


def rl_vs_trl(figures: Figures) -> str:
    """CPU seconds of an iteration after sampling."""
    seconds, spread = figures["CPU seconds of scoring and update"], figures["spread"]
    rows = [[name, *decimals(seconds[name], *spread[name], digits=1)] for name in seconds]
    return table(["", "CPU seconds", "least", "most"], rows)


def sampling(figures: Figures) -> str:
    """Sampled tokens a CPU-second."""
    rows = []
    for key, name in (("none", "float32"), ("nf4", "4 bits")):
        rate = figures[key]["tokens a CPU-second"]
        ratio = decimals(figures[key]["ratio"])
        rows.append([name, *decimals(rate["transformers"], rate["ours"], digits=1), *ratio])
    return table(["tokens a CPU-second", "transformers' `generate`", "ours", "times"], rows)


def ppo_memory(figures: Figures) -> str:
    """Peak memory of an iteration of PPO."""
    memory = figures["MiB"]
    cells = [f"{memory[key]:,}" for key in ("TRL", "ours")]
    head = ["", "TRL 1.12, MiB", "ours, MiB", "times less"]
    return table(head, [["PPO", *cells, *decimals(figures["ratio"], digits=1)]])


TABLES = {
    "reward_models": reward_models,
    "judges": judges,
    "personal": personal,
    "annotators": annotators,
    "seen_prompts": seen_prompts,
    "like_minded": like_minded,
    "cross_modal": cross_modal,
    "otdd": otdd,
    "reward_vs_trl": reward_vs_trl,
    "rl_vs_trl": rl_vs_trl,
    "sampling": sampling,
    "ppo_memory": ppo_memory,
}
