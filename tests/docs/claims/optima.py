"""Tables of claims about optima that are known, and about what optimisation does to a reward."""

from __future__ import annotations

from typing import Any

from tests.docs.claims.markdown import by_seed, decimals, percent, table

Figures = dict[str, Any]


def rounds(figures: Figures) -> str:
    """Distance to the optimum, before and after."""
    rows = [[arm, *decimals(run["start"], run["end"], digits=4)] for arm, run in figures.items()]
    return table(["training on", "nats away at the start", "in the end"], rows)


def ipo(figures: Figures) -> str:
    """Margins of IPO and DPO by beta."""
    head = ["objective and β", "half way", f"after {figures['steps']:,} steps"]
    margins = figures["margins"].items()
    return table(head, ([name, *decimals(*run.values())] for name, run in margins))


def samplers(figures: Figures) -> str:
    """Nats from the optimum, by noise of the server and by how it is corrected."""
    setups = ("staleness 0, weights", "staleness 1, weights", "staleness 0, no weights")
    rows = []
    for method in ("PPO, KL in the reward", "RLOO, KL in the reward", "RLOO, KL in the loss"):
        for noise in ("0", "0.1", "0.5", "1"):
            runs = [figures.get(f"{method}; noise {noise}, {setup}") for setup in setups]
            cells = [decimals(run["to the optimum"], digits=4)[0] if run else "" for run in runs]
            derived = [run["between the optima"] for run in runs if run and len(run) > 3]
            cells += decimals(*derived[:1], digits=4) or [""]
            rows.append([method, noise, *cells])
    head = [
        "",
        "noise, nats",
        "weights",
        "weights, a step old",
        "no weights",
        "no weights, derived",
    ]
    return table(head, rows)


def off_policy(figures: Figures) -> str:
    """Where each objective ends, by learning rate and regime."""
    summary = figures["summary"]
    columns = [(rate, regime) for rate in summary for regime in summary[rate]]
    head = ["nats from the optimum", *(f"{regime}, lr {rate}" for rate, regime in columns)]
    rows = []
    for objective in summary["0.05"]["1 update, fresh"]:
        ends = [summary[rate][regime][objective]["end"] for rate, regime in columns]
        rows.append([objective, *decimals(*ends, digits=3)])
    return table(head, rows)


def frontier(figures: Figures) -> str:
    """Gold and proxy of each method at the start, at its best and in the end, by seed."""
    rows = []
    seeds = figures["seeds"]
    correlations = [seed["correlation of proxy and gold"] for seed in seeds]
    rows.append(("correlation of proxy and gold", decimals(*correlations)))
    for method in ("RL", "rejection sampling", "best-of-n"):
        runs = [run for run in figures["runs"] if run["method"] == method]
        for name, values in (
            ("gold, start", [run["points"][0]["gold"] for run in runs]),
            ("gold, highest", [run["best"]["gold"] for run in runs]),
            ("gold, end", [run["points"][-1]["gold"] for run in runs]),
            ("proxy, start", [run["points"][0]["proxy"] for run in runs]),
            ("proxy, end", [run["points"][-1]["proxy"] for run in runs]),
        ):
            if method == "RL" or name not in ("gold, start", "proxy, start"):
                rows.append((f"{method}: {name}", decimals(*values)))
    formula = "log n - (n - 1) / n"
    for key, name in (("exact", "exact"), (formula, f"by the formula {formula}")):
        values = [seed["KL of the best of 64"][key] for seed in seeds]
        rows.append((f"KL of the best of 64, {name}", decimals(*values)))
    return by_seed([seed["seed"] for seed in seeds], rows)


def frontier_smollm2(figures: Figures) -> str:
    """The same on SmolLM2, where gold is a mild sentiment."""
    learned = [run for run in figures["runs"] if run["method"] == "RL"]
    chosen = [run for run in figures["runs"] if run["method"] == "best-of-n"]
    rises = [run["points"][-1]["proxy"] - run["points"][0]["proxy"] for run in learned]
    rows = [
        ("pairs of the reward model", [str(seed["pairs"]) for seed in figures["seeds"]]),
        ("RL: proxy rises by", decimals(*rises, digits=1)),
        ("RL: gold, start", decimals(*(run["points"][0]["gold"] for run in learned))),
        ("RL: gold, highest", decimals(*(run["best"]["gold"] for run in learned))),
        ("RL: gold, end", decimals(*(run["points"][-1]["gold"] for run in learned))),
        ("RL: largest KL, nats", decimals(*(run["largest_kl"] for run in learned), digits=1)),
        ("best of 16: gold", decimals(*(run["points"][-1]["gold"] for run in chosen))),
        ("best of 16: KL, nats", decimals(*(run["points"][-1]["kl"] for run in chosen), digits=1)),
    ]
    return by_seed([seed["seed"] for seed in figures["seeds"]], rows)


def best_of(figures: Figures) -> str:
    """Mean reward of the best of n."""
    rows = [
        [str(point["n"]), *decimals(point["reward"], point["kl"])] for point in figures["curve"]
    ]
    return table(["n", "mean reward", "nats from the base"], rows)


def on_policy(figures: Figures) -> str:
    """Sentiment and divergence on held-out prompts after each run."""
    before = figures["before"]
    rows = [["before", *decimals(before["scores"]), *decimals(before["kl"], digits=1), "", ""]]
    for name, run in figures["runs"].items():
        held_out = run["held out"]
        warned = "yes" if run["warnings"] else "no"
        cells = [*decimals(held_out["scores"]), *decimals(held_out["kl"], digits=1)]
        rows.append([name, *cells, f"{run['CPU seconds']:.0f}", warned])
    return table(["run", "sentiment, held out", "KL, nats", "CPU seconds", "warned"], rows)


def methods(figures: Figures) -> str:
    """Gold of RL and DPO at equal KL."""
    rows = []
    for nats in figures["methods"][0]["RL"]["gold at nats"]:
        for method in ("RL", "DPO"):
            golds = [run[method]["gold at nats"][nats] for run in figures["methods"]]
            rows.append((f"{method} at {nats} nats", decimals(*golds)))
    return by_seed((1, 2, 3), rows)


def noise(figures: Figures) -> str:
    """Gold of what is learned from flipped choices."""
    rows = []
    for share in figures["noise"][0]:
        for arm in figures["noise"][0][share]:
            golds = [run[share][arm] for run in figures["noise"]]
            cells = ["" if gold is None else decimals(gold)[0] for gold in golds]
            rows.append((f"{percent(float(share))[0]} flipped: {arm}", cells))
    return by_seed((1, 2, 3), rows)


def size(figures: Figures) -> str:
    """Gold of the best of 16 by the size of the reward model."""
    rows = []
    for units in figures["size"][0]:
        golds = [run[units]["best of 16"] for run in figures["size"]]
        rows.append((f"{units} units", decimals(*golds)))
    return by_seed((1, 2, 3), rows)


TABLES = {
    "rounds": rounds,
    "ipo": ipo,
    "samplers": samplers,
    "off_policy": off_policy,
    "frontier": frontier,
    "frontier_smollm2": frontier_smollm2,
    "best_of": best_of,
    "on_policy": on_policy,
    "studies, methods": methods,
    "studies, noise": noise,
    "studies, size": size,
}
