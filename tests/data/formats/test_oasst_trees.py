"""Files of whole trees give what their messages, one a row, give."""

import json

from lit_align.data.formats import built_in
from lit_align.data.ledger import Ledger
from lit_align.data.read_groups import DataSource, read_groups
from tests.data.formats.public_rows import ASK, MESSAGES, bot, read, user


def nested(message_id):
    """The message with its replies inside."""
    (message,) = (row for row in MESSAGES if row["message_id"] == message_id)
    replies = [row["message_id"] for row in MESSAGES if row["parent_id"] == message_id]
    return message | {"replies": [nested(reply) for reply in replies]}


TREE = {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": nested("1")}


def test_a_tree_gives_what_its_messages_give(tmp_path):
    for label_kind in ("ranking", "pairs", "demonstrations", "prompts", "responses"):
        of_tree, ledger = read(tmp_path, [TREE], label_kind)
        of_messages, _ = read(tmp_path, MESSAGES, label_kind)
        assert [group[:6] for group in of_tree] == [group[:6] for group in of_messages]
        assert (ledger.rows, ledger.joined, ledger.divided) == (2, 0, 1)
    assert "rows that records were divided into, beyond one each: 1" in ledger.table()


def test_broken_trees_have_a_fate(tmp_path):
    rows = [TREE, {"prompt": None}, {"prompt": nested("1") | {"replies": [None, {"role": "bard"}]}}]
    groups, ledger = read(tmp_path, rows, "demonstrations")
    assert groups[0].prompt == [user(ASK)]
    assert groups[1].responses == [[bot("The crow.")]]
    assert ("malformed", "'prompt' is no message with replies") in ledger.reasons
    assert ("malformed", "a reply is no message") in ledger.reasons


def test_joined_and_divided_records_are_counted_apart(tmp_path):
    paths = [tmp_path / "messages.jsonl", tmp_path / "trees.jsonl"]
    for path, rows in zip(paths, [MESSAGES, [TREE] * 3], strict=True):
        path.write_text("\n".join(map(json.dumps, rows)))
    source = DataSource([str(path) for path in paths], "demonstrations", formats=built_in())
    ledger = source.new_ledger()
    assert len(list(read_groups(source, ledger))) == ledger.rows == 2 + 6
    assert (ledger.joined, ledger.divided) == (len(MESSAGES) - 2, 6 - 3)
    total = Ledger("both")
    total.merge(ledger)
    total.merge(ledger)
    assert (total.joined, total.divided) == (6, 6)
    for line in ("joined with others into these rows: 3", "divided into, beyond one each: 3"):
        assert line in ledger.table()
    assert Ledger.from_state(ledger.to_state()).divided == 3
    assert (ledger.to_dict()["joined"], ledger.to_dict()["divided"]) == (3, 3)
