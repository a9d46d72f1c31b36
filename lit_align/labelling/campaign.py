"""What is asked of whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from lit_align.errors import ConfigError


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
        order: of the tasks: as given, or those first of which a judge was least sure.
        uncertainty: the column that says how unsure.
        host: address to listen at; others than this machine reach 0.0.0.0.
        port: port to listen at.

    Raises:
        ConfigError: if a number is not sound.
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
    order: Literal["given", "disagreement"] = "given"
    uncertainty: str = "uncertainty"
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
