"""What people said on the page of ``lit-align label``."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from lit_align import Register, hookimpl
from lit_align.data.prepare import SELECT
from lit_align.errors import ConfigError, SetAside
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import TIE, label_from_scores, make_result, prompt_hash, select_labels
from lit_align.labelling import aggregation
from lit_align.labelling.aggregation import Ballots, Vote

Key = tuple[str, ...]
MIDDLE = 4.0  # of ratings from 1 to 7


@dataclass(frozen=True)
class Human(Feedback):
    """The votes in a store, on the same prompt with the same responses, in whatever order and however often asked.

    What was asked for is taken from votes of that kind where there are any, else it is made of the others. Two
    responses that tie are no pair, and share a place; a rating of 4, the middle, and as many thumbs up as down are
    neither desirable nor undesirable; where all is tied the group is set aside as a tie. Skips and answers that were
    taken back count for nothing. Margins are how much better people found a response, from 0 to 3, or the difference
    of their ratings. Imitated is what was liked, rated at least 4, or is better than what it was compared with.

    Args:
        store: file of ``lit-align label``; a campaign may go on meanwhile, and a round takes the votes of its moment.
        aggregation: of several votes: what most say, the share that says it, or what is likeliest given how each
            annotator errs.
        min_gold_accuracy: share of the gold tasks an annotator saw that must be right for any of that annotator's votes to count;
            who saw none is trusted.

    Raises:
        ConfigError: if a share is none.
    """

    store: str
    aggregation: Literal["majority", "share", "dawid_skene"] = "share"
    min_gold_accuracy: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_gold_accuracy <= 1:
            raise ConfigError(
                f"least is {self.min_gold_accuracy}; it is a share of the gold tasks, from 0 to 1"
            )

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        files = [Path(self.store), Path(f"{self.store}-wal")]
        stamps = tuple(
            (file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()
        )
        known, records = _heard(self.store, self.aggregation, self.min_gold_accuracy, stamps)
        made = []
        for group in groups:
            key = _key(group)
            spent = {
                "source": f"people, {self.aggregation}",
                "prompt": prompt_hash(group),
                "cost": 0.0,
                "seconds": 0.0,
            }
            record = {**spent, **records.get(key, {})}
            made.append(
                make_result(
                    (record,), partial(_label, group, known.get(key, []), record, label_kind)
                )
            )
        return made


def _key(group: Group) -> Key:
    return json.dumps(group.prompt), *sorted(map(json.dumps, group.responses))


def _label(group: Group, known: list[Group], record: dict[str, Any], label_kind: str) -> Group:
    """The group with the labels it takes, from the first of ``known`` that has them."""
    if not record.get("votes"):
        raise SetAside(
            "nobody whose vote counts has voted on it"
            if "votes" in record
            else "it was never asked about"
        )
    reason = SetAside(TIE)
    for one in sorted(known, key=lambda one: not getattr(one, label_kind, ())):
        try:
            return _made(one._replace(source=group.source, extra=group.extra), label_kind)
        except SetAside as why:
            reason = why
    raise reason


def _made(known: Group, label_kind: str) -> Group:
    if known.ratings and label_kind != "ratings":
        known = select_labels(known, "ratings")
        return label_from_scores(
            known,
            [one["rating"] for one in known.ratings],
            label_kind,
            threshold=MIDDLE,
            all_pairs=True,
        )
    if known.desirable and label_kind in ("pairs", "ranking"):
        return label_from_scores(
            known, list(map(float, known.desirable)), label_kind, all_pairs=True
        )
    if (
        known.pairs and label_kind == "demonstrations"
    ):  # without those that were compared with nothing
        known = known._replace(pairs=()) if known.ranking else SELECT["pairs"](known)
    return select_labels(known, label_kind)


@lru_cache(maxsize=2)
def _heard(
    store: str, how: str, least: float, stamps: object
) -> tuple[dict[Key, list[Group]], dict[Key, Any]]:
    """Labels by content, and what they are made of; read again when the file has changed."""
    every, keys = _pooled(aggregation.read(store))
    kept = aggregation.trusted(every, least)
    known, asked = defaultdict(list), defaultdict[int, list[Vote]](list)
    for number, group in aggregation.groups(kept, how):
        known[keys[number]].append(group)
    for vote in every.latest:
        if not every.tasks[vote.task].gold:
            asked[every.tasks[vote.task].group].append(vote)
    judged = [label for kind in ("compare", "rank") for label in aggregation.labels(kept, kind)]
    ties = Counter(label.item[0] for label in judged if label.value == 0)
    trusted = {vote.annotator for vote in kept.history}
    records = {}
    for number, of in asked.items():
        said = [vote for vote in of if vote.annotator in trusted and vote.verdict == "vote"]
        records[keys[number]] = {
            "annotators": len({vote.annotator for vote in said}),
            "votes": len(said),
            "ties": ties[number],
            "abstentions": sum(vote.verdict != "vote" for vote in of),
            "dropped": len({vote.annotator for vote in of} - trusted),
        }
    return dict(known), records


def _pooled(ballots: Ballots) -> tuple[Ballots, dict[int, Key]]:
    """With one group for all rows of the same content, and what that is."""
    first: dict[Key, int] = {}
    tasks, places, keys = {}, {}, {}
    for number, group in ballots.groups.items():
        keys[number] = key = _key(group)
        one = first.setdefault(key, number)
        places[number] = (
            one,
            [ballots.groups[one].responses.index(response) for response in group.responses],
        )
    for number, task in ballots.tasks.items():
        one, place = places[task.group]
        tasks[number] = task._replace(group=one, members=tuple(place[i] for i in task.members))
    history = [
        vote._replace(shown=tuple(places[ballots.tasks[vote.task].group][1][i] for i in vote.shown))
        for vote in ballots.history
    ]
    return ballots._replace(tasks=tasks, history=history), keys


@hookimpl
def register_feedback(register: Register) -> None:
    register(Human)
