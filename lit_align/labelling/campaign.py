"""What is asked of whom, and what a row already says of the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import yaml

from lit_align.data.prepare import ranked
from lit_align.errors import ConfigError, SetAside
from lit_align.types import Group


def checklist() -> dict[str, str]:
    """What may be wrong with a response, unless the settings say otherwise."""
    return dict(yaml.safe_load(Path(__file__).with_name("checklist.yaml").read_text("utf-8")))


@dataclass(frozen=True)
class Campaign:
    """A page of tasks, made anew or gone on with.

    Args:
        store: file that keeps tasks, people and votes; it is made if there is none.
        tasks: files or hub data sets of prompts with responses, or of prompts alone if `runs` answer them.
        runs: folders of one run or two; two answers of the one, or one of each, are what is compared.
        ask: how people answer: which of two is better, the order of all, 1 to 7 for each, or thumb up or down for each.
        question: what stands above the answers; the usual one if empty.
        flags: what may be wrong with a response that is rated, by the name it has in the export.
        annotators: who is to have a link; several are given as '[ada, bob]'.
        votes: people that each task is shown to.
        gold: files of tasks whose answer is known; they are mixed in, and never exported.
        gold_every: how often: one task in so many.
        uncertainty: column with a number that says how unsure a judge was of a row; the largest come first.
        host: address to listen at; others than this machine reach 0.0.0.0.
        port: port to listen at.
    """

    store: str = "labels.db"
    tasks: str | list[str] = field(default_factory=list)
    runs: str | list[str] = field(default_factory=list)
    ask: Literal["compare", "rank", "rate", "thumbs"] = "compare"
    question: str = ""
    flags: dict[str, str] = field(default_factory=checklist)
    annotators: str | list[str] = field(default_factory=list)
    votes: int = 3
    gold: str | list[str] = field(default_factory=list)
    gold_every: int = 10
    uncertainty: str = ""
    host: str = "127.0.0.1"
    port: int = 8321

    def __post_init__(self) -> None:
        for name, value, least in (("votes", self.votes, 1), ("gold_every", self.gold_every, 2)):
            if value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")
        for name in ("tasks", "runs", "annotators", "gold"):
            if isinstance(one := getattr(self, name), str):
                object.__setattr__(self, name, [one])  # as a command line gives it
        if len(self.runs) > 2:
            raise ConfigError(f"runs are {len(self.runs)}; give one, or two to compare")


def questions(group: Group, kind: str) -> list[tuple[int, ...]]:
    """The responses of each task: two of them, all of them, or one after the other; none where all say the same.

    Example:
        >>> questions(Group("2 + 2?", ["4", "four", "5"]), "compare")
        [(0, 1), (0, 2), (1, 2)]
    """
    every = range(len(group.responses))
    some = combinations(every, {"compare": 2, "rank": max(2, len(every))}.get(kind, 1))
    return [
        one
        for one in some
        if len(one) == 1 or any(group.responses[i] != group.responses[one[0]] for i in one)
    ]


def known(group: Group, kind: str, members: tuple[int, ...]) -> dict[str, Any] | None:
    """The answer that the row's own labels give, with the responses as they are; None if they give none."""
    if kind == "thumbs":
        return {"up": group.desirable[members[0]]} if group.desirable else None
    if kind == "rate":
        rating = group.ratings[members[0]].get("rating") if group.ratings else None
        return None if rating is None else {"rating": round(rating), "flags": {}}
    try:
        places = [ranked(group).ranking[i] for i in members]
    except SetAside:
        return None
    if not all(places) or len(set(places)) == 1:
        return None
    return (
        {"places": places} if kind == "rank" else {"preference": 1 if places[1] < places[0] else -1}
    )


def urgency(group: Group, column: str) -> float:
    """How unsure a judge was of the row."""
    try:
        return float(group.extra[column])
    except (KeyError, TypeError, ValueError) as error:
        found = f"{group.source} has {group.extra.get(column)!r} in the column {column!r}"
        raise ConfigError(f"{found}; uncertainty needs a number there") from error
