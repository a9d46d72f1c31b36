"""The generated parts of README.md; ``cog -r README.md`` writes them, ``cog --check`` and a test compare them."""

import ast
import json
import textwrap
from dataclasses import fields
from pathlib import Path

from lit_align.cli.init.base_config import usual_config
from lit_align.cli.init.settings import set_data, set_sizes, start_settings, to_yaml
from lit_align.cli.init.sizes import choose_sizes
from lit_align.cli.plugins import describe_objective
from lit_align.cli.tasks import TASKS, find_task
from lit_align.data.formats import (
    public_completions,
    public_pairs,
    public_votes,
    reasoned,
    unsupported,
)
from lit_align.memory.planner import CUDA_OVERHEAD, MemoryPlanner, Plan
from lit_align.models.inventory import GIB
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.plugins import load_plugins
from lit_align.rl.kl_control import KLControl
from tests import objective_registry
from tests.benchmarks.report import notes
from tests.data.formats import more_public_rows, public_rows
from tests.proofs.hardware import SIZES

ROOT = Path(__file__).parents[1]


ROLES = ("prompt", "responses", "label")
SHAPES = {
    "PublicCompletions": "a response",
    "PublicPairs": "comparisons",
    "PublicVotes": "votes",
    "Reasoned": "thoughts",
}

READING_PATH = (
    "types.py",
    "data/formats/preferences.py",
    "data/read_groups.py",
    "data/tokenize.py",
    "data/packing.py",
    "data/loader.py",
    "models/tree_forward.py",
    "objectives/dpo.py",
    "stages/base.py",
    "stages/language_model_stage.py",
    "stages/sft.py",
    "stages/preference.py",
)


def first_line(cls: type) -> str:
    """First line of a class's docstring."""
    return (cls.__doc__ or "").strip().split("\n")[0]


def plugin_table(kind: str) -> str:
    """Table of the built-in plugins of one kind."""
    registry = load_plugins().registries[f"register_{kind}"]
    rows = [f"| `{name}` | {first_line(registry[name])} |" for name in registry]
    return "\n".join([f"| {kind} | |", "|---|---|", *rows])


def formats() -> str:
    """Table of the formats: their labels and their columns."""
    registry = load_plugins().formats
    rows = ["| format | labels | columns |", "|---|---|---|"]
    for name in registry:
        cls = registry[name]
        labels = ", ".join(sorted(cls.label_kinds))
        rows.append(f"| `{name}` | {labels} | {first_line(cls)} |")
    return "\n".join(rows)


def public_sets() -> str:
    """Table of the public sets that the formats made of tables read, with their columns."""
    rows = ["| set | format | prompt | responses | label |", "|---|---|---|---|---|"]
    for format_name, layouts in {
        "PublicCompletions": public_completions.LAYOUTS,
        "PublicPairs": public_pairs.LAYOUTS,
        "PublicVotes": public_votes.LAYOUTS,
        "Reasoned": reasoned.LAYOUTS,
    }.items():
        for layout in layouts:
            columns = layout.columns_by_role()
            cells = [", ".join(f"`{name}`" for name in columns[role]) for role in ROLES]
            link = _link(layout.source, SHAPES[format_name]) if layout.source else "any"
            rows.append(f"| {link} | `{format_name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def tested_sets() -> str:
    """The names of all public sets of which a row is tested, and of those that are refused."""
    hub = public_rows.HUB
    layouts = public_rows.LAYOUTS | more_public_rows.LAYOUTS
    sources = {source for source, *_ in layouts.values() if source.startswith(hub)}
    tested = sorted((source.rpartition("/")[2] for source in sources), key=str.lower)
    refused = ", ".join(known.name for known in unsupported.SETS)
    text = (
        f"Rows of these sets are tested: {', '.join(tested)}; and exports of distilabel, Argilla and Label Studio. "
        f"Refused with the reason and the remedy: {refused}."
    )
    return textwrap.fill(text, 170, break_long_words=False, break_on_hyphens=False)


def _link(source: str, shape: str) -> str:
    """The name of a set on the hub; of another source, with the shape of its rows, of which it may have several."""
    if source.startswith(public_rows.HUB):
        name = source.removeprefix(public_rows.HUB)
    else:
        name = f"{source.removeprefix('https://').partition('.')[0]}, {shape}"
    return f"[{name}]({source})"


def plugin_names(kind: str) -> str:
    """The built-in plugins of one kind, as a sentence."""
    names = [f"`{name}`" for name in load_plugins().registries[f"register_{kind}"]]
    return f"Built in: {', '.join(names)}."


def objectives() -> str:
    """Table of all objectives, those of lit-align-zoo included."""
    rows = []
    classes = objective_registry.classes()
    for name, cls in sorted(
        classes.items(), key=lambda item: (item[1].__module__.split(".")[0], item[0])
    ):
        package = cls.__module__.split(".")[0].replace("lit_align_zoo", "lit-align-zoo")
        family, label_kind, reference = describe_objective(cls).values()
        cells = (f"`{name}`", first_line(cls), family, label_kind, reference, package)
        rows.append(f"| {' | '.join(cells)} |")
    head = "| objective | | family | label kind | reference model? | package |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def packages() -> str:
    """Table of the package's folders, with the first line of each docstring."""
    rows = []
    for path in sorted((ROOT / "lit_align").glob("*/__init__.py")):
        folder = path.parent.relative_to(ROOT).as_posix()
        rows.append(f"| `{folder}/` | {_module_line(path)} |")
    return "\n".join(["| folder | |", "|---|---|", *rows])


def reading_path() -> str:
    """The files through which SFT and DPO are read, in order."""
    rows = []
    for number, name in enumerate(READING_PATH, 1):
        path = ROOT / "lit_align" / name
        lines = len(path.read_text().splitlines())
        rows.append(f"| {number} | `{name}` | {lines} | {_module_line(path)} |")
    return "\n".join(["| | file | lines | |", "|---|---|---|---|", *rows])


def _module_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.split("\n")[0]


def against_trl(path: str) -> str:
    """The figures of ``tests.benchmarks.vs_trl``, a row for each setting, and what was checked before measuring."""
    found = json.loads((ROOT / path).read_text())
    rows = []
    for name, setting in found["settings"].items():
        rungs = setting["rungs"]
        least = {rung: f"{of['least']:.2f}" for rung, of in rungs.items()}
        ratios = [
            f"{rungs[theirs]['least'] / rungs[ours]['least']:.2f}" if ours in rungs else ""
            for theirs, ours in (("trl", "trees"), ("trl_precomputed", "trees_precomputed"))
        ]
        memory = f"{rungs['trees']['peak'] / rungs['trl']['peak']:.2f}"
        cells = [least["trl"], least.get("rows", ""), least["trees"], *ratios, memory]
        rows.append(
            f"| **{name}**: {setting['title']}; {setting['pairs']} pairs a step | {' | '.join(cells)} |"
        )
    head = "| CPU s a step | TRL | ours, padded rows | ours, trees | times TRL | both precomputed | memory, of TRL's |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows, "", *notes(found)])


def architectures(path: str) -> str:
    """What became of each family in ``tests.proofs.architectures``; families of one outcome share a row."""
    found = json.loads((ROOT / path).read_text())
    groups: dict[tuple[str, str, str], list[str]] = {}
    for family, outcome in found.items():
        left_out = " ".join(f"`{name}`" for name in outcome["adapted"]["left_out"])
        key = (left_out, _steps(outcome["runs"]["none"]), _steps(outcome["runs"]["nf4"]))
        groups.setdefault(key, []).append(family)
    rows = [
        f"| {', '.join(families)} | {' | '.join(outcomes)} |"
        for outcomes, families in groups.items()
    ]
    head = "| families | left out by all-linear | whole weights | 4 bits |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def _steps(outcomes: dict[str, str]) -> str:
    """The steps that work, and how the first other one ends."""
    working = [name for name, outcome in outcomes.items() if outcome == "works"]
    words = [", ".join(working)] if working else []
    for name, outcome in outcomes.items():
        if outcome != "works":
            words.append(f"{name} {'refused' if outcome.startswith('refused') else 'fails'}")
    return "; ".join(words)


def demo(path: str) -> str:
    """Figures and answers of a run of the demo, from its ``summary.json``."""
    found = json.loads((ROOT / path).read_text())
    lines = [f"{'held-out figure':<28}{'before':>8}{'after':>8}"]
    for name, before in found["before"].items():
        cells = [
            f"{value:.2f}" if isinstance(value, float) else str(value)
            for value in (before, found["after"][name])
        ]
        lines.append(f"{name:<28}{cells[0]:>8}{cells[1]:>8}")
    for row in found["answers"][:: max(1, len(found["answers"]) // 3)][:3]:
        lines += ["", row["question"]]
        for when in ("before", "after"):
            told = f"{when + ':':<8}{' '.join(row[when].split())}"
            lines += textwrap.wrap(told, 76, initial_indent="  ", subsequent_indent=" " * 10)
    return "\n".join(["```text", *lines, "```"])


def hardware(path: str) -> str:
    """Table of the settings that fit: a row for each model size, a column for each card; SFT and DPO, then PPO."""
    rows = json.loads((ROOT / path).read_text())
    cards = sorted({row["card"] for row in rows})
    lines = [
        "| model | task | " + " | ".join(f"{card} GB" for card in cards) + " |",
        "|---|---|" + "---|" * len(cards),
    ]
    for billions in sorted({row["billions"] for row in rows}):
        for task in ("dpo", "ppo"):
            label = "SFT, DPO" if task == "dpo" else "PPO, reward model in memory"
            wanted = [row for row in rows if (row["billions"], row["task"]) == (billions, task)]
            cells = [_fit(row["chosen"]) for row in sorted(wanted, key=lambda row: row["card"])]
            lines.append(f"| {billions:g}B | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _fit(settings: dict | None) -> str:
    if settings is None:
        return "-"
    bits = "4" if settings["quantization"] == "nf4" else "16"
    again = ", ↻" if settings["gradient_checkpointing"] else ""
    return f"{bits} bits, {settings['max_length']}{again}"


def written_config() -> str:
    """The YAML that ``lit-align init dpo`` writes for an 8B model and a card of 24 GB, without its notes."""
    settings = start_settings(find_task("dpo", TASKS), "Qwen/Qwen3-8B")
    set_data(settings, ["my.csv"], [])
    sizes = choose_sizes(settings, usual_config(8), 24, None)
    set_sizes(settings, sizes)
    return f"```yaml\n# dpo.yaml\n{to_yaml(settings, {})}```"


KL_SETTINGS = {
    "coefficient": "the reward that one nat of KL divergence costs; 0 needs no reference",
    "where": "subtracted from the `reward` of each token, or added as a term of the `loss`",
    "estimator": "of a token's divergence; in the loss `k2`, which has the right gradient, or `k3`",
    "target": "nats per response that the coefficient aims at by itself; null keeps it fixed",
    "horizon": "responses over which a coefficient with a target may change by a fifth",
}
"""What each setting of `KLControl` does, for the page on RL."""


def kl_settings() -> str:
    """Table of the settings of the KL penalty, with their defaults."""
    rows = ["| setting | default | |", "|---|---|---|"]
    for field in fields(KLControl):
        default = "null" if field.default is None else field.default
        rows.append(f"| `{field.name}` | `{default}` | {KL_SETTINGS[field.name]} |")
    return "\n".join(rows)


def peaks() -> str:
    """Table of the predicted peak of DPO with a base in 4 bits, by the size of the model."""
    rows = [
        "| model | activations recomputed (↻), GiB | activations kept, GiB |",
        "|---|---:|---:|",
    ]
    for billions in SIZES:
        planner = MemoryPlanner(usual_config(billions))
        cells = []
        for is_checkpointing in (True, False):
            plan = Plan(
                base=Base("", quantization="nf4", dtype="bfloat16"),
                lora=Lora(r=16),
                token_budget=4096,
                batch_size=64,
                tree=4096,
                gradient_checkpointing=is_checkpointing,
                reference=True,
            )
            cells.append(f"{planner.peak(plan) / GIB + CUDA_OVERHEAD:.1f}")
        rows.append(f"| {billions:g}B | {' | '.join(cells)} |")
    return "\n".join(rows)
