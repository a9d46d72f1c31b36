"""Feedback from people: the votes on the page of ``lit-align label``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from lit_align import Register, hookimpl
from lit_align.checks import check_fraction
from lit_align.data.label_conversion import to_pairs
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import TIE, label_from_scores, make_result, prompt_hash, select_labels
from lit_align.labelling.aggregation import ContentVotes, aggregate_by_content
from lit_align.labelling.social_choice import Ranking
from lit_align.labelling.votes import ContentKey, content_key

MIDDLE_RATING = 4.0  # of ratings from 1 to 7


@dataclass(frozen=True)
class Human(Feedback):
    """The votes in a store on the same prompt with the same responses, in any order and from any number of tasks.

    The requested labels come from votes of that kind where there are any, else they are converted from the others. Two
    responses that tie are no pair, and share a place; a rating of 4, the middle, and as many votes for good as for bad
    are neither desirable nor undesirable; where all is tied the group is set aside as a tie. Skips and answers that
    were taken back count for nothing. Margins are how much better people found a response, from 0 to 3, or the
    difference of their ratings. Demonstrations are responses that were found good, rated at least 4, or found better
    than what they were compared with.

    Args:
        store: file of ``lit-align label``; the campaign may still run: a round takes the votes of its moment.
        aggregation: how several votes become a label: the majority, the share of votes, or the most probable value
            given the errors of each annotator.
        min_gold_accuracy: share of the gold tasks an annotator saw that must be right for the annotator's votes to
            count; annotators who saw none are trusted.
        ranking: how comparisons of all of a group's responses become one ranking: by how many others a response is
            expected to beat, by how many it beats more often than not, by the order that agrees with most of them, or
            by Bradley and Terry's strengths with ties.
        annotator: whose votes alone count, for a policy of that person; null counts those of all.

    Raises:
        ConfigError: if min_gold_accuracy is not between 0 and 1.
    """

    store: str
    aggregation: Literal["majority", "share", "dawid_skene"] = "share"
    min_gold_accuracy: float = 0.0
    ranking: Ranking = "borda"
    annotator: str | None = None

    def __post_init__(self) -> None:
        check_fraction(
            "min_gold_accuracy", self.min_gold_accuracy, "it is a share of the gold tasks"
        )

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        files = [Path(self.store), Path(f"{self.store}-wal")]
        versions = []
        for file in files:
            if file.exists():
                status = file.stat()
                versions.append((status.st_mtime_ns, status.st_size))
        settings = (self.aggregation, self.min_gold_accuracy, self.ranking, self.annotator)
        votes_by_content = _read_cached(self.store, settings, tuple(versions))
        results = []
        for group in groups:
            votes = votes_by_content.get(content_key(group))
            record = {
                "source": f"people, {self.aggregation}",
                "prompt": prompt_hash(group),
                "cost": 0.0,
                "seconds": 0.0,
                **(votes.record if votes else {}),
            }
            results.append(make_result((record,), partial(_label, group, votes, label_kind)))
        return results


@lru_cache(maxsize=2)
def _read_cached(
    store: str, settings: tuple[str, float, str, str | None], versions: object
) -> dict[ContentKey, ContentVotes]:
    """The votes of the store; read again when ``versions``, those of its files, have changed."""
    return aggregate_by_content(store, *settings)


def _label(group: Group, votes: ContentVotes | None, label_kind: str) -> Group:
    """The group with labels of that kind, from the first kind of task that gives some."""
    if votes is None:
        raise SetAside("no task of the store asked about it")
    if not votes.record["votes"]:
        raise SetAside("no vote on it counts")
    reason = SetAside(TIE)
    # labels of the kind itself come before those that must be converted
    for labelled in sorted(votes.groups, key=lambda group: not getattr(group, label_kind, ())):
        labelled = labelled._replace(source=group.source, extra=group.extra)
        try:
            return _convert_labels(labelled, label_kind)
        except SetAside as error:
            reason = error
    raise reason


def _convert_labels(group: Group, label_kind: str) -> Group:
    if group.ratings and label_kind != "ratings":
        group = select_labels(group, "ratings")
        scores = [ratings["rating"] for ratings in group.ratings]
        return label_from_scores(group, scores, label_kind, threshold=MIDDLE_RATING, all_pairs=True)
    if group.desirable and label_kind in ("pairs", "ranking"):
        scores = [float(is_desirable) for is_desirable in group.desirable]
        return label_from_scores(group, scores, label_kind, all_pairs=True)
    if group.pairs and label_kind == "demonstrations":
        # without responses that were compared with nothing
        group = group._replace(pairs=()) if group.ranking else to_pairs(group)
    return select_labels(group, label_kind)


@hookimpl
def register_feedback(register: Register) -> None:
    register(Human)
