"""From figures to a table: ``table("tests/proofs/vs_trl.json")``."""

import json
import statistics
from pathlib import Path

NAMES = {
    "trl": "TRL",
    "trl_precomputed": "TRL, reference precomputed",
    "rows": "ours, TRL's layout: a padded row for each response",
    "trees": "ours: trees",
    "trees_precomputed": "ours, reference precomputed",
}

TARGETS = (
    ("pairs", "trees", "trl", 3.0, "pairs per CPU-second against TRL"),
    (
        "pairs",
        "trees_precomputed",
        "trl_precomputed",
        2.0,
        "the same, both with the reference precomputed",
    ),
    ("memory", "trees", "trl", 0.6, "peak memory against TRL's"),
)


def merged(runs: list[dict], pairs: int) -> dict:
    """One rung's figures over all its processes."""
    seconds = [second for run in runs for second in run["seconds"]]
    least = min(seconds)  # what else runs on the machine only ever adds
    steps = len(runs[0]["losses"])
    return {
        "seconds": seconds,
        "wall": [second for run in runs for second in run["wall"]],
        "least": least,
        "pairs_per_second": pairs / least,
        "setup_per_step": statistics.median(run["setup"] for run in runs) / steps,
        "peak": statistics.median(run["peak"] for run in runs),
        "load": [run["load"] for run in runs],
    }


def table(path: str | Path) -> str:
    """The figures of a file as Markdown."""
    return rendered(json.loads(Path(path).read_text()))


def rendered(found: dict) -> str:
    """Tables of every setting, and what was checked before anything was measured."""
    parts = []
    for name, setting in found["settings"].items():
        rungs = setting["rungs"]
        base = rungs["trl"]
        lines = [
            f"**{name}**: {setting['title']}; {setting['pairs']} pairs a step",
            "",
            "| | CPU s a step | pairs a CPU-second | times TRL | set-up, CPU s a step | peak memory, MiB | of TRL's |",
            "|---|---|---|---|---|---|---|",
        ]
        for rung, of in rungs.items():
            setup = f"{of['setup_per_step']:.2f}" if of["setup_per_step"] else ""
            lines.append(
                f"| {NAMES[rung]} | {of['least']:.2f} | {of['pairs_per_second']:.3f} "
                f"| {base['least'] / of['least']:.2f} | {setup} "
                f"| {of['peak'] / 2**20:.0f} | {of['peak'] / base['peak']:.2f} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, "\n".join(notes(found))])


def notes(found: dict) -> list[str]:
    """What was checked beside, and whether aims were met."""
    notes = []
    machine, versions = found["machine"], found["versions"]
    if gate := found.get("gate"):
        trl, trees = (gate["peak"][rung] / 2**20 for rung in ("trl", "trees"))
        notes.append(
            f"* Over {gate['steps']} steps of one pair of A the losses of the two agree to {gate['loss']:.0e} and the "
            f"adapters to {gate['relative']:.0e} of the distance that training moved them. Peak "
            f"memory of one pair at a time: {trl:.0f} MiB TRL, {trees:.0f} MiB ours."
        )
    if flops := found.get("flops"):
        trl, ours, trees = (flops[what] / 1e9 for what in ("trl", "counted", "expected"))
        notes.append(
            f"* Operations for one pair of A, reference included: TRL {trl:.0f} GFLOP, ours {ours:.0f}, a ratio of "
            f"{trl / ours:.2f}; from the sizes of the trees alone {trees:.0f} were expected ({ours / trees - 1:+.1%})."
        )
    aims = []
    for what, ours, theirs, target, text in TARGETS:
        rungs = found["settings"]["A"]["rungs"]
        if what == "pairs":
            ratio = rungs[theirs]["least"] / rungs[ours]["least"]
            met = ratio >= target
        else:
            ratio = rungs[ours]["peak"] / rungs[theirs]["peak"]
            met = ratio <= target
        aims.append(f"{text} {ratio:.2f}x, the aim of {target}x {'met' if met else 'missed'}")
    notes.append(f"* A: {'; '.join(aims)}.")
    notes.append(
        f"* {machine['cpu'] or machine['gpu']}, {machine['threads']} thread, {machine['dtype']}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    return notes
