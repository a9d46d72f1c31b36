"""What people's votes say of the responses, by majority, by share, or by Dawid and Skene's model of who errs how.

What an answer means:

* *A vote* counts until its author changes it or takes it back; the history keeps them all.
* *A tie* is half a vote for each of two responses. For Dawid and Skene it is a label of its own, and half of its
  probability goes to each. By majority, if ties are the commonest answer, nothing is preferred.
* *A skip*, an answer that was taken back, or a task that was shown and not answered counts for nothing.

A comparison whose probability comes out as one half is left out, and so is a group of which nothing is known. A ranking
is read as the comparisons that it implies. Dawid and Skene, 1979, https://doi.org/10.2307/2346806; nothing is assumed
of the annotators beforehand, and one who is usually wrong counts the other way round.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import combinations
from json import loads
from pathlib import Path
from statistics import multimode
from typing import Any, NamedTuple

import numpy as np

from lit_align.errors import ConfigError, DataError
from lit_align.types import Group, Pair

KINDS = ("compare", "rank", "rate", "thumbs")

Item = tuple[
    int, int, int
]  # what is judged: a group and two of its responses, or one of them twice
Belief = dict[int, float]  # probability of each label; empty if nothing can be said


class Asked(NamedTuple):
    """A task: its kind, the number of its group, which of the responses, and the known answer if it is a gold task."""

    kind: str
    group: int
    members: tuple[int, ...]
    gold: dict[str, Any] | None


class Vote(NamedTuple):
    """An answer as it stands in the store: a ``"vote"``, a ``"skip"`` or an ``"undo"``.

    It holds ``preference``, from -3 (the first shown is much better) to 3; ``places`` of the responses as shown;
    ``rating`` with ``flags``, each true or false; or ``up``. ``shown`` has the index of each response in the order in
    which they were shown, ``seconds`` run from then, and ``at`` is in seconds since 1970.
    """

    annotator: str
    task: int
    revision: int
    verdict: str
    answer: dict[str, Any]
    shown: tuple[int, ...]
    note: str = ""
    seconds: float = 0.0
    at: float = 0.0


class Ballots(NamedTuple):
    """All that a store holds but who may come in: groups and tasks by number, and every answer ever, oldest first."""

    groups: dict[int, Group]
    tasks: dict[int, Asked]
    history: list[Vote]

    @property
    def latest(self) -> list[Vote]:
        """What each annotator said last of each task."""
        return list({(vote.annotator, vote.task): vote for vote in self.history}.values())

    @property
    def votes(self) -> list[Vote]:
        """What counts of it."""
        return [vote for vote in self.latest if vote.verdict == "vote"]


class Label(NamedTuple):
    """One judgment: 1, -1 or 0 for the first, the second or neither of two; 1 or 0 for a thumb; the rating."""

    item: Item
    annotator: str
    value: int
    vote: Any = None


def read(store: str | Path) -> Ballots:
    """Everything in the file, which may be in use; raises DataError if it is no store."""
    queries = (
        "SELECT id, prompt, responses, source, extra FROM groups ORDER BY id",
        "SELECT id, kind, grp, members, gold FROM tasks ORDER BY id",
        "SELECT name, task, revision, verdict, answer, shown, note, seconds, at FROM votes JOIN people "
        "ON people.id = person ORDER BY votes.id",
    )
    try:
        with closing(sqlite3.connect(f"{Path(store).resolve().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("BEGIN")  # one moment for all three
            groups, tasks, rows = (db.execute(query).fetchall() for query in queries)
    except sqlite3.Error as error:
        raise DataError(
            f"{store} is not a store of votes: {error}; name the file of lit-align label"
        ) from error
    return Ballots(
        {
            n: Group(loads(prompt), loads(given), source=at, extra=loads(more))
            for n, prompt, given, at, more in groups
        },
        {
            n: Asked(kind, group, tuple(loads(members)), gold and loads(gold))
            for n, kind, group, members, gold in tasks
        },
        [Vote._make((*one[:4], loads(one[4]), tuple(loads(one[5])), *one[6:])) for one in rows],
    )


def labels(ballots: Ballots, kind: str, gold: bool = False) -> list[Label]:
    """The judgments in the votes on tasks of a kind, on gold tasks or on the others."""
    return [
        Label((task.group, i, j), vote.annotator, value, vote)
        for vote in ballots.votes
        if (task := ballots.tasks[vote.task]).kind == kind and bool(task.gold) == gold
        for (i, j), value in said(kind, vote.answer, vote.shown).items()
    ]


def said(kind: str, answer: dict[str, Any], shown: Sequence[int]) -> dict[tuple[int, int], int]:
    """Value of each judgment in an answer, by index of the two responses, the smaller first."""
    if kind == "compare":
        places = [answer["preference"], 0]  # the first shown is ahead if it is negative
    elif kind == "rank":
        places = answer["places"]
    else:
        return {(shown[0], shown[0]): answer["rating"] if kind == "rate" else int(answer["up"])}
    placed = combinations(sorted(zip(shown, places, strict=True)), 2)
    return {(i, j): (a < b) - (a > b) for (i, a), (j, b) in placed}


def majority(given: Sequence[Label]) -> dict[Item, Belief]:
    """The value that most annotators gave to each item, for certain; nothing where two have as many.

    Example:
        >>> majority([Label((1, 0, 1), name, value) for name, value in (("a", 1), ("b", 1), ("c", -1))])
        {(1, 0, 1): {1: 1.0}}
    """
    most = {item: multimode(one.value for one in of) for item, of in by_item(given).items()}
    return {item: {several[0]: 1.0} if len(several) == 1 else {} for item, several in most.items()}


def share(given: Sequence[Label]) -> dict[Item, Belief]:
    """How many of the annotators gave each value.

    Example:
        >>> share([Label((1, 0, 1), name, value) for name, value in (("a", 1), ("b", 1), ("c", -1), ("d", 0))])
        {(1, 0, 1): {1: 0.5, -1: 0.25, 0: 0.25}}
    """
    counts = {item: Counter(one.value for one in of) for item, of in by_item(given).items()}
    return {
        item: {value: n / values.total() for value, n in values.items()}
        for item, values in counts.items()
    }


def by_item(given: Sequence[Label]) -> dict[Item, list[Label]]:
    """The judgments of each item."""
    found = defaultdict(list)
    for label in given:
        found[label.item].append(label)
    return found


def dawid_skene(given: Sequence[Label]) -> dict[Item, Belief]:
    """How likely each value is the true one, given how often each annotator takes one value for another."""
    try:
        from crowdkit.aggregation import DawidSkene
        from pandas import DataFrame
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; dawid_skene needs pip install 'lit-align[label]'"
        ) from error
    if not given:
        return {}
    table = DataFrame([one[:3] for one in given], columns=["task", "worker", "label"])
    found = DawidSkene(n_iter=100, tol=-math.inf).fit_predict_proba(table)
    return {
        item: {int(value): float(p) for value, p in row.items()} for item, row in found.iterrows()
    }


HOW = {
    "majority": majority,
    "share": share,
    "dawid_skene": dawid_skene,
}  # to make one label of several


def reliability(ballots: Ballots) -> dict[str, tuple[int, int]]:
    """Judgments on gold tasks that were right, and how many there were, for each annotator.

    A tie is right only where the known answer is one; a rating is right if it is at most one off.
    """
    found: dict[str, tuple[int, int]] = {}
    for kind in KINDS:
        for (_, i, j), annotator, value, vote in labels(ballots, kind, gold=True):
            task, (right, seen) = ballots.tasks[vote.task], found.get(annotator, (0, 0))
            off = abs(value - said(kind, task.gold or {}, task.members)[i, j])
            found[annotator] = (right + (off <= (kind == "rate")), seen + 1)
    return found


def trusted(ballots: Ballots, least: float) -> Ballots:
    """Without those who were right on less than the share ``least`` of the gold tasks they saw."""
    out = {name for name, (right, seen) in reliability(ballots).items() if right < least * seen}
    return ballots._replace(history=[vote for vote in ballots.history if vote.annotator not in out])


def groups(ballots: Ballots, how: str = "share") -> Iterator[tuple[int, Group]]:
    """Every group of which the votes say something, as training takes it, with its number; ``how`` as in `HOW`.

    Comparisons and rankings become pairs, with the probability that they are right and the mean strength as margin,
    and, where all were compared with all, places by how many of the others a response is expected to beat; ratings
    their mean, or the commonest, with the share of annotators who raised each flag; thumbs the likelier one. A group
    that was asked about in several ways comes as often.
    """
    for kind in KINDS:
        given = labels(ballots, kind)
        beliefs, build = HOW[how](given), {"rate": _rated, "thumbs": _judged}.get(kind, _compared)
        known = defaultdict[int, Known](list)
        for (number, i, j), of in by_item(given).items():
            known[number].append((i, j, beliefs[number, i, j], [label.vote for label in of]))
        for number, judged in sorted(known.items()):
            found = build(ballots.groups[number], judged)
            if found.items:
                count = len({(vote.annotator, vote.task) for *_, of in judged for vote in of})
                yield number, found._replace(extra={**found.extra, "votes": count})


Known = list[
    tuple[int, int, Belief, list[Vote]]
]  # two responses, what is to be believed of them, who said so


def _compared(group: Group, known: Known) -> Group:
    pairs, expected = [], [0.0] * len(group.responses)
    for i, j, belief, votes in known:
        first = belief.get(1, 0.0) + belief.get(0, 0.0) / 2 if belief else 0.5  # half of the ties
        expected[i] += first
        expected[j] += 1 - first
        sure, better, worse = max((first, i, j), (1 - first, j, i))
        if sure > 0.5 + 1e-9:
            strengths = [
                vote.answer.get("preference", 0) * (-1, 1)[vote.shown[-1] == better]
                for vote in votes
            ]
            pairs.append(Pair(better, worse, sure, max(0.0, float(np.mean(strengths)))))
    places = tuple(1 + sum(other > own + 1e-9 for other in expected) for own in expected)
    every = len(known) == math.comb(len(expected), 2)
    return group._replace(pairs=tuple(pairs), ranking=places if pairs and every else ())


def _rated(group: Group, known: Known) -> Group:
    ratings: list[dict[str, float]] = [{} for _ in group.responses]
    for i, _, belief, votes in known:
        if belief:
            flags = [flag for vote in votes for flag in vote.answer["flags"].items()]
            raised = {
                name: float(np.mean([up for other, up in flags if other == name]))
                for name, _ in flags
            }
            ratings[i] = {**raised, "rating": sum(value * p for value, p in belief.items())}
    return group._replace(ratings=tuple(ratings) if any(ratings) else ())


def _judged(group: Group, known: Known) -> Group:
    up = {
        i: p
        for i, _, belief, _ in sorted(known)
        if belief and abs((p := belief.get(1, 0.0)) - 0.5) > 1e-9
    }
    return group._replace(
        responses=[group.responses[i] for i in up], desirable=tuple(p > 0.5 for p in up.values())
    )
