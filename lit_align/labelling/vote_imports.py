"""Votes that exist already: of the page's own export, and pairwise exports of Argilla and Label Studio."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from lit_align.data.formats.annotation_votes import (
    AnnotatorVote,
    Places,
    numbered_responses,
    prompt_of,
)
from lit_align.data.formats.argilla import (
    UNFINISHED,
    annotator_votes,
    is_unfinished,
    preference_questions,
)
from lit_align.data.formats.base import Row
from lit_align.data.formats.fields import other_fields, text_or_messages
from lit_align.data.formats.groups import SHARED
from lit_align.data.formats.label_studio import LabelStudio, LabelStudioMin
from lit_align.data.formats.label_studio import annotator_votes as label_studio_votes
from lit_align.data.formats.shared_columns import read_shared
from lit_align.data.readers import read_rows
from lit_align.errors import DataError, RowError
from lit_align.labelling.store import Store
from lit_align.labelling.vote_checks import NAME, check_answer, check_members, check_vote
from lit_align.labelling.vote_exports import OWN_ANNOTATORS
from lit_align.labelling.votes import Vote
from lit_align.types import Group

OWN_COLUMNS = frozenset({"annotator", "task", "revision", "verdict", "answer", "shown"})
KEEP_FILES = "votes.jsonl of the page, or a pairwise export of Argilla or Label Studio (JSON)"


class VoteToImport(NamedTuple):
    """A vote with the task that it is about.

    Args:
        place: where it stands, as ``file:line``.
        source_task: what identifies the task within the file.
        kind: how the task is answered.
        group: prompt and responses.
        members: the responses that the task is about, by index.
        gold: the known answer; None if there is none.
        vote: the vote; its ``shown`` are indices of the group.
    """

    place: str
    source_task: int
    kind: str
    group: Group
    members: tuple[int, ...]
    gold: dict[str, Any] | None
    vote: Vote


class ImportedVotes(NamedTuple):
    """What became of the votes of a file.

    Args:
        num_new: votes that were added, every revision counted.
        num_known: votes that the store had already.
        num_tasks: tasks that were added for them.
    """

    num_new: int
    num_known: int
    num_tasks: int


def read_vote_file(path: str) -> list[VoteToImport]:
    """The votes of a file.

    Raises:
        DataError: if it is of another layout, or a vote in it cannot be read.
    """
    rows = []
    for place, row in read_rows(path):
        if isinstance(row, RowError):
            raise DataError(f"{place} cannot be read: {row}; correct it")
        rows.append((place, row))
    if not rows:
        raise DataError(f"{path} is empty; give {KEEP_FILES}")
    read = _find_reader(path, [row for _, row in rows])
    votes: list[VoteToImport] = []
    for number, (place, row) in enumerate(rows):
        try:
            entries = read(place, number, row)
            for entry in entries:
                _check_entry(entry)
        except (RowError, LookupError, TypeError, ValueError, OverflowError) as error:
            reason = f"{error!r}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{place} has no vote that can be imported: {reason}; correct it or leave it out"
            ) from error
        votes += entries
    return votes


Reader = Callable[[str, int, Row], list[VoteToImport]]


def _find_reader(path: str, rows: Sequence[Row]) -> Reader:
    """What reads the votes of a row, by the layout of all.

    Raises:
        DataError: if the layout is none of those.
    """
    if all(row.keys() >= OWN_COLUMNS for row in rows):
        if not all("row" in row for row in rows):
            raise DataError(
                f"{path} says which task was answered, but not its texts, as exports of earlier versions do; "
                "export it again from its store with this version"
            )
        return _read_own
    if all(LabelStudio().recognises(row) or LabelStudioMin().recognises(row) for row in rows):
        first_rows: dict[str, int] = {}  # JSON_MIN has a row for each annotation of a task

        def read_label_studio(place: str, number: int, row: Row) -> list[VoteToImport]:
            task = str(row["id"]) if row.get("id") is not None else place
            return _read_label_studio(place, first_rows.setdefault(task, number), row)

        return read_label_studio
    questions = sorted({question for row in rows for question in preference_questions(row)})
    if len(questions) == 1:
        return lambda place, number, row: _read_argilla(place, number, row, questions[0])
    if questions:
        raise DataError(
            f"{path} has {' and '.join(questions)}, which all ask about the responses; keep the answers to one"
        )
    raise DataError(f"{path} has the columns {', '.join(rows[0])}; give {KEEP_FILES}")


def _read_own(place: str, number: int, row: Row) -> list[VoteToImport]:
    if not isinstance(row["row"], dict) or not isinstance(row["row"]["responses"], list):
        raise ValueError("'row' has no list of responses")
    group = _to_group(place, row["row"])
    members, shown = tuple(row["members"]), tuple(row["shown"])
    columns = {name: row[name] for name in Vote._fields if name in row}
    vote = Vote(**{**columns, "shown": shown})
    return [VoteToImport(place, vote.task, row["kind"], group, members, row.get("gold"), vote)]


def _check_entry(entry: VoteToImport) -> None:
    """Refuse what the page could not have recorded, from whichever tool it comes.

    Raises:
        ValueError: naming what is wrong.
    """
    check_vote(entry.kind, entry.vote)
    check_members(entry.kind, entry.group, entry.members, entry.vote.shown)
    if entry.gold is not None:
        check_answer(entry.kind, entry.gold, len(entry.members), is_gold=True)


def _to_group(place: str, row: Row) -> Group:
    """The row of an exported vote, whose responses may be empty."""
    responses = [text_or_messages({"responses": text}, "responses") for text in row["responses"]]
    extra = other_fields(row, "prompt", "responses", *SHARED)
    group = Group(text_or_messages(row, "prompt"), responses, source=place, extra=extra)
    return read_shared(row, group)._replace(continues=row.get("continues") is True)


def _read_label_studio(place: str, number: int, row: Row) -> list[VoteToImport]:
    is_flat = LabelStudioMin().recognises(row)
    fields = row if is_flat else row["data"]
    own = {} if is_flat else fields
    return _to_imports(place, number, fields, own, label_studio_votes(row))


def _read_argilla(place: str, number: int, row: Row, question: str) -> list[VoteToImport]:
    nested = row.get("fields")
    fields = nested if isinstance(nested, dict) else row
    metadata = row.get("metadata")
    columns = dict(metadata) if isinstance(metadata, dict) else {}
    names = _names_by_user(columns.get("annotators"))
    if names:
        del columns["annotators"]
        if OWN_ANNOTATORS in columns:
            columns["annotators"] = columns.pop(OWN_ANNOTATORS)
    if is_unfinished(row, question):
        raise ValueError(UNFINISHED)
    votes = []
    for vote in annotator_votes(row, question):
        votes.append(vote._replace(annotator=names.get(vote.annotator, vote.annotator)))
    return _to_imports(place, number, fields, columns, votes)


def _names_by_user(value: Any) -> dict[str, str]:
    """The names in the column that our export adds; empty if it is a column of the user's own."""
    try:
        names = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return {}
    if not isinstance(names, dict):
        return {}
    return names if all(isinstance(name, str) for name in names.values()) else {}


def _to_imports(
    place: str, number: int, fields: Row, own: Row, votes: Iterable[AnnotatorVote]
) -> list[VoteToImport]:
    """The votes on a row with a prompt and numbered responses; ``own`` are the columns to keep."""
    prompt, names = prompt_of(fields), numbered_responses(fields)
    group = Group(
        prompt=text_or_messages(fields, prompt),
        responses=[text_or_messages(fields, name) for name in names],
        source=place,
        extra=other_fields(own, prompt, *names),
    )
    members = tuple(range(len(names)))
    kind = "compare" if len(names) == 2 else "rank"
    imports = []
    for annotator, places, seconds in votes:
        if not annotator:
            raise ValueError("it does not say who voted")
        vote = Vote(
            annotator=annotator,
            task=number,
            revision=1,
            verdict="vote",
            answer=_to_answer(places),
            shown=members,
            seconds=seconds,
        )
        imports.append(VoteToImport(place, number, kind, group, members, None, vote))
    return imports


def _to_answer(places: Places) -> dict[str, Any]:
    """The answer that a vote of another tool is: of two, which is better and not by how much."""
    if len(places) > 2:
        return {"places": [1 + sum(other < place for other in places) for place in places]}
    sign = (places[0] > places[1]) - (places[0] < places[1])
    return {"preference": sign, "graded": False}


def import_votes(store: Store, votes: Sequence[VoteToImport]) -> ImportedVotes:
    """Add votes to a store, with the tasks that it lacks; all of them, or none.

    A task is known by its prompt and its responses in any order. A vote that the store has is left as it is.

    Raises:
        DataError: if the store has another vote of the annotator on a task, or a name is none.
    """
    importer = _Importer(store)
    with store.transaction():
        tasks = importer.find_tasks(votes)
        # revisions build on each other, whatever the order of the file
        for entry in sorted(votes, key=lambda entry: entry.vote.revision):
            importer.add(entry, *tasks[entry.source_task])
    return ImportedVotes(importer.num_new, importer.num_known, importer.num_tasks)


class _Importer:
    """Adds votes within a transaction of the store, and counts them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.num_new = self.num_known = self.num_tasks = 0
        self.imported_at = time.time()

    def find_tasks(self, votes: Iterable[VoteToImport]) -> dict[int, tuple[int, dict[int, int]]]:
        """For each task of the file, its number in the store, and the store's index of each of its responses.

        Tasks of the same content are matched in their order, so that a row that stands twice is asked about twice.
        """
        waiting = self._tasks_by_content()
        tasks: dict[int, tuple[int, dict[int, int]]] = {}
        for entry in sorted(votes, key=lambda entry: entry.source_task):
            if entry.source_task in tasks:
                continue
            texts = [entry.group.responses[index] for index in entry.members]
            key = _task_key(entry.kind, entry.gold is not None, entry.group.prompt, texts)
            if not waiting[key]:
                waiting[key] += self._add_task(entry)
            number, texts_by_index = waiting[key].pop(0)
            indices = _match(texts_by_index, entry)
            tasks[entry.source_task] = (number, indices)
        return tasks

    def _tasks_by_content(self) -> dict[tuple[str, ...], list[tuple[int, dict[int, str]]]]:
        query = (
            "SELECT tasks.id, kind, gold, members, prompt, responses FROM tasks "
            "JOIN groups ON groups.id = grp ORDER BY tasks.id"
        )
        tasks = defaultdict(list)
        for number, kind, gold, *columns in self.store.db.execute(query):
            members, prompt, responses = map(json.loads, columns)
            texts = [responses[index] for index in members]
            by_index = dict(zip(members, map(json.dumps, texts), strict=True))
            tasks[_task_key(kind, gold is not None, prompt, texts)].append((number, by_index))
        return tasks

    def _add_task(self, entry: VoteToImport) -> list[tuple[int, dict[int, str]]]:
        """The task of a vote, new in the store."""
        number = self.store.add_task(entry.group, entry.kind, entry.members, entry.gold)
        self.num_tasks += 1
        texts = {index: json.dumps(entry.group.responses[index]) for index in entry.members}
        return [(number, texts)]

    def add(self, entry: VoteToImport, task: int, indices: dict[int, int]) -> None:
        """Add a vote, unless the store has it."""
        vote = entry.vote
        if not isinstance(vote.annotator, str) or not NAME.fullmatch(vote.annotator):
            raise DataError(f"{entry.place} is of {vote.annotator!r}, which is no name; correct it")
        name = vote.annotator.strip()  # as the admin page does, which could make no link otherwise
        db = self.store.db
        insert = "INSERT INTO people (name, admin) VALUES (?, 0) ON CONFLICT DO NOTHING"
        db.execute(insert, (name,))
        query = "SELECT id FROM people WHERE name = ? AND NOT admin"
        (person,) = self.store.fetch_one(query, name)
        shown = [indices[index] for index in vote.shown]
        answer = json.dumps(vote.answer, sort_keys=True)
        content = (vote.verdict, answer, json.dumps(shown), vote.note)
        query = "SELECT verdict, answer, shown, note FROM votes WHERE person = ? AND task = ? AND revision = ?"
        recorded = self.store.fetch_one(query, person, task, vote.revision)
        if recorded == content:
            self.num_known += 1
            return
        query = "SELECT ifnull(max(revision), 0) + 1 FROM votes WHERE person = ? AND task = ?"
        (next_revision,) = self.store.fetch_one(query, person, task)
        if recorded or vote.revision != next_revision:
            raise DataError(
                f"{entry.place} is revision {vote.revision} of {name}'s answer to task {task}, and the store "
                f"has another one or not the one before; nothing was imported"
            )
        number = "SELECT ifnull(max(number), 0) + 1 FROM shown WHERE person = :person"
        values = {"task": task, "person": person, "at": vote.at or self.imported_at}
        db.execute(
            f"INSERT INTO shown VALUES (:task, :person, ({number}), 'open', :at) ON CONFLICT DO NOTHING",
            values,
        )
        row = (person, task, vote.revision, *content, vote.seconds, vote.at or self.imported_at)
        db.execute("INSERT INTO votes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.num_new += 1


def _task_key(kind: str, is_gold: bool, prompt: Any, texts: Iterable[Any]) -> tuple[str, ...]:
    """What identifies a task by its content."""
    return kind, str(is_gold), json.dumps(prompt), *sorted(map(json.dumps, texts))


def _match(texts_by_index: dict[int, str], entry: VoteToImport) -> dict[int, int]:
    """The store's index of each response of a vote; equal ones in their order."""
    free = dict(texts_by_index)
    indices = {}
    for index in entry.members:
        text = json.dumps(entry.group.responses[index])
        match = next(candidate for candidate, other in free.items() if other == text)
        del free[match]
        indices[index] = match
    return indices
