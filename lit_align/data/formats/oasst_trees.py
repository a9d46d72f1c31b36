"""OpenAssistant's messages as whole trees (Köpf et al., 2023), the files that end in ``.trees.jsonl.gz``."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, LocatedRow, Row
from lit_align.data.formats.oasst import OASST
from lit_align.errors import Malformed, RowError
from lit_align.types import Group, LabelKind


@dataclass(frozen=True)
class OASSTTrees(Format):
    """A tree a row: ``message_tree_id`` and ``prompt``, a message with ``role``, ``text`` and ``replies``.

    Every message with replies of the assistant becomes a row, as `OASST` makes them of single messages.

    Example:
        >>> reply = {"role": "assistant", "text": "4", "replies": []}
        >>> tree = {"prompt": {"role": "prompter", "text": "2 + 2?", "replies": [reply]}}
        >>> [OASSTTrees()(row).responses for _, row in OASSTTrees().join([("a:1", tree)])]
        [[[{'role': 'assistant', 'content': '4'}]]]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = OASST.label_kinds

    def recognises(self, row: Row) -> bool:
        """A message with ``text`` and ``replies`` as the prompt."""
        root = row.get("prompt")
        return isinstance(root, dict) and {"text", "role", "replies"} <= root.keys()

    def join(self, rows: Iterable[LocatedRow]) -> Iterator[LocatedRow]:
        """A row for each message with replies, and one for each message that is left out."""
        for place, row in rows:
            if isinstance(row, RowError):
                yield place, row
            elif not isinstance(row.get("prompt"), dict):
                yield place, Malformed("'prompt' is no message with replies")
            else:
                yield from OASST().join(_messages(place, row["prompt"]))

    def __call__(self, row: Row) -> Group:
        """A group of the replies to one message; of rows from `join`."""
        return OASST()(row)


def _messages(place: str, root: Row) -> Iterator[LocatedRow]:
    """All messages of a tree, each with the one above it as its parent."""
    waiting: deque[tuple[Any, str]] = deque([(root, "")])
    number = 0
    while waiting:
        message, parent = waiting.popleft()
        if not isinstance(message, dict):
            yield place, Malformed("a reply is no message")
            continue
        number += 1
        message_id = str(message.get("message_id") or number)
        fields = {name: value for name, value in message.items() if name != "replies"}
        yield place, {**fields, "message_id": message_id, "parent_id": parent}
        replies = message.get("replies")
        for reply in replies if isinstance(replies, list) else []:
            waiting.append((reply, message_id))


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(OASSTTrees)
