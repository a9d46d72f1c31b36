"""Messages of OpenAssistant's trees (Köpf et al., 2023, https://huggingface.co/datasets/OpenAssistant/oasst1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, LocatedRow, Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_response,
    list_field,
    number,
    other_fields,
    places_by_score,
    required,
)
from lit_align.errors import Malformed, RowError, SetAside
from lit_align.types import Group, LabelKind, Message

ROLES = {"prompter": "user", "assistant": "assistant", "user": "user", "system": "system"}
MESSAGE = ("message_id", "parent_id", "message_tree_id", "text", "role", "rank", "deleted")
THREAD, REPLIES, PLACES = "thread", "replies", "places"


@dataclass(frozen=True)
class OASST(Format):
    """A message a row, with ``message_id``, ``parent_id``, ``role``, ``text`` and ``rank`` among its siblings.

    The file is read as a whole. Each message with replies of the assistant becomes a prompt, with all before it, and
    the replies become its responses; they are ranked where they have ranks, 0 for the best. So every reply is a
    response once, in its own context. A message that is deleted, or below one that is, is set aside.

    Example:
        >>> rows = [("a:1", {"message_id": "1", "role": "prompter", "text": "2 + 2?"})]
        >>> rows += [("a:2", {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "4"})]
        >>> [OASST()(row).responses for _, row in OASST().join(rows)]
        [[[{'role': 'assistant', 'content': '4'}]]]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.RANKING, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """The text and role of a message, and its place in a tree."""
        return {"message_id", "text", "role"} <= row.keys() and not row.keys().isdisjoint(
            {"parent_id", "message_tree_id"}
        )

    def join(self, rows: Iterable[LocatedRow]) -> Iterator[LocatedRow]:
        """A row for each message with replies, and one for each message that is left out."""
        forest = _Forest()
        for place, row in rows:
            if isinstance(row, RowError):
                yield place, row
            else:
                yield from forest.add(place, row)
        yield from forest.groups()

    def __call__(self, row: Row) -> Group:
        """A group of the replies to one message; of rows from `join`."""
        thread, replies = list_field(row, THREAD), list_field(row, REPLIES)
        responses = [check_response([reply]) for reply in replies]
        return Group(
            check_prompt(thread),
            responses,
            ranking=tuple(row.get(PLACES) or ()),
            extra=other_fields(row, THREAD, REPLIES, PLACES),
        )


@dataclass
class _Forest:
    """The messages of a file by id, and the replies to each."""

    messages: dict[str, tuple[str, Row]] = field(default_factory=dict)
    replies: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, place: str, row: Row) -> Iterator[LocatedRow]:
        """Take a message in, or say why it cannot be."""
        try:
            message_id = str(required(row, "message_id"))
            if str(required(row, "role")) not in ROLES:
                raise Malformed(f"the unknown role {str(row['role'])[:40]!r}")
            if not isinstance(required(row, "text"), str):
                raise Malformed("'text' is not text")
            if message_id in self.messages:
                raise Malformed("a second message with the same 'message_id'")
        except RowError as error:
            yield place, error
            return
        self.messages[message_id] = place, row
        if row.get("parent_id"):
            self.replies[str(row["parent_id"])].append(message_id)

    def groups(self) -> Iterator[LocatedRow]:
        """A row for each message with replies of the assistant; others that are in no such row get a reason."""
        used: set[str] = set()
        for message_id in self.messages:
            replies = self._answers(message_id)
            try:
                thread = self._thread(message_id)
                if not replies:
                    continue
                ranked, places = self._rank(replies)
            except RowError:
                continue  # the replies get their own reasons below
            used |= {message_id, *self._path(message_id), *ranked}
            place, row = self.messages[message_id]
            extra = other_fields(row, *MESSAGE)
            turns = [self._turn(reply) for reply in ranked]
            yield place, {**extra, THREAD: thread, REPLIES: turns, PLACES: places}
        for message_id, (place, _) in self.messages.items():
            if message_id not in used:
                yield place, self._reason(message_id)

    def _answers(self, message_id: str) -> list[str]:
        """The replies to a message that are the assistant's and not deleted."""
        answers = []
        for reply in self.replies.get(message_id, []):
            _, row = self.messages[reply]
            if ROLES[row["role"]] == "assistant" and not row.get("deleted"):
                answers.append(reply)
        return answers

    def _rank(self, replies: list[str]) -> tuple[list[str], list[int]]:
        """The replies with a rank and their places; all of them, and no places, if none has one."""
        ranked, ranks = [], []
        for reply in replies:
            rank = self.messages[reply][1].get("rank")
            if rank is not None:
                ranked.append(reply)
                ranks.append(-number(rank, "'rank'"))
        if len(ranked) < 2:
            return replies, []
        return ranked, list(places_by_score(ranks))

    def _path(self, message_id: str) -> list[str]:
        """The messages above one, from the root down.

        Raises:
            Malformed: if one is missing, or is its own parent.
        """
        path: list[str] = []
        parent = self.messages[message_id][1].get("parent_id")
        while parent:
            if str(parent) not in self.messages:
                raise Malformed("the message that it replies to is not in the file")
            if parent in path or parent == message_id:
                raise Malformed("a message that is its own parent")
            path.append(str(parent))
            parent = self.messages[str(parent)][1].get("parent_id")
        return path[::-1]

    def _thread(self, message_id: str) -> list[Message]:
        """The turns from the root down to a message.

        Raises:
            Malformed: as for `_path`.
            SetAside: if one is deleted.
        """
        thread = [*self._path(message_id), message_id]
        for part in thread:
            if self.messages[part][1].get("deleted"):
                raise SetAside(
                    "a deleted message" if part == message_id else "below a deleted message"
                )
        return [self._turn(part) for part in thread]

    def _turn(self, message_id: str) -> Message:
        _, row = self.messages[message_id]
        return {"role": ROLES[row["role"]], "content": row["text"]}

    def _reason(self, message_id: str) -> RowError:
        """Why a message is in no group."""
        try:
            self._thread(message_id)
        except RowError as error:
            return error
        _, row = self.messages[message_id]
        if ROLES[row["role"]] != "assistant":
            return SetAside("a message without a reply of the assistant")
        if not row.get("parent_id"):
            return SetAside("an answer without a question")
        return SetAside("a reply without a rank beside replies with one")


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(OASST)
