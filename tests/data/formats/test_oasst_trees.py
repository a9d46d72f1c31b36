"""Files of whole trees give what their messages, one a row, give."""

from tests.data.formats.public_rows import ASK, BAD, GOOD, bot, read, user

MESSAGES = [
    {"message_id": "1", "parent_id": None, "role": "prompter", "text": ASK, "lang": "en"},
    {"message_id": "2", "parent_id": "1", "role": "assistant", "text": BAD, "rank": 1},
    {"message_id": "3", "parent_id": "1", "role": "assistant", "text": GOOD, "rank": 0},
    {"message_id": "4", "parent_id": "3", "role": "prompter", "text": "Another?"},
    {"message_id": "5", "parent_id": "4", "role": "assistant", "text": "The crow."},
]


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
        assert (ledger.rows, ledger.joined) == (2, -1)
    assert "rows that records were divided into, beyond one each: 1" in ledger.table()


def test_broken_trees_have_a_fate(tmp_path):
    rows = [TREE, {"prompt": None}, {"prompt": nested("1") | {"replies": [None, {"role": "bard"}]}}]
    groups, ledger = read(tmp_path, rows, "demonstrations")
    assert groups[0].prompt == [user(ASK)]
    assert groups[1].responses == [[bot("The crow.")]]
    assert ("malformed", "'prompt' is no message with replies") in ledger.reasons
    assert ("malformed", "a reply is no message") in ledger.reasons
