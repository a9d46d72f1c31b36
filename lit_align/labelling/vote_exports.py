"""Votes as rows for others: the project's own JSON lines, Argilla, Label Studio, and tables."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from lit_align.data.formats.groups import as_row
from lit_align.errors import ConfigError
from lit_align.labelling.task_list import response_names
from lit_align.labelling.votes import CampaignVotes, Task, Vote
from lit_align.labelling.wording import VERDICTS, describe_answer, format_time
from lit_align.types import Group, Text

Row = dict[str, Any]
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so may be run by a spreadsheet."""
OWN_ANNOTATORS = "row.annotators"
"""Where Argilla's metadata have a task's own column ``annotators``: they say by that name who the users are."""
SIDES = {True: "left", False: "right"}


def vote_rows(data: CampaignVotes) -> Iterator[Row]:
    """Every answer ever given, each with the row that it is about: what `import_votes` reads."""
    for vote in data.history:
        task = data.tasks[vote.task]
        yield {
            **vote._asdict(),
            "kind": task.kind,
            "members": task.members,
            "gold": task.gold,
            "row": as_row(data.groups[task.group]),
        }


def vote_table(data: CampaignVotes, flags: Mapping[str, str]) -> str:
    """The answers that stand as CSV, with the task's own columns; no cell is a formula."""
    rows = []
    for vote in data.latest:
        if vote.verdict in ("vote", "skip"):
            rows.append(_table_row(data, vote, flags))
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, names))
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return text.getvalue()


def _table_row(data: CampaignVotes, vote: Vote, flags: Mapping[str, str]) -> Row:
    task = data.tasks[vote.task]
    group = data.groups[task.group]
    row: Row = {
        "task": vote.task,
        "annotator": vote.annotator,
        "kind": task.kind,
        "choice": VERDICTS.get(vote.verdict, ""),
        "strength": None,
        "note": vote.note,
        "seconds": round(vote.seconds, 1),
        "time": format_time(vote.at),
        "gold": task.gold is not None,
        "prompt": group.prompt,
    }
    if vote.verdict == "vote":
        names = [f"Response {index + 1}" for index in vote.shown]
        row["choice"] = describe_answer(task.kind, vote.answer, names, flags)
    if "preference" in vote.answer and vote.answer.get("graded", True):
        row["strength"] = abs(vote.answer["preference"])
    for name, index in zip(response_names(task), task.members, strict=True):
        row[name] = group.responses[index]
    for name, value in group.extra.items():
        row[f"row.{name}" if name in row else name] = value
    return row


def _cell(value: Any) -> Any:
    """A value as a cell: text that a spreadsheet would run gets an apostrophe in front."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def argilla_records(data: CampaignVotes) -> list[Row]:
    """Comparisons and rankings as the records that Argilla's ``records.to_json`` writes and ``from_json`` reads.

    The question ``preference`` has the name of a response or ``tie``, ``ranking`` the names with their ranks, and
    ``strength`` 0 to 3. Argilla knows people by a UUID: it is made of the name, and ``metadata.annotators`` has both.

    Raises:
        ConfigError: if there is no comparison and no ranking.
    """
    records = []
    for number, task, votes in _voted_tasks(data, ("compare", "rank"), "Argilla"):
        group = data.groups[task.group]
        responses: dict[str, list[Row]] = defaultdict(list)
        names = {}
        for vote in votes:
            user = _user_id(vote.annotator)
            names[user] = vote.annotator
            for question, value in _argilla_answers(task, vote).items():
                answer = {"value": value, "user_id": user, "status": "submitted"}
                responses[question].append(answer)
        metadata = _scalars(group.extra)
        if "annotators" in metadata:
            metadata[OWN_ANNOTATORS] = metadata["annotators"]
        metadata["annotators"] = json.dumps(names, ensure_ascii=False)
        record = {
            "id": str(number),
            "fields": _numbered_fields(group, task, "response"),
            "metadata": metadata,
            "suggestions": {},
            "responses": dict(responses),
            "vectors": {},
        }
        records.append(record)
    return records


def _argilla_answers(task: Task, vote: Vote) -> Row:
    """The value of each question that a vote answers."""
    if task.kind == "rank":
        ranking = []
        places = zip(vote.shown, vote.answer["places"], strict=True)
        for index, place in sorted(places, key=lambda entry: entry[1]):
            ranking.append({"value": f"response{task.members.index(index) + 1}", "rank": place})
        return {"ranking": ranking}
    preference = vote.answer["preference"]
    better = _better_member(task, vote)
    answers: Row = {"preference": "tie" if better is None else f"response{better + 1}"}
    if vote.answer.get("graded", True):
        answers["strength"] = abs(preference)
    return answers


def _better_member(task: Task, vote: Vote) -> int | None:
    """Which of the two responses of a task is better, 0 or 1; None for a tie."""
    preference = vote.answer["preference"]
    if preference == 0:
        return None
    return task.members.index(vote.shown[0] if preference < 0 else vote.shown[1])


def label_studio_tasks(data: CampaignVotes) -> list[Row]:
    """Comparisons as the tasks that Label Studio imports and exports, with the tags Pairwise and Rating.

    The left text is ``answer1``. Label Studio finds annotators by their e-mail address, which their name must be; a tie
    is selected as ``tie``, which its tag Pairwise does not show.

    Raises:
        ConfigError: if there is no comparison.
    """
    tasks = []
    for number, task, votes in _voted_tasks(data, ("compare",), "Label Studio"):
        group = data.groups[task.group]
        fields = _numbered_fields(group, task, "answer")
        own = {name: value for name, value in group.extra.items() if name not in fields}
        annotations = [_annotation(task, vote) for vote in votes]
        tasks.append({"id": number, "data": {**own, **fields}, "annotations": annotations})
    return tasks


def _annotation(task: Task, vote: Vote) -> Row:
    better = _better_member(task, vote)
    selected = "tie" if better is None else SIDES[better == 0]
    tag = {"to_name": "answer1,answer2"}
    pairwise = {"from_name": "preference", "type": "pairwise", "value": {"selected": selected}}
    results: list[Row] = [{**tag, **pairwise}]
    if vote.answer.get("graded", True):
        value = {"rating": abs(vote.answer["preference"])}
        results.append({**tag, "from_name": "strength", "type": "rating", "value": value})
    return {
        "completed_by": {"email": vote.annotator},
        "was_cancelled": False,
        "lead_time": vote.seconds,
        "result": results,
    }


def _voted_tasks(
    data: CampaignVotes, kinds: tuple[str, ...], tool: str
) -> list[tuple[int, Task, list[Vote]]]:
    """The tasks of those kinds with the votes that count; gold tasks are left out, as in the labels."""
    votes: dict[int, list[Vote]] = defaultdict(list)
    for vote in data.votes:
        votes[vote.task].append(vote)
    tasks = []
    for number, task in data.tasks.items():
        if task.kind in kinds and task.gold is None:
            tasks.append((number, task, votes[number]))
    if not tasks:
        present = " and ".join(sorted({task.kind for task in data.tasks.values()}))
        raise ConfigError(
            f"the tasks are of the kind {present}, and {tool} gets {' and '.join(kinds)}; export the votes as CSV"
        )
    return tasks


def _numbered_fields(group: Group, task: Task, name: str) -> dict[str, Text]:
    fields = {"prompt": group.prompt}
    for position, index in enumerate(task.members, 1):
        fields[f"{name}{position}"] = group.responses[index]
    return fields


def _scalars(columns: Mapping[str, Any]) -> Row:
    """The columns with other values than numbers and text as JSON, which Argilla's metadata do not hold."""
    scalars = {}
    for name, value in columns.items():
        is_scalar = value is None or isinstance(value, str | int | float)
        scalars[name] = value if is_scalar else json.dumps(value, ensure_ascii=False)
    return scalars


def _user_id(annotator: str) -> str:
    """A UUID for the annotator; the name itself if it is one."""
    try:
        return str(uuid.UUID(annotator))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, annotator))
