"""Votes that exist already: of the page's own export, and pairwise exports of Argilla and Label Studio."""

from __future__ import annotations

import json
import re
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
from lit_align.data.formats.argilla import annotator_votes, preference_questions
from lit_align.data.formats.base import Row
from lit_align.data.formats.fields import other_fields, text_or_messages
from lit_align.data.formats.groups import SHARED
from lit_align.data.formats.label_studio import LabelStudio, LabelStudioMin
from lit_align.data.formats.label_studio import annotator_votes as label_studio_votes
from lit_align.data.formats.shared_columns import read_shared
from lit_align.data.readers import read_rows
from lit_align.errors import DataError, RowError
from lit_align.labelling.store import Store
from lit_align.labelling.votes import RETRACTED, TASK_KINDS, Vote
from lit_align.types import Group

OWN_COLUMNS = frozenset({"annotator", "task", "revision", "verdict", "answer", "shown"})
NAME = re.compile(r"(?=.*\S)[^\x00-\x1f]{1,100}")
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
            votes += read(place, number, row)
        except (RowError, LookupError, TypeError, ValueError) as error:
            reason = f"{error!r}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{place} has no vote that can be imported: {reason}; correct it or leave it out"
            ) from error
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
    group = _to_group(place, row["row"])
    members, shown = tuple(row["members"]), tuple(row["shown"])
    if sorted(shown) != sorted(members) or not set(members) <= set(range(len(group.responses))):
        raise ValueError("'shown' and 'members' are not the same responses of the row")
    if row["kind"] not in TASK_KINDS or row["verdict"] not in ("vote", "skip", *RETRACTED):
        raise ValueError(f"kind {row['kind']!r} or verdict {row['verdict']!r} is unknown")
    columns = {name: row[name] for name in Vote._fields if name in row}
    vote = Vote(**{**columns, "shown": shown})
    if vote.verdict == "vote":
        _check_answer(row["kind"], vote.answer, len(shown))
    numbers = (vote.task, vote.revision, vote.seconds, vote.at)
    if not all(isinstance(value, int | float) for value in numbers) or vote.revision < 1:
        raise ValueError("'task', 'revision', 'seconds' or 'at' is no number")
    if not isinstance(vote.note, str):
        raise ValueError("'note' is no text")
    return [VoteToImport(place, vote.task, row["kind"], group, members, row.get("gold"), vote)]


def _to_group(place: str, row: Row) -> Group:
    """The row of an exported vote, whose responses may be empty."""
    responses = [text_or_messages({"responses": text}, "responses") for text in row["responses"]]
    extra = other_fields(row, "prompt", "responses", *SHARED)
    group = Group(text_or_messages(row, "prompt"), responses, source=place, extra=extra)
    return read_shared(row, group)._replace(continues=row.get("continues") is True)


def _check_answer(kind: str, answer: Row, num_shown: int) -> None:
    """Refuse an answer that the page could not have recorded."""
    if kind == "rate":
        is_answer = answer["rating"] in range(1, 8) and isinstance(answer["flags"], dict)
    elif kind == "thumbs":
        is_answer = isinstance(answer["up"], bool)
    elif kind == "rank":
        places = answer["places"]
        is_answer = len(places) == num_shown and set(places) <= set(range(1, num_shown + 1))
    else:
        is_answer = answer["preference"] in range(-3, 4)
    if not is_answer:
        raise ValueError(f"{answer} is no answer to a task of the kind {kind}")


def _read_label_studio(place: str, number: int, row: Row) -> list[VoteToImport]:
    is_flat = LabelStudioMin().recognises(row)
    fields = row if is_flat else row["data"]
    own = {} if is_flat else fields
    return _to_imports(place, number, fields, own, label_studio_votes(row))


def _read_argilla(place: str, number: int, row: Row, question: str) -> list[VoteToImport]:
    nested = row.get("fields")
    fields = nested if isinstance(nested, dict) else row
    metadata = row.get("metadata")
    own = metadata if isinstance(metadata, dict) else {}
    names = json.loads(own.get("annotators") or "{}")
    votes = []
    for vote in annotator_votes(row, question):
        votes.append(vote._replace(annotator=names.get(vote.annotator, vote.annotator)))
    columns = {name: value for name, value in own.items() if name != "annotators"}
    return _to_imports(place, number, fields, columns, votes)


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
        db = self.store.db
        insert = "INSERT INTO people (name, admin) VALUES (?, 0) ON CONFLICT DO NOTHING"
        db.execute(insert, (vote.annotator,))
        query = "SELECT id FROM people WHERE name = ? AND NOT admin"
        (person,) = self.store.fetch_one(query, vote.annotator)
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
                f"{entry.place} is revision {vote.revision} of {vote.annotator}'s answer to task {task}, and the store "
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
