"""``lit-align evaluate frontier``: gold and proxy reward against KL, of several runs on one axis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.cli.command import DATA_SETTINGS, Settings, load_judged_groups, run_setting
from lit_align.cli.frontier_rewards import Rewards, in_words, is_same_reward, trained_on
from lit_align.cli.frontier_runs import read_frontier_run
from lit_align.cli.frontier_samples import Asked
from lit_align.errors import ConfigError
from lit_align.evaluation.frontier import summarize, turn_sentence
from lit_align.evaluation.frontier_plot import plot_frontier
from lit_align.jsonl import write_json
from lit_align.rewards import Reward
from lit_align.types import LabelKind

if TYPE_CHECKING:
    from rich.console import Console

RUNS = """\
Numbered folders of RL runs, of predict with best-of-n and of other runs, checkpoints, or tables with the columns kl,
proxy and gold."""

SETTINGS: Settings = {
    "runs": {"type": str, "nargs": "+", "required": True, "help": RUNS},
    "gold": {
        "type": Reward,
        "required": True,
        "help": "The reward that is wanted, by its name; recorded by runs whose Weighted has it with weight 0.",
    },
    "proxy": {
        "type": Reward | None,
        "default": None,
        "help": "The reward that was optimised; null: the score that runs recorded.",
    },
    **DATA_SETTINGS,
    "data": {
        "type": str,
        "nargs": "+",
        "default": [],
        "help": "Prompts on which checkpoints are sampled; not needed for runs that recorded both rewards.",
    },
    "num_generations": {"type": int, "default": 4, "help": "Responses to each of these prompts."},
    "max_new_tokens": {
        "type": int | None,
        "default": None,
        "help": "Longest response; null: that of the run.",
    },
    "seed": {"type": int, "default": 0, "help": "Of sampling."},
    **run_setting("runs/evaluate"),
}


def refuse(settings: Any) -> None:
    """Require responses.

    Raises:
        ConfigError: if there is none to a prompt.
    """
    if settings.num_generations < 1:
        raise ConfigError(f"num_generations is {settings.num_generations}; it is at least 1")


def run(settings: Any, folder: Path) -> dict[str, Any]:
    """Read or sample the runs, fit, print, and write ``frontier.json`` and ``frontier.png``; returns the figures."""
    from rich.console import Console

    console = Console()
    asked = None
    if settings.data:
        groups = load_judged_groups(settings, LabelKind.PROMPTS, console, folder)
        asked = Asked(groups, settings.num_generations, settings.max_new_tokens, settings.seed)
    rewards = Rewards(settings.gold, settings.proxy)
    runs = [read_frontier_run(path, rewards, asked) for path in settings.runs]
    entries = [summarize(run_) for run_ in runs]
    summary: dict[str, Any] = {
        "gold": repr(settings.gold),
        "proxy": None if settings.proxy is None else repr(settings.proxy),
        "kl": "nats per response, from the initial policy",
        "notes": [] if rewards.proxy else _notes([run_.name for run_ in runs]),
        "runs": entries,
    }
    write_json(folder / "frontier.json", summary)
    names = (rewards.gold_part, rewards.proxy_part or "as the runs were trained on")
    plot_frontier(runs, entries, names, folder / "frontier.png")
    _print_runs(console, entries, rewards.gold_part)
    for note in summary["notes"]:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    print(f"The run is in {folder}: frontier.json, frontier.png.")
    return summary


def _notes(paths: list[str]) -> list[str]:
    """Whether the runs have scores of different rewards, so that their proxies are not one."""
    rewards = {path: trained_on(path) for path in paths}
    written = {path: reward for path, reward in rewards.items() if reward is not None}
    first = next(iter(written.values()), None)
    if all(is_same_reward(first, reward) for reward in written.values()):
        return []
    sentence = "; ".join(f"{path}: {in_words(reward)}" for path, reward in written.items())
    return [f"The proxy is the score that each run recorded, of different rewards: {sentence}."]


def _print_runs(console: Console, entries: list[dict[str, Any]], gold: str) -> None:
    from rich.table import Table

    table = Table("run", "", "points", "KL to", f"best {gold}", "at KL", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for entry in entries:
        best = entry["best"]
        reached, at = f"{entry['largest_kl']:.1f}", f"{best['kl']:.1f}"
        number = str(len(entry["points"]))
        table.add_row(entry["run"], entry["method"], number, reached, f"{best['gold']:.2f}", at)
    console.print(table, highlight=False)
    for entry in entries:
        sentence = turn_sentence(entry, gold)
        line = f"{entry['run']}: {sentence}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
