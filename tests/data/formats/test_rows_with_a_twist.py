"""Rows that are almost those of a public set: each is left out with a reason, or read as it is meant; none crashes."""

import copy
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.column_fates import ColumnSettings
from lit_align.data.formats import built_in
from lit_align.data.formats.preferences import Preferences
from lit_align.data.label_conversion import convert_labels
from lit_align.data.row_reader import RowReader
from lit_align.errors import DataError, RowError
from lit_align.types import LabelKind, Pair
from tests.data.formats import more_public_rows, public_rows
from tests.data.formats.public_rows import ASK, BAD, CHAT, GOOD, SYSTEM, TOOL, bot, read, user

LAYOUTS = public_rows.LAYOUTS | more_public_rows.LAYOUTS
PAIR = {"prompt": ASK, "chosen": GOOD, "rejected": BAD}
CONVERSATIONS = {"chosen": [user(ASK), bot(GOOD)], "rejected": [user(ASK), bot(BAD)]}
SHP, HELPSTEER, UF = (
    LAYOUTS[name][1] for name in ("shp", "helpsteer2 preference", "ultrafeedback")
)
AXIS = LAYOUTS["summarize_from_feedback axis"][1]
CALLS = {"role": "assistant", "content": None}


def chat(*turns, **columns):
    return {"messages": [*turns], **columns}


def nectar(*answers):
    return {"prompt": ASK, "answers": [{"answer": text, "rank": rank} for text, rank in answers]}


LEFT_OUT = {
    "a prompt that the conversations lack": (
        CONVERSATIONS | {"prompt": "Name a tree."},
        "pairs",
        "'prompt' is no part of the conversations",
    ),
    "other questions": (
        CONVERSATIONS | {"rejected": [user("Why?"), bot(BAD)]},
        "pairs",
        "no prompt in common",
    ),
    "an unknown role": (
        chat(user(ASK), {"role": "bard", "content": GOOD}),
        "demonstrations",
        "'bard'",
    ),
    "a null turn": (chat(user(ASK), None, bot(GOOD)), "demonstrations", "no 'role' and 'content'"),
    "null content": (chat(user(ASK), CALLS), "demonstrations", "is not text (got NoneType)"),
    "no answer": (chat(user(ASK)), "demonstrations", "no assistant turn"),
    "an empty answer between others": (
        chat(user(ASK), bot(" "), user("So?"), bot(GOOD)),
        "demonstrations",
        "without words, calls or thoughts",
    ),
    "a picture beside text": (
        chat(user([{"type": "text", "text": ASK, "image": "owl.png"}]), bot(GOOD)),
        "demonstrations",
        "a part with 'image'",
    ),
    "code for functions": (
        chat(user(ASK), bot(GOOD), tools="__import__('os').getcwd()"),
        "demonstrations",
        "neither JSON nor a Python literal",
    ),
    "functions without end": (
        chat(user(ASK), bot(GOOD), tools="[" * 9999),
        "demonstrations",
        "neither JSON nor a Python literal",
    ),
    "functions of two megabytes": (
        chat(user(ASK), bot(GOOD), tools=f"[{{'name': '{'x' * 2_000_000}'}}]"),
        "demonstrations",
        "neither JSON nor a Python literal",
    ),
    "a number for calls": (
        chat(user(ASK), CALLS | {"tool_calls": 5}),
        "demonstrations",
        "are no list (got int)",
    ),
    "a preference beyond the scale": (
        HELPSTEER | {"preference_strength": 4},
        "pairs",
        "from -3 to 3",
    ),
    "votes against the scores": (SHP | {"labels": 1}, "pairs", "'labels' contradicts"),
    "a ratio below one": (SHP | {"score_ratio": 0.5}, "pairs", "'score_ratio' is below 1"),
    "a rating beyond seven": (
        AXIS | {"summary": {"text": GOOD, "axes": {"overall": 8}}},
        "ratings",
        "the rating 'overall' is not from 1 to 7",
    ),
    "a rating of six": (
        UF
        | {"completions": [UF["completions"][0] | {"annotations": {"honesty": {"Rating": "6"}}}]},
        "ratings",
        "the rating 'honesty' is not from 1 to 5",
    ),
    "the same answer twice": (nectar((GOOD, 1), (GOOD, 2)), "ranking", "the same response at two"),
    "the same answer twice, compared": (nectar((GOOD, 1), (GOOD, 2)), "pairs", "no comparison"),
    "a tie of all": (nectar((GOOD, 1), (BAD, 1)), "ranking", "ties all responses"),
    "a question without text": (
        LAYOUTS["webgpt_comparisons"][1] | {"question": {"id": "1"}},
        "pairs",
        "missing field 'full_text'",
    ),
    "a label of two": (
        {"prompt": ASK, "completion": GOOD, "label": 2},
        "desirable",
        "'label' is not true or false (got '2')",
    ),
    "nothing left to answer": ({"prompt": [user(ASK), bot(GOOD)]}, "prompts", "nothing is left"),
    "no call": (
        {"query": ASK, "answers": "[]", "tools": json.dumps([TOOL])},
        "demonstrations",
        "a question without a call",
    ),
    "two system texts": (
        {
            "system": "Be long.",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": ASK},
                {"from": "gpt", "value": GOOD},
            ],
        },
        "demonstrations",
        "the system turn of the conversation differ",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_left_out_with_a_reason(tmp_path, name):
    row, label_kind, reason = LEFT_OUT[name]
    groups, ledger = read(tmp_path, [row], label_kind)
    assert not groups
    assert reason in next(iter(ledger.reasons))[1]


READ = {
    "letter case of roles": CONVERSATIONS
    | {"chosen": [{"role": "User", "content": ASK}, {"role": "ASSISTANT", "content": GOOD}]},
    "names of roles": CONVERSATIONS
    | {"chosen": [{"role": "human", "content": ASK}, {"role": "model", "content": GOOD}]},
    "turns with from and value": CONVERSATIONS
    | {"chosen": [{"from": "human", "value": ASK}, {"from": "gpt", "value": GOOD}]},
    "a list as JSON": CONVERSATIONS | {"chosen": json.dumps(CONVERSATIONS["chosen"])},
    "lists of roles and contents": CONVERSATIONS
    | {"chosen": {"role": ["user", "assistant"], "content": [ASK, GOOD]}},
    "a last word of the user": CONVERSATIONS
    | {"chosen": [*CONVERSATIONS["chosen"], user("Thanks!")]},
    "a dialogue that is greeted": {
        side: f"\n\nSystem: Be brief.\n\nHuman: {ASK}\n\nAssistant: {text}"
        for side, text in (("chosen", GOOD), ("rejected", BAD))
    },
    "the name of the winner": {
        "model_a": "owlet",
        "model_b": "kitten",
        "winner": "Owlet",
        "conversation_a": CONVERSATIONS["chosen"],
        "conversation_b": CONVERSATIONS["rejected"],
    },
}


@pytest.mark.parametrize("name", READ)
def test_read_as_it_is_meant(tmp_path, name):
    (group,), _ = read(tmp_path, [READ[name]], "pairs")
    prompt = [SYSTEM, *CHAT[0]] if "System" in str(READ[name]) else CHAT[0]
    assert (group.prompt, group.responses, group.pairs) == (prompt, CHAT[1], (Pair(0, 1),))


def test_a_prompt_that_is_missing_in_one_row_is_not_guessed(tmp_path):
    (group,), ledger = read(tmp_path, [PAIR, PAIR | {"prompt": None}], "pairs")
    assert group.prompt == ASK
    assert ("malformed", "missing field 'prompt'") in ledger.reasons


def test_a_system_text_is_only_one_at_the_beginning(tmp_path):
    inside = f"{GOOD}\n\nSystem: it is a bird."
    sides = {"chosen": inside, "rejected": BAD}
    row = {side: f"\n\nHuman: {ASK}\n\nAssistant: {text}" for side, text in sides.items()}
    (group,), _ = read(tmp_path, [row], "pairs")
    assert group.responses[0] == [bot(inside)]


def test_a_label_that_is_text_is_no_answer_beside_other_columns(tmp_path):
    row = {"prompt": ASK, "answer_a": GOOD, "answer_b": BAD, "label": "b"}
    with pytest.raises(DataError, match="none of its columns prompt, answer_a, answer_b, label"):
        read(tmp_path, [row], "demonstrations")


def test_scores_that_do_not_fit_the_choice_are_noted():
    tie = PAIR | {"score_chosen": 5.0, "score_rejected": 5.0}
    assert Preferences().note(tie) == "'score_chosen' equals 'score_rejected'"
    assert (
        Preferences().note(tie | {"score_chosen": 4.0})
        == "'score_chosen' is below 'score_rejected'"
    )
    assert Preferences().note(PAIR | {"margin": -1}) == "'margin' is below 0"
    assert Preferences().note(PAIR | {"chosen-rating": 5, "rejected-rating": "n/a"}) == ""


# fmt: off
VALUES = [
    None, "", " ", [], {}, 0, -1, 2, 1e400, float("nan"), True, "x", "\ud800", "[", "[None]", "nan", [None], [[]], [{}],
    ["a", None], {"a": None}, [{"role": None, "content": None}], [1, 2], {"value": 1}, "[{'from': 1, 'value': 2}]",
]
# fmt: on


def places(value, place=()):
    """Where all parts of a value are."""
    yield place
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in parts:
        yield from places(part, (*place, key))


@given(st.sampled_from(sorted(LAYOUTS)), st.sampled_from(list(LabelKind)), st.data())
@settings(max_examples=400, deadline=None)
def test_no_value_makes_a_layout_crash(name, label_kind, data):
    """Any part of a public row replaced by anything: the row is read or left out, or the file refused."""
    row = LAYOUTS[name][1]
    place = data.draw(st.sampled_from([place for place in places(row) if place]))
    broken = copy.deepcopy(row)
    part = broken
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = data.draw(st.sampled_from(VALUES))
    first = data.draw(st.sampled_from([row, broken]))
    rows = [("rows.jsonl:1", first), ("rows.jsonl:2", broken)]
    try:
        reader = RowReader.of_file("rows.jsonl", rows, built_in(), label_kind, ColumnSettings())
    except DataError:
        return
    for _, values in reader.row_format.join(iter(rows)):
        with suppress(RowError):
            group = convert_labels(reader.read(values).group, label_kind)
            assert group.prompt or group.responses
