"""Tables of claims about abstention, distillation, steps, attributes and on-line training."""

from __future__ import annotations

from typing import Any

from tests.docs.claims.markdown import by_seed, decimals, interval, percent, table

Figures = dict[str, Any]


def seeds_of(figures: Figures) -> list[int]:
    """The numbers of the seeds."""
    return [run["seed"] for run in figures["runs"]]


def abstention(figures: Figures) -> str:
    """How often each arm abstains where the model was least and most sure, and what it earns."""
    runs = figures["runs"]
    rows = []
    for arm in runs[0]["arms"]:
        shares = [run["arms"][arm]["abstains by how sure"] for run in runs]
        unsure, sure = ([share[place] for share in shares] for place in (0, -1))
        rows.append((f"{arm}: abstains where least sure", percent(*unsure)))
        rows.append((f"{arm}: abstains where most sure", percent(*sure)))
        earned = [run["arms"][arm]["reward"]["0.0"] for run in runs]
        rows.append((f"{arm}: mean reward", decimals(*earned)))
    return by_seed(seeds_of(figures), rows)


def abstention_law(figures: Figures) -> str:
    """Where each m turns, and what each arm earns by it."""
    runs = figures["runs"]
    rows = []
    for m in (-0.5, 0.0, 0.5):
        turns = [run["arms"][f"RL, m = {m:g}"]["turns"] for run in runs]
        rows.append((f"m = {m:g}: derived {(1 + m) / 2:.2f}, RL turns at", decimals(*turns)))
    for m in (-0.5, 0.0, 0.5):
        supervised = [arm for arm in runs[0]["arms"] if "SFT" in arm]
        best = [max(run["arms"][arm]["reward"][str(m)] for arm in supervised) for run in runs]
        earned = [run["arms"][f"RL, m = {m:g}"]["reward"][str(m)] for run in runs]
        rows.append((f"m = {m:g}: reward of RL", decimals(*earned)))
        rows.append((f"m = {m:g}: reward of the best SFT", decimals(*best)))
    return by_seed(seeds_of(figures), rows)


def itself(figures: Figures) -> str:
    """What self-distillation and SFT learn and move."""
    part = figures["itself"]
    rows = []
    names = {
        "right": "held-out questions right",
        "ending_kl": "endings: nats from the base",
        "other_kl": "other questions: nats from the base",
    }
    for key, name in names.items():
        cells = []
        for arm in ("itself", "SFT"):
            ends = [run[-1][key] for run in part["curves"][arm]]
            mean, low, high = sum(ends) / len(ends), min(ends), max(ends)
            show = percent if key == "right" else decimals
            digits = {} if key == "right" else {"digits": 3 if key == "ending_kl" else 1}
            middle, least, most = show(mean, low, high, **digits)
            cells.append(f"{middle} ({least} to {most})")
        before = part["before"][key]
        first = percent(before)[0] if key == "right" else f"{before:g}"
        rows.append([name, first, *cells])
    return table(["mean (range) of three seeds", "before", "self-distillation", "SFT"], rows)


def smaller(figures: Figures) -> str:
    """Samples that a student needs, by what it learns from."""
    part = figures["smaller"]
    step = 32  # samples between two points of a curve
    rows = []
    for arm in ("whole distributions", "sampled tokens", "reward"):
        goal = 0.9 * part["teacher"]
        first = [
            step * next(k for k, (reward, _) in enumerate(run) if reward >= goal)
            for run in part["curves"][arm]
        ]
        near = part["needed"][arm]
        limit = step * len(part["curves"][arm][0])
        nears = "never" if min(near) >= limit else f"{min(near)} to {max(near)}"
        rows.append([arm, _range(first), nears, *decimals(part["reward"][arm][0], digits=3)])
    head = ["learns from", "samples to 90 % of its reward", "samples to within 0.1 nats"]
    return table([*head, f"reward in the end (teacher: {part['teacher']:.3f})"], rows)


def _range(values: list[int]) -> str:
    return f"{min(values)} to {max(values)}" if min(values) < max(values) else str(values[0])


def self_taught(figures: Figures) -> str:
    """What SmolLM2 gains and moves, by steps."""
    rows = []
    for run in figures["runs"]:
        for arm, points in run["arms"].items():
            before = points[0]
            for point in (before, points[1], points[-1]):
                if point is before and rows and rows[-1][0].endswith(f"seed {run['seed']}"):
                    continue  # all arms begin there
                gain = point["demonstrations"] - before["demonstrations"]
                others = point["others"] - before["others"]
                worth = decimals(gain / point["KL"], digits=1) if point["KL"] else [""]
                cells = [*decimals(gain, point["KL"], others), *worth]
                cells += percent(point["keyword"], point["short"])
                name = "before" if point is before else arm
                rows.append([f"{name}, seed {run['seed']}", str(point["step"]), *cells])
    head = ["", "steps", "gain", "KL", "others gain", "gain / KL", "right word", "short"]
    return table(head, rows)


def steps(figures: Figures) -> str:
    """What scores of steps find, and how fast each reward teaches."""
    runs = figures["runs"]
    places = [run["first error"]["found"] for run in runs]
    chance = [run["first error"]["chance"] for run in runs]
    rows = [
        ("first error found", percent(*places)),
        ("the most common place", percent(*chance)),
        ("one of 8 samples is right", percent(*(run["best of"]["any"] for run in runs))),
        ("best of 8 by its worst step is right", percent(*(run["best of"]["min"] for run in runs))),
    ]
    for arm in ("outcome", "steps and outcome", "steps"):
        until = [run["samples until half are right"][arm] for run in runs]
        rows.append((f"{arm}: samples until half are right", [str(n or "never") for n in until]))
    for arm in ("outcome", "steps and outcome", "steps"):
        ends = [run["right at the end"][arm] for run in runs]
        rows.append((f"{arm}: right in the end", percent(*ends)))
    return by_seed(seeds_of(figures), rows)


def attributes(figures: Figures) -> str:
    """Length and quality of answers by what is asked for: from the lowest to the highest seed."""
    runs = figures["runs"]

    def between(values: list[float], *, shares: bool) -> str:
        ends = (min(values), max(values))
        return " to ".join(percent(*ends) if shares else decimals(*ends, digits=1))

    rows = []
    for level in range(5):
        lengths = [run["asked"]["verbosity"][level]["length"] for run in runs]
        by_length = [run["asked"]["verbosity"][level]["right"] for run in runs]
        by_quality = [run["asked"]["helpfulness"][level]["right"] for run in runs]
        cells = [between(lengths, shares=False), between(by_length, shares=True)]
        rows.append([str(level), *cells, between(by_quality, shares=True)])
    base = [run["base"] for run in runs]
    cells = [between([row["length"] for row in base], shares=False)]
    cells += [between([row["right"] for row in base], shares=True)] * 2
    rows.append(["no request", *cells])
    head = ["level", "verbosity: adjectives", "verbosity: right"]
    return table([*head, "helpfulness: right"], rows)


def targets(figures: Figures) -> str:
    """What each way of on-line training gained."""
    rows = []
    for name, run in figures.items():
        cells = decimals(run["before"], run["after"], run["gain"])
        rows.append([name, *cells, interval(run["interval"]), str(run["cpu seconds"])])
    head = ["", "before", "after", "gain", "95 % interval", "CPU seconds"]
    return table(head, rows)


def nouns(figures: Figures) -> str:
    """Nouns gained by where labels come from."""
    rows = []
    for arm, summary in figures["over the base"].items():
        judged = [run["judge"] for run in figures["runs"][arm] if "judge" in run]
        right = " to ".join(percent(min(judged), max(judged))) if judged else ""
        rows.append([arm, *decimals(summary["gain"]), interval(summary["interval"]), right])
    head = ["labels", "nouns gained", "95 % interval", "judge right on pairs"]
    return table(head, rows)


TABLES = {
    "abstention": abstention,
    "abstention_law": abstention_law,
    "distillation, itself": itself,
    "distillation, smaller": smaller,
    "self_taught": self_taught,
    "steps": steps,
    "attributes": attributes,
    "targets": targets,
    "nouns": nouns,
}
