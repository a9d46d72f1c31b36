"""Settings of a labelling campaign, and the tasks that they make of a row."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal
from urllib.parse import urlsplit

from lit_align.checks import check_at_least, check_positive
from lit_align.data.label_conversion import to_ranking
from lit_align.errors import ConfigError, SetAside
from lit_align.labelling.languages import (
    Words,
    built_in_languages,
    read_language,
    usual_flags,
)
from lit_align.types import Group

ALL_ADDRESSES = ("0.0.0.0", "::", "")
"""Hosts that are no address that others could open."""
PUBLIC_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*/?")
OWN_SEGMENTS = frozenset(
    {"in", "task", "vote", "mine", "guidelines", "examples", "admin", "static"}
)
"""First segments of the page's own addresses: under a path that begins so, the two could not be told apart."""


@dataclass(frozen=True)
class Campaign:
    """A page of tasks, started or resumed.

    Args:
        store: file with tasks, people and votes; created if there is none.
        tasks: files or hub data sets of prompts with responses, or of prompts alone if `runs` answer them.
        runs: folders of one run or two; two answers of the one, or one of each, are compared.
        ask: how people answer: which of two is better, the order of all, 1 to 7 for each, or good or bad for each;
            null as the tasks of the store, compare for a new one.
        question: heading above the answers; the usual one if empty.
        languages: of the annotators' pages: en, de, es, or a YAML file of words such as fr.yaml. Of several, the
            browser's preference decides, and the first is for those who prefer none; if empty, all that are built in.
        guidelines: Markdown file that annotators read before their first task, and can open from each.
        examples: files of tasks with a known answer to practise on first; the column `explanation` says why.
        flags: problems that a rated response may have, by their name in the export.
        annotators: names of people who get a link; several are given as '[ada, bob]'.
        votes: people that each task is shown to; null keeps what the store says, 3 for a new one.
        gold: files of tasks with a known answer; they are mixed in, and never exported.
        gold_every: one task in so many is a gold task.
        uncertainty: column with a number that says how uncertain a judge was about a row; the largest come first.
        host: address to listen at; 0.0.0.0 lets other machines reach it.
        port: port to listen at.
        public_url: address under which others reach the page, such as ``https://label.example.org/team1``, if that is
            not host and port; links are made of it, never of what a request says.
        session_days: days after which an annotator has to open the link again.
    """

    store: str = "labels.db"
    tasks: str | list[str] = field(default_factory=list)
    runs: str | list[str] = field(default_factory=list)
    ask: Literal["compare", "rank", "rate", "thumbs"] | None = None
    question: str = ""
    languages: str | list[str] = field(default_factory=list)
    guidelines: str = ""
    examples: str | list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=usual_flags)
    annotators: str | list[str] = field(default_factory=list)
    votes: int | None = None
    gold: str | list[str] = field(default_factory=list)
    gold_every: int = 10
    uncertainty: str = ""
    host: str = "127.0.0.1"
    port: int = 8321
    public_url: str = ""
    session_days: float = 30.0

    def __post_init__(self) -> None:
        if self.votes is not None:
            check_at_least("votes", self.votes, 1)
        check_at_least("gold_every", self.gold_every, 2)
        check_positive("session_days", self.session_days)
        _check_public_url(self.public_url)
        for name in ("tasks", "runs", "annotators", "gold", "examples", "languages"):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, [value])  # as a command line gives it
        # as the admin page names people, which could make no other link otherwise
        object.__setattr__(self, "annotators", [name.strip() for name in self.annotators])
        for language in self.languages:
            read_language(language)  # refused before anything is served
        if len(self.runs) > 2:
            raise ConfigError(
                f"runs must be one, or two to compare, got {len(self.runs)}; leave some out"
            )

    @property
    def words(self) -> list[Words]:
        """The words of the languages that annotators may get."""
        return [read_language(language) for language in self.languages or built_in_languages()]

    @property
    def address(self) -> str:
        """Where others reach the page, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = socket.gethostname() if self.host in ALL_ADDRESSES else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def base_path(self) -> str:
        """The path under which others reach the page, without a slash at the end; empty for a site of its own.

        Example:
            >>> Campaign(public_url="https://label.example.org/team1/").base_path
            '/team1'
        """
        return urlsplit(self.public_url).path.rstrip("/")

    def link(self, token: str) -> str:
        """A personal link.

        Example:
            >>> Campaign(public_url="https://label.example.org/team1").link("secret")
            'https://label.example.org/team1/in/secret'
        """
        return f"{self.address}/in/{token}"


def _check_public_url(address: str) -> None:
    """Refuse what is not the address of a site or of a folder on it.

    Raises:
        ConfigError: naming it.
    """
    if not address:
        return
    example = "such as https://label.example.org/team1"
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - it raises if it is no number
    except ValueError as error:
        raise ConfigError(
            f"public_url is {address!r}: {error}; write an address {example}"
        ) from error
    is_site = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    if not is_site or parts.query or parts.fragment or not PUBLIC_PATH.fullmatch(parts.path):
        raise ConfigError(
            f"public_url is {address!r}; it is a scheme, a host and a path of letters, digits and -._~, {example}"
        )
    segment = parts.path.strip("/").partition("/")[0]
    if segment in OWN_SEGMENTS:
        raise ConfigError(
            f"public_url is {address!r}, but addresses of the page itself begin with /{segment}; choose another path"
        )


def task_members(group: Group, kind: str) -> list[tuple[int, ...]]:
    """The responses of each task, by index: two of them, all of them, or one; none where all are equal.

    Example:
        >>> task_members(Group("2 + 2?", ["4", "four", "5"]), "compare")
        [(0, 1), (0, 2), (1, 2)]
    """
    num_responses = len(group.responses)
    if kind not in ("compare", "rank"):
        return [(i,) for i in range(num_responses)]
    size = 2 if kind == "compare" else max(2, num_responses)
    candidates = combinations(range(num_responses), size)
    return [members for members in candidates if _are_different(group, members)]


def _are_different(group: Group, members: tuple[int, ...]) -> bool:
    responses = [group.responses[i] for i in members]
    return any(response != responses[0] for response in responses)


def gold_answer(
    group: Group, kind: str, members: tuple[int, ...], with_ties: bool = False
) -> dict[str, Any] | None:
    """The answer that the row's own labels give, with the responses in their own order; None if they give none.

    Args:
        group: the row.
        kind: how it is asked about.
        members: the responses that are asked about, by index.
        with_ties: whether equal places in a ranking are an answer.
    """
    first = members[0]
    if kind == "thumbs":
        return {"up": group.desirable[first]} if group.desirable else None
    if kind == "rate":
        if not group.ratings or group.ratings[first].get("rating") is None:
            return None
        return {"rating": round(group.ratings[first]["rating"]), "flags": {}}
    try:
        is_tied = with_ties and len(set(group.ranking)) == 1
        ranking = group.ranking if is_tied else to_ranking(group).ranking
    except SetAside:
        return None
    places = [ranking[i] for i in members]
    is_tie = len(set(places)) == 1
    if not all(places) or (is_tie and not with_ties):
        return None
    if kind == "rank":
        return {"places": places}
    if is_tie:
        return {"preference": 0}
    return {"preference": 1 if places[1] < places[0] else -1}


def uncertainty_of(group: Group, column: str) -> float:
    """How uncertain a judge was about the row.

    Raises:
        ConfigError: if the column has no number.
    """
    try:
        return float(group.extra[column])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{group.source} has {group.extra.get(column)!r} in the column {column!r}; "
            "uncertainty needs a number there"
        ) from error
