"""The tasks of a campaign for the admin: how each was answered, and which to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from lit_align.labelling.votes import CampaignVotes, Task, Vote, answer_values
from lit_align.labelling.wording import VERDICTS, describe_answer
from lit_align.types import Group, Text

Filter = Literal["all", "disagreements", "notes", "skipped"]
FILTERS: tuple[Filter, ...] = ("all", "disagreements", "notes", "skipped")
PAGE_SIZE = 50


class TaskSummary(NamedTuple):
    """A task in the list.

    Args:
        number: its number in the store.
        prompt: the prompt.
        is_gold: whether its answer is known.
        num_votes: votes that count.
        num_skips: annotators who skipped it.
        num_notes: annotators whose answer has a note.
        disagrees: whether two votes do not say the same; of ratings, whether they are more than one apart.
    """

    number: int
    prompt: Text
    is_gold: bool
    num_votes: int
    num_skips: int
    num_notes: int
    disagrees: bool

    def is_in(self, name: Filter) -> bool:
        """Whether a filter lets it through."""
        if name == "disagreements":
            return self.disagrees
        if name == "notes":
            return self.num_notes > 0
        return name == "all" or self.num_skips > 0


class VoteLine(NamedTuple):
    """A revision of an answer, on the page of its task.

    Args:
        annotator: who answered.
        choice: the answer in words, or what else the revision says.
        note: the remark.
        at: time of the answer, in seconds since 1970.
        seconds: how long it took.
        counts: whether it is the annotator's last word and a vote.
    """

    annotator: str
    choice: str
    note: str
    at: float
    seconds: float
    counts: bool


def summarise_tasks(data: CampaignVotes) -> list[TaskSummary]:
    """A line for each task, in the order of their numbers."""
    answers: dict[int, list[Vote]] = defaultdict(list)
    for vote in data.latest:
        answers[vote.task].append(vote)
    summaries = []
    for number, task in data.tasks.items():
        votes = [vote for vote in answers[number] if vote.verdict == "vote"]
        skips = [vote for vote in answers[number] if vote.verdict == "skip"]
        notes = [vote for vote in votes + skips if vote.note]
        summary = TaskSummary(
            number=number,
            prompt=data.groups[task.group].prompt,
            is_gold=task.gold is not None,
            num_votes=len(votes),
            num_skips=len(skips),
            num_notes=len(notes),
            disagrees=_disagree(task, votes),
        )
        summaries.append(summary)
    return summaries


def _disagree(task: Task, votes: Sequence[Vote]) -> bool:
    """Whether two of the votes label something differently."""
    max_difference = 1 if task.kind == "rate" else 0
    values = defaultdict(list)
    for vote in votes:
        for item, value in answer_values(task.kind, vote.answer, vote.shown).items():
            values[item].append(value)
    return any(max(labels) - min(labels) > max_difference for labels in values.values())


def response_names(task: Task) -> list[str]:
    """What the admin calls the responses of a task: by their place in the row."""
    return [f"Response {index + 1}" for index in task.members]


def task_responses(group: Group, task: Task) -> list[tuple[str, Text]]:
    """Name and text of each response of a task, in the order of the row."""
    texts = [group.responses[index] for index in task.members]
    return list(zip(response_names(task), texts, strict=True))


def describe_known_answer(task: Task, flags: dict[str, str]) -> str:
    """The known answer of a gold task in words; empty for another task."""
    if task.gold is None:
        return ""
    # a row says which is better, and not by how much
    return describe_answer(task.kind, {**task.gold, "graded": False}, response_names(task), flags)


def vote_lines(data: CampaignVotes, number: int, flags: dict[str, str]) -> list[VoteLine]:
    """Every answer to a task, oldest first, in words about the responses of the row."""
    kind = data.tasks[number].kind
    history = [vote for vote in data.history if vote.task == number]
    last = {vote.annotator: vote.revision for vote in history}
    lines = []
    for vote in history:
        names = [f"Response {index + 1}" for index in vote.shown]
        choice = VERDICTS.get(vote.verdict, "")
        if vote.verdict == "vote":
            choice = describe_answer(kind, vote.answer, names, flags)
        is_last = vote.revision == last[vote.annotator]
        line = VoteLine(
            annotator=vote.annotator,
            choice=choice,
            note=vote.note,
            at=vote.at,
            seconds=vote.seconds,
            counts=is_last and vote.verdict == "vote",
        )
        lines.append(line)
    return lines
