"""What people's votes say of the responses, by majority, by share, or by Dawid and Skene's model of who errs how.

What an answer means:

* *A vote* counts until its author changes it or takes it back; the latest counts, and the history keeps them all.
* *A tie* says that two responses are equally good, which is more than saying nothing. By share it is half a vote for
  each. For Dawid and Skene it is a label of its own, and half of its probability goes to each. By majority, if ties are
  the commonest answer, nothing is preferred.
* *A skip* says that its author cannot or will not judge. It counts for nothing, and somebody else is asked.
* *An abstention* is a task that was shown and not answered, or an answer that was taken back: there is no vote.

A comparison whose probability comes out as one half (no majority, or as many for one as for the other) is left out, and
so is a group of which nothing is known. A ranking is read as the comparisons that it implies.

Dawid and Skene, 1979, https://doi.org/10.2307/2346806; nothing is assumed of the annotators beforehand, and one who
is usually wrong counts the other way round.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lit_align.batches import Group, Pair
from lit_align.errors import DataError

KINDS = ("compare", "rank", "rate", "thumbs")

Item = tuple[int, int, int]
"""What is judged: a task and two of its responses, or one of them twice."""

Belief = dict[int, float]
"""Probability of each label; empty if nothing can be said."""

TINY = 1e-10  # below which a probability does not fall, so that one vote never settles everything


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
    def votes(self) -> list[Vote]:
        """What counts: the latest of each annotator and task, if it is a vote."""
        latest = {(vote.annotator, vote.task): vote for vote in self.history}
        return [vote for vote in latest.values() if vote.verdict == "vote"]


class Label(NamedTuple):
    """One judgment: 1, -1 or 0 for the first, the second or neither of two; 1 or 0 for a thumb; the rating."""

    item: Item
    annotator: str
    value: int


def read(store: str | Path) -> Ballots:
    """Everything in the file, which may be in use.

    Raises:
        DataError: if it is no store.
    """
    answers = "SELECT name, task, revision, verdict, answer, shown, note, seconds, at FROM votes JOIN people"
    queries = (
        "SELECT id, prompt, responses, source, extra FROM groups ORDER BY id",
        "SELECT id, kind, grp, members, gold FROM tasks ORDER BY id",
        f"{answers} ON people.id = person ORDER BY votes.id",
    )
    try:
        db = sqlite3.connect(f"{Path(store).resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        db.execute("BEGIN")  # one moment for all three
        groups, tasks, rows = (db.execute(query).fetchall() for query in queries)
        db.close()
    except sqlite3.Error as error:
        raise DataError(
            f"{store} cannot be read as a store of votes: {error}; name the file of lit-align label"
        ) from error
    load = json.loads
    return Ballots(
        {n: Group(load(prompt), load(given), source=at, extra=load(extra)) for n, prompt, given, at, extra in groups},
        {n: Asked(kind, group, tuple(load(members)), gold and load(gold)) for n, kind, group, members, gold in tasks},
        [Vote._make((*one[:4], load(one[4]), tuple(load(one[5])), *one[6:])) for one in rows],
    )


def labels(ballots: Ballots, kind: str, gold: bool = False) -> list[Label]:
    """The judgments in the votes on tasks of a kind, on gold tasks or on the others."""
    wanted = {number: task for number, task in ballots.tasks.items() if task.kind == kind and bool(task.gold) == gold}
    return [
        Label((vote.task, i, j), vote.annotator, value)
        for vote in ballots.votes
        if vote.task in wanted
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


def majority(given: Iterable[Label]) -> dict[Item, Belief]:
    """The value that most annotators gave to each item, for certain; nothing where two have as many.

    Example:
        >>> majority([Label((1, 0, 1), name, value) for name, value in (("a", 1), ("b", 1), ("c", -1))])
        {(1, 0, 1): {1: 1.0}}
    """
    found = {}
    for item, belief in share(given).items():
        most = [value for value, p in belief.items() if p == max(belief.values())]
        found[item] = {most[0]: 1.0} if len(most) == 1 else {}
    return found


def share(given: Iterable[Label]) -> dict[Item, Belief]:
    """How many of the annotators gave each value.

    Example:
        >>> share([Label((1, 0, 1), name, value) for name, value in (("a", 1), ("b", 1), ("c", -1), ("d", 0))])
        {(1, 0, 1): {1: 0.5, -1: 0.25, 0: 0.25}}
    """
    counts: dict[Item, Counter[int]] = defaultdict(Counter)
    for label in given:
        counts[label.item][label.value] += 1
    return {item: {value: n / of.total() for value, n in of.items()} for item, of in counts.items()}


def dawid_skene(given: Sequence[Label], rounds: int = 100) -> dict[Item, Belief]:
    """How likely each value is the true one, given how often each annotator takes one value for another.

    Args:
        given: judgments of one kind.
        rounds: of estimating the annotators from the items and the items from the annotators.
    """
    if not given:
        return {}
    names = [sorted(set(column)) for column in zip(*given, strict=True)]
    numbers = [{one: k for k, one in enumerate(several)} for several in names]
    item, person, value = np.array([[n[x] for n, x in zip(numbers, label, strict=True)] for label in given]).T
    items, people, values = map(len, names)
    belief = np.zeros((items, values))
    np.add.at(belief, (item, value), 1.0)
    belief /= belief.sum(1, keepdims=True)
    ever = np.zeros((people, values, 1), dtype=bool)  # what an annotator ever said
    ever[person, value] = True
    for _ in range(rounds):
        errs = np.zeros((people, values, values))  # annotator, what was said, what is so
        np.add.at(errs, (person, value), belief[item])
        errs = np.where(ever, errs.clip(TINY), 0.0)
        errs /= errs.sum(1, keepdims=True)
        log = np.tile(np.log(belief.mean(0).clip(TINY)), (items, 1))
        np.add.at(log, item, np.log(errs[person, value]))
        belief = np.exp(log - log.max(1, keepdims=True))
        belief /= belief.sum(1, keepdims=True)
    return {one: dict(zip(names[2], row, strict=True)) for one, row in zip(names[0], belief.tolist(), strict=True)}


HOW: dict[str, Callable[[list[Label]], dict[Item, Belief]]] = {
    "majority": majority,
    "share": share,
    "dawid_skene": dawid_skene,
}
"""The ways to make one label of several."""


def reliability(ballots: Ballots) -> dict[str, tuple[int, int]]:
    """Judgments on gold tasks that were right, and how many there were, for each annotator.

    A tie is right only where the known answer is one; a rating is right if it is at most one off.
    """
    found: dict[str, tuple[int, int]] = {}
    for kind in KINDS:
        for (number, i, j), annotator, value in labels(ballots, kind, gold=True):
            task, (right, seen) = ballots.tasks[number], found.get(annotator, (0, 0))
            off = abs(value - said(kind, task.gold or {}, task.members)[i, j])
            found[annotator] = (right + (off <= (kind == "rate")), seen + 1)
    return found


def trusted(ballots: Ballots, least: float) -> Ballots:
    """Without those who were right on less than the share ``least`` of the gold tasks they saw."""
    out = {name for name, (right, seen) in reliability(ballots).items() if right < least * seen}
    return ballots._replace(history=[vote for vote in ballots.history if vote.annotator not in out])


def groups(ballots: Ballots, how: str = "share") -> list[Group]:
    """Every group of which the votes say something, as training takes it.

    Comparisons become pairs with the probability that they are right and the mean strength as margin; rankings such
    pairs too, and places by how many of the others a response is expected to beat; ratings their mean, or the
    commonest, with the share of annotators who raised each flag; thumbs the likelier one.

    Args:
        ballots: what people said.
        how: ``"majority"``, ``"share"`` or ``"dawid_skene"``.
    """
    made, votes = [], defaultdict[int, list[Vote]](list)
    for vote in ballots.votes:
        votes[vote.task].append(vote)
    for kind in KINDS:
        beliefs: dict[int, dict[Item, Belief]] = defaultdict(dict)
        for item, belief in HOW[how](labels(ballots, kind)).items():
            beliefs[ballots.tasks[item[0]].group][item] = belief
        build = {"rate": _rated, "thumbs": _judged}.get(kind, _compared)
        for number, known in sorted(beliefs.items()):
            found = build(ballots.groups[number], known, votes)
            if found.items:
                found = found if kind != "rank" else _ranked(found, known)
                count = sum(len(votes[task]) for task in {item[0] for item in known})
                made.append(found._replace(extra={**found.extra, "votes": count}))
    return made


def _first(belief: Belief) -> float:
    """How likely the first is better: with half of the ties, and one half if nothing is known."""
    return belief.get(1, 0.0) + belief.get(0, 0.0) / 2 if belief else 0.5


def _compared(group: Group, known: dict[Item, Belief], votes: dict[int, list[Vote]]) -> Group:
    pairs = []
    for (task, i, j), belief in known.items():
        sure, better, worse = max((_first(belief), i, j), (1 - _first(belief), j, i))
        if sure > 0.5 + 1e-9:
            strengths = [vote.answer.get("preference", 0) * (-1, 1)[vote.shown[-1] == better] for vote in votes[task]]
            pairs.append(Pair(better, worse, sure, max(0.0, float(np.mean(strengths)))))
    return group._replace(pairs=tuple(pairs))


def _ranked(group: Group, known: dict[Item, Belief]) -> Group:
    expected = [0.0] * len(group.responses)
    for (_, i, j), belief in known.items():
        expected[i] += _first(belief)
        expected[j] += 1 - _first(belief)
    return group._replace(ranking=tuple(1 + sum(other > own + 1e-9 for other in expected) for own in expected))


def _rated(group: Group, known: dict[Item, Belief], votes: dict[int, list[Vote]]) -> Group:
    ratings: list[dict[str, float]] = [{} for _ in group.responses]
    for (task, i, _), belief in known.items():
        if belief:
            flags = [vote.answer["flags"] for vote in votes[task]]
            ratings[i] = {name: sum(one.get(name, False) for one in flags) / len(flags) for name in flags[0]}
            ratings[i]["rating"] = sum(value * p for value, p in belief.items())
    return group._replace(ratings=tuple(ratings) if any(ratings) else ())


def _judged(group: Group, known: dict[Item, Belief], votes: dict[int, list[Vote]]) -> Group:
    up = {i: belief.get(1, 0.0) for (_, i, _), belief in sorted(known.items()) if belief}
    up = {i: p for i, p in up.items() if abs(p - 0.5) > 1e-9}
    return group._replace(responses=[group.responses[i] for i in up], desirable=tuple(p > 0.5 for p in up.values()))


def row(group: Group) -> dict[str, Any]:
    """A line of the layout `Groups`, which training reads.

    Example:
        >>> row(Group("2 + 2?", ["4", "5"], desirable=(True, False), extra={"votes": 4}))
        {'votes': 4, 'prompt': '2 + 2?', 'responses': ['4', '5'], 'desirable': [True, False]}
    """
    known = {name: list(getattr(group, name)) for name in ("pairs", "desirable", "ranking", "ratings")}
    kept = {name: value for name, value in known.items() if value}
    return {**group.extra, "prompt": group.prompt, "responses": group.responses, **kept}
