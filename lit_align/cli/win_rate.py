"""``lit-align evaluate win-rate``: does one model answer better than another, or than the data?"""

from __future__ import annotations

import gc
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lit_align
from lit_align.cli.command import READING, shown, tell
from lit_align.data.formats.groups import as_row
from lit_align.data.label_conversion import reference_answer
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.data.readers import read_rows
from lit_align.errors import ConfigError, DataError, SetAside
from lit_align.evaluation.win_rate import win_rate
from lit_align.feedback import Feedback
from lit_align.feedback.agreement import label_groups, summarize_results
from lit_align.feedback.base import pair_probabilities
from lit_align.plugins import load_plugins
from lit_align.rewards.base import as_response, response_text
from lit_align.types import Group, LabelKind, Text

WHOSE = "the folder of a run, base for the model under the other one's run, or a file that predict wrote"

SETTINGS: dict[str, dict[str, Any]] = {
    "a": {
        "type": str | None,
        "default": None,
        "help": f"Whose win rate: {WHOSE}; null: the first of two responses.",
    },
    "b": {
        "type": str | None,
        "default": None,
        "help": f"Against whom: {WHOSE}; null: the data's best response.",
    },
    "feedback": {
        "type": Feedback,
        "required": True,
        "help": "Who judges, such as Judge, FromReward or Recorded.",
    },
    **READING,
    "max_new_tokens": {"type": int, "default": 256, "help": "Longest answer of a run."},
    "temperature": {
        "type": float,
        "default": 0.0,
        "help": "Of a run's sampling; 0 takes the likeliest token.",
    },
    "run": {
        "type": str,
        "default": "runs/evaluate",
        "help": "Folder of runs; each one gets a number in it.",
    },
}


def refuse(made: Any) -> None:
    """Say so if it is not known whose answers are to be compared.

    Raises:
        ConfigError: with a remedy.
    """
    if "base" in (made.a, made.b) and not {made.a, made.b} - {"base", None}:
        raise ConfigError(
            f"a is {made.a} and b is {made.b}; base is the model under the other one's run, so name a run"
        )
    if made.a is None and made.b is not None:
        raise ConfigError(f"b is {made.b!r} and a is not set; say in a whose win rate it is")


def run(made: Any, folder: Path) -> dict[str, Any]:
    """Have both answer, have the answers judged, and print and keep the figures.

    Raises:
        DataError: if an answer is missing.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console()
    groups = load_groups(
        DataSource(
            made.data,
            LabelKind.RESPONSES,
            made.format,
            load_plugins().formats.default_instances(),
            max_malformed=made.max_malformed,
            on_ledger=shown(console, folder),
        )
    )
    duels = _duels(made, groups)
    differ = [
        k
        for k, duel in enumerate(duels)
        if response_text(duel.responses[0]) != response_text(duel.responses[1])
    ]
    asked = [duels[k] for k in differ]
    opinions = label_groups(
        made.feedback, asked, "pairs", made.batch_size, lambda starts: track(starts, "judging")
    )
    said = {
        k: pair_probabilities(duels[k], opinion).get((0, 1))
        for k, opinion in zip(differ, opinions, strict=True)
    }
    chances = {
        k: p for k in range(len(duels)) if (p := said.get(k, 0.5)) is not None
    }  # the same answer is a tie
    if not chances:
        raise DataError(
            "no answer was judged, so there is no win rate; see why in what is set aside"
        )
    words = [[len(response_text(one).split()) for one in duels[k].responses] for k in chances]
    figures = win_rate(
        np.array(list(chances.values())),
        np.array([float(a - b) for a, b in words]),
        np.unique([json.dumps(duels[k].prompt) for k in chances], return_inverse=True)[1],
    )
    about = {
        "a": made.a,
        "b": made.b,
        "feedback": repr(made.feedback),
        "data": made.data,
        "length": "words",
    }
    counts = {"same_answer": len(duels) - len(differ), "unread": len(duels) - len(chances)}
    found = {**about, "asked": summarize_results(opinions), **counts, **figures}
    (folder / "win_rate.json").write_text(
        json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    with (folder / "duels.jsonl").open("w", encoding="utf-8") as file:
        for k, duel in enumerate(duels):
            row = {**as_row(duel), "a_wins": chances.get(k)}
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    tell(console, found["asked"])
    _print(found)
    print(f"The run is in {folder}: win_rate.json, duels.jsonl, ledger.json.")
    return found


def _print(found: dict[str, Any]) -> None:
    for name, rate, interval in (
        ("win rate", found["win_rate"], found["interval"]),
        ("at equal length", found["length_controlled"], found["length_controlled_interval"]),
    ):
        low, high = interval
        print(f"{name:<16}{100 * rate:5.1f} %   95 %: {100 * low:.1f} to {100 * high:.1f}")
    wins = f"{found['wins']} wins, {found['ties']} ties ({found['same_answer']} the same answer), {found['losses']} losses"
    print(f"{wins}; {found['unread']} not judged; a is longer in {100 * found['longer']:.1f} %")


def _duels(made: Any, groups: Sequence[Group]) -> list[Group]:
    """Each prompt with two answers; with the row's labels where both answers are the row's."""
    if made.a is None:
        if odd := next((group for group in groups if len(group.responses) != 2), None):
            raise DataError(
                f"{odd.source} has {len(odd.responses)} responses, not two; name in a and b who answers"
            )
        return list(groups)
    first = _answers(made.a, made.b, made, groups)
    second = (
        [_best(group) for group in groups]
        if made.b is None
        else _answers(made.b, made.a, made, groups)
    )
    return [
        Group(group.prompt, [one, other], source=group.source, extra=group.extra)
        for group, one, other in zip(groups, first, second, strict=True)
    ]


def _best(group: Group) -> Text:
    try:
        return reference_answer(group)
    except SetAside:
        raise DataError(
            f"{group.source} has no response to compare with; name in b who answers"
        ) from None


def _answers(who: str, other: str, made: Any, groups: Sequence[Group]) -> list[Text]:
    """What ``who`` says to each prompt."""
    if Path(who).is_file() and not who.endswith(".ckpt"):
        return _written(who, groups)
    responder = lit_align.load(other if who == "base" else who).responder
    options = {"max_new_tokens": made.max_new_tokens, "temperature": made.temperature}
    said = responder.answer_groups(groups, "reference" if who == "base" else "policy", **options)
    del responder
    gc.collect()  # it refers to itself, and the judge needs the memory
    return [as_response(group, one.strip()) for group, (one,) in zip(groups, said, strict=True)]


def _written(file: str, groups: Sequence[Group]) -> list[Text]:
    """Answers of a file by their prompts; of several to one prompt each is used once."""
    known: dict[str, list[str]] = defaultdict(list)
    for _, row in read_rows(file):
        if isinstance(row, dict) and "prompt" in row and isinstance(row.get("answer"), str):
            known[json.dumps(row["prompt"])].append(row["answer"])
    found = []
    for group in groups:
        left = known[json.dumps(group.prompt)]
        if not left:
            raise DataError(
                f"{file} has no answer to {group.source}; have predict answer these data"
            )
        found.append(as_response(group, left.pop(0)))
    return found
