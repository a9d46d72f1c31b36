"""Labels of each annotator apart, and hashes in place of their names."""

from __future__ import annotations

from collections.abc import Iterator

from lit_align.annotators import annotator_key
from lit_align.labelling.aggregation import labelled_groups
from lit_align.labelling.votes import CampaignVotes
from lit_align.types import Group


def personal_groups(data: CampaignVotes, ranking: str = "borda") -> Iterator[tuple[int, Group]]:
    """`labelled_groups` of each annotator's votes apart, with who gave them, annotator by annotator.

    Args:
        data: the votes.
        ranking: one of `RANKINGS`.
    """
    for name in sorted({vote.annotator for vote in data.history}):
        history = [vote for vote in data.history if vote.annotator == name]
        for number, group in labelled_groups(data._replace(history=history), "share", ranking):
            yield number, group._replace(annotator=name)


def with_hashed_names(data: CampaignVotes) -> CampaignVotes:
    """The same votes, by salted hashes of the annotators' names."""
    history = [vote._replace(annotator=annotator_key(vote.annotator)) for vote in data.history]
    return data._replace(history=history)
