"""Which layout a file has: never two at once, refused with a remedy where none fits, and no prompt is guessed."""

import json

import pytest

from lit_align.data.formats.questions import Questions
from lit_align.data.formats.unsupported import SETS
from lit_align.errors import DataError
from lit_align.types import LabelKind
from tests.data.formats import more_public_rows, public_rows
from tests.data.formats.public_rows import ASK, BAD, GOOD, PLAIN, bot, read, user

LAYOUTS = public_rows.LAYOUTS | more_public_rows.LAYOUTS
PAIR = {"chosen": "The bird is an owl.", "rejected": "The bird is a cat."}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_public_layout_is_never_ambiguous(tmp_path, name):
    """Whatever is needed, it is read or said to have other labels."""
    _, row, *_ = LAYOUTS[name]
    for label_kind in LabelKind:
        try:
            groups, ledger = read(tmp_path, [row], label_kind)
        except DataError as error:
            message = str(error)
        else:
            message = "" if len(groups) == 1 or ledger.reasons else "neither read nor left out"
        assert not message or f"but {label_kind} are needed" in message


@pytest.mark.parametrize(
    "name",
    [
        "ultrafeedback",
        "ultrafeedback_binarized",
        "ultrafeedback-binarized-preferences",
        "shp",
        "nectar",
    ],
)
def test_feedback_gets_the_responses_of_a_comparison(tmp_path, name):
    (group,), _ = read(tmp_path, [LAYOUTS[name][1]], "responses")
    assert len(group.responses) == 2


@pytest.mark.parametrize("unsupported", SETS)
def test_what_cannot_be_read_is_refused_with_a_remedy(tmp_path, unsupported):
    row = {name: {"a": 1} for name in unsupported.columns}
    for label_kind in ("demonstrations", "pairs", "desirable"):
        with pytest.raises(DataError) as error:
            read(tmp_path, [row], label_kind)
        assert unsupported.source in str(error.value)
        assert any(word in str(error.value) for word in ("write", "set data", "keep", "join"))


def test_the_problems_of_prm800k_are_no_texts(tmp_path):
    row = {"labeler": "a", "question": {"problem": ASK}, "label": {"steps": []}}
    with pytest.raises(DataError, match=r"question\.problem into a column prompt"):
        read(tmp_path, [row], "prompts")


def test_an_ignored_column_takes_no_part_in_the_choice(tmp_path):
    row = {"text": GOOD, "question": ASK}
    with pytest.raises(DataError, match=r"list the others in data.ignore_columns"):
        read(tmp_path, [row], "demonstrations")
    (group,), ledger = read(tmp_path, [row], "demonstrations", ignored=["question"])
    assert (group.responses, dict(ledger.unread)) == ([GOOD], {"question": 1})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("user_request", ASK),
        ("dialogue_history", "Hi. Hello."),
        ("trajectory", [{"from": "human", "value": ASK}]),
        ("anything", [user(ASK)]),
        ("query", "Bird?"),
    ],
)
def test_no_prompt_is_guessed_while_a_column_may_be_one(tmp_path, column, value):
    row = PAIR | {column: value}
    _, ledger = read(tmp_path, [row], "pairs")
    ((fate, reason),) = ledger.reasons
    assert fate == "set aside"
    assert f"'{column}' may be it" in reason
    (group,), ledger = read(tmp_path, [row], "pairs", ignored=[column])
    assert (group.prompt, dict(ledger.unread)) == ("The bird is", {column: 1})


@pytest.mark.parametrize("column", ["prompt_id", "source", "rationale", "task"])
def test_a_column_that_is_no_prompt_does_not_matter(tmp_path, column):
    (group,), _ = read(tmp_path, [PAIR | {column: "one-word"}], "pairs")
    assert group.prompt == "The bird is"


def test_messages_of_the_user_are_prompts(tmp_path):
    turns = [user(ASK), bot(GOOD), user("Another?")]
    rows = [{"messages": turns, "ground_truth": "crow"}, {"messages": turns[:2]}]
    (first, second), ledger = read(tmp_path, rows, "prompts")
    assert (first.prompt, second.prompt) == (turns, turns[:1])
    assert dict(ledger.unread) == {"ground_truth": 1}
    assert not Questions().recognises(rows[1])


def test_a_prompt_may_be_the_beginning_of_a_text(tmp_path):
    rows = [{"prompt": "The bird is", "continues": True, "answer": "crow"}, {"prompt": ASK}]
    (text, question), ledger = read(tmp_path, rows, "prompts")
    assert (text.prompt, text.continues, text.extra) == ("The bird is", True, {"answer": "crow"})
    assert not question.continues
    assert dict(ledger.unread) == {"answer": 1}


@pytest.mark.parametrize("name", ["ultrafeedback", "distilabel generations", "nectar"])
def test_lists_may_be_written_as_text(tmp_path, name):
    """As CSV files and some exports have them, in JSON or in Python; also mixed with lists in one file."""
    _, row, label_kind, *_ = LAYOUTS[name]
    for write in (json.dumps, str):
        text = {
            name: write(value) if isinstance(value, list) else value for name, value in row.items()
        }
        groups, _ = read(tmp_path, [text, row, text], label_kind)
        plain, _ = read(tmp_path, [row], label_kind)
        assert [group[:6] for group in groups] == [plain[0][:6]] * 3


def test_a_prompt_that_looks_like_a_list_stays_a_text(tmp_path):
    row = {"prompt": '["a", "b"]', "chosen": "[1]", "rejected": '{"a": 1}'}
    (group,), _ = read(tmp_path, [row], "pairs")
    assert (group.prompt, group.responses) == ('["a", "b"]', ["[1]", '{"a": 1}'])


def test_letter_case_and_null_columns_do_not_change_the_layout(tmp_path):
    nulls = dict.fromkeys(("messages", "conversations", "completion", "chosen_response"))
    for row in (
        {"Prompt": ASK, "CHOSEN": GOOD, "Rejected": BAD},
        {"QUESTION": ASK, "Chosen": GOOD, "rejected": BAD},
    ):
        (group,), _ = read(tmp_path, [row | nulls], "pairs")
        assert (group.prompt, group.responses) == PLAIN
