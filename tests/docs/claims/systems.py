"""Tables of claims about runs that are killed, odd input, careless people, large files, time and memory."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tests.docs.claims.markdown import decimals, percent, table

Figures = dict[str, Any]


def kills(figures: Figures) -> str:
    """How often each stage was killed, and how many of its resumed runs differ."""
    rows = []
    for stage, parts in figures.items():
        problems = sum(len(part["problems"]) for part in parts.values())
        pairs = str(parts["every state"]["pairs"])
        chains = str(len(parts["random chains"]["chains"]))
        processes = str(len(parts.get("two processes", {}).get("chains", [])))
        rows.append([stage, pairs, chains, processes, str(problems)])
    head = ["stage", "states compared", "runs of three kills", "runs of two processes"]
    return table([*head, "differences"], rows)


def drills(figures: Figures) -> str:
    """How many cases of each mishap, and how many ended otherwise than they must."""
    rows = []
    for name, cases in figures.items():
        if isinstance(cases, list):
            problems = sum(len(case["problems"]) for case in cases)
            rows.append([name, str(len(cases)), str(problems)])
    return table(["mishap", "cases", "ended otherwise"], rows)


def soak(figures: Figures) -> str:
    """Memory and open files of an hour of steps."""
    hour = figures["soak"]
    descriptors = " to ".join(map(str, hour["descriptors"]))
    memory = decimals(hour["MiB after warm-up"], hour["MiB at the end"], hour["MiB an hour"])
    head = ["minutes", "steps", "MiB after warm-up", "MiB in the end", "MiB an hour", "open files"]
    return table(head, [[f"{hour['minutes']:g}", f"{hour['steps']:,}", *memory, descriptors]])


def fuzz(figures: Figures) -> str:
    """Inputs tried on each reader."""
    rows = [
        [name, f"{part['examples']:,}", str(part["failures"]), str(part["seconds"])]
        for name, part in figures.items()
    ]
    return table(["what was tried", "inputs", "crashes", "seconds"], rows)


def poisoning(figures: Figures) -> str:
    """Accuracy of aggregated labels by the share of bad annotators."""
    names = {"flip": "flip every vote", "coin": "toss a coin"}
    rows = []
    for bad, title in names.items():
        for share in ("0.0", "0.1", "0.3"):
            ways = figures[bad]
            cells = [
                f"{percent(ways[how][share]['accuracy'])[0]} ± {percent(ways[how][share]['std'])[0]}"
                for how in ("majority", "dawid_skene")
            ]
            rows.append([f"{percent(float(share))[0]} {title}", *cells])
    return table(["annotators", "majority", "Dawid-Skene"], rows)


def data_at_size(figures: Figures) -> str:
    """Cost of preparing rows, the first time and again."""
    rows = []
    for number, part in figures["rows"].items():
        cells = [f"{part[start]['cpu_seconds']:,.0f}" for start in ("first", "second")]
        cells += [f"{part[start]['peak_mib']:,}" for start in ("first", "second")]
        theirs = part.get("trl, processes: 2")
        trl = ["", ""]
        if theirs:
            trl = [f"{theirs['cpu_seconds']:,.0f}", f"{theirs['peak_mib']:,}"]
        rows.append([f"{int(number):,}", f"{part['mb']:g}", *cells, *trl])
    head = ["rows", "MB", "first, CPU s", "again, CPU s", "first, MiB", "again, MiB"]
    return table([*head, "TRL, CPU s", "TRL, MiB"], rows)


def labelling(figures: Figures) -> str:
    """Votes that were sent to the labelling page, and what became of them."""
    replay, kill, latency = (figures[part] for part in ("replay", "kill", "latency"))
    times = " and ".join(f"{latency[f'vote {part}, ms']:g}" for part in ("p50", "p99"))
    pages = " and ".join(f"{latency[f'page {part}, ms']:g}" for part in ("p50", "p99"))
    people = latency["annotators"]
    rows = [
        ["real votes, sent over HTTP", f"{replay['votes']:,} in {replay['seconds']:g} s"],
        ["votes while the server is killed", f"{kill['votes']:,}"],
        ["of these lost, doubled", f"{kill['lost']}, {kill['doubled']}"],
        [f"a vote with {people} people and exports, median and 99th percentile", f"{times} ms"],
        [f"a page with {people} people and exports, median and 99th percentile", f"{pages} ms"],
    ]
    return table(["", "measured"], rows)


def throughput(figures: Figures) -> str:
    """Predicted and measured CPU seconds of a step."""
    rows = []
    for task, runs in figures.items():
        for processes in ("1", "2", "4"):
            run = runs[processes]
            seconds = [sum(run[key].values()) for key in ("predicted", "measured")]
            cells = [*decimals(*seconds, digits=1), *decimals(run["ratio"])]
            rows.append([task, processes, *cells])
    return table(["step of", "processes", "predicted, s", "measured, s", "ratio"], rows)


def architectures(figures: Figures) -> str:
    """How many families train, and how the others end."""
    outcomes: Counter[str] = Counter()
    names: dict[str, list[str]] = {}
    for family, part in figures.items():
        ends = [end for run in part["runs"].values() for end in run.values()]
        refused = any(end.startswith("refused") for end in ends)
        outcome = "refused in a sentence" if refused else "everything works"
        if not refused and set(ends) != {"works"}:
            outcome = "fails"
        outcomes[outcome] += 1
        names.setdefault(outcome, []).append(family)
    rows = [
        [outcome, str(count), "" if outcome == "everything works" else ", ".join(names[outcome])]
        for outcome, count in outcomes.items()
    ]
    return table(["outcome", "families", ""], rows)


def first_hour(transcript: str) -> str:
    """Seconds of each command of a new user."""
    steps = re.findall(r"^\$ (.+?)$.*?^\[(\d+) s\]$", transcript, re.MULTILINE | re.DOTALL)
    rows = [[f"`{command.replace('|', chr(92) + '|')}`", seconds] for command, seconds in steps]
    return table(["command", "seconds"], rows)


TABLES = {
    "kills": kills,
    "drills": drills,
    "drills, soak": soak,
    "fuzz": fuzz,
    "poisoning": poisoning,
    "data_at_size": data_at_size,
    "labelling": labelling,
    "throughput": throughput,
    "architectures": architectures,
    "first_hour": first_hour,
}
