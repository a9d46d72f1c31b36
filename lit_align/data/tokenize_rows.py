"""Tokenise a group and enter its fate in the ledger."""

from __future__ import annotations

from lit_align.data.ledger import Ledger
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import RowError
from lit_align.types import Group, Tree

AS_CHAT = "plain text rendered as user and assistant turns (as_chat: false switches it off)"


def tokenize_row(tokenizer: ChatTokenizer, group: Group, note: str, ledger: Ledger) -> Tree | None:
    """The group's tree; None if it cannot be trained on.

    Args:
        tokenizer: turns groups into token ids.
        group: read and converted.
        note: what the ledger says of a row that is kept.
        ledger: gets the fate of the row.
    """
    try:
        encoded = tokenizer.encode(group)
    except RowError as error:
        ledger.add_error(group.source, error)
        return None
    if encoded.cut:
        lost = f"{encoded.ends_lost} of {len(group.responses)} responses lost the end"
        reason = f"{lost}: longer than max_length, and overlong is truncate"
        ledger.add(group.source, "truncated", reason)
    else:
        notes = [note, AS_CHAT if encoded.from_text else ""]
        ledger.add(group.source, "kept", "; ".join(filter(None, notes)))
    for name in encoded.unread:
        ledger.add_unread(name)
    ledger.add_spelled(encoded.spelled, encoded.split)
    ledger.measure(encoded.tree, encoded.cut, encoded.ends_lost, encoded.boundary_merges)
    ledger.chars_cut += encoded.chars_cut
    return encoded.tree
