"""Read and tokenise a data set: files to trees, with the fate of every row in the ledger."""

from __future__ import annotations

from lit_align.data.ledger import Ledger
from lit_align.data.read_groups import DataSource, read_groups
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import RowError
from lit_align.types import Tree

AS_CHAT = "plain text rendered as user and assistant turns (as_chat: false switches it off)"


def prepare(source: DataSource, tokenizer: ChatTokenizer) -> tuple[list[Tree], Ledger]:
    """Read, convert and tokenise all rows of all files.

    Args:
        source: the files, and the labels that are trained on.
        tokenizer: turns groups into token ids.

    Raises:
        DataError: if a path, or the data as a whole, cannot be used.
    """
    ledger = source.new_ledger()
    trees: list[Tree] = []
    for group, note in read_groups(source, ledger):
        try:
            encoded = tokenizer.encode(group)
        except RowError as error:
            ledger.add_error(group.source, error)
            continue
        if encoded.cut:
            lost = f"{encoded.ends_lost} of {len(group.responses)} responses lost the end"
            reason = f"{lost}: longer than max_length, and overlong is truncate"
            ledger.add(group.source, "truncated", reason)
        else:
            notes = [note, AS_CHAT if encoded.from_text else ""]
            ledger.add(group.source, "kept", "; ".join(filter(None, notes)))
        for name in encoded.unread:
            ledger.add_unread(name)
        ledger.measure(encoded.tree, encoded.cut, encoded.ends_lost, encoded.boundary_merges)
        trees.append(encoded.tree)
    source.close_ledger(ledger)
    return trees, ledger
