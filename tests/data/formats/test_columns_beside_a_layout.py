"""Columns that belong to no layout, beside the columns of one: they change neither the layout nor their own text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.data import cell_text
from lit_align.data.formats.fields import has_numbers
from lit_align.data.formats.solutions import Solutions
from lit_align.errors import DataError
from tests.data.formats.public_rows import ASK, BAD, GOOD, bot, read, user

TEXTS = ["What is this?", "A letter."]
TURNS = [user("What is this?"), bot("A letter.")]
WHY = "It hoots."


def test_a_cell_that_nothing_reads_stays_the_text_of_the_file(tmp_path):
    cells = {
        "answers": "[3, 1]",
        "info": '{"tests": [1]}',
        "Ratings": "[4, None]",
        "note": str(TURNS),
        "lists": {"role": ["user"], "content": ["Hi."]},
    }
    (group,), ledger = read(tmp_path, [{"prompt": ASK} | cells], "prompts")
    assert group.extra == cells
    assert set(ledger.unread) == set(cells)


def test_a_cell_that_repeats_what_is_read_stays_text_too(tmp_path):
    row = {"prompt": ASK, "completion": GOOD, "history": f'["{ASK}"]'}
    (group,), ledger = read(tmp_path, [row], "demonstrations")
    assert group.extra == {"history": row["history"]}
    assert dict(ledger.unread) == {"history": 1}


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("prompt", "completion"),
        ("instruction", "output"),
        ("question", "answer"),
        ("prompt", "response"),
        ("problem", "solution"),
        ("problem", "generated_solution"),
        ("instruction", "generation"),
        ("inputs", "targets"),
        (None, "text"),
    ],
)
@pytest.mark.parametrize(("column", "value"), [("data", TEXTS), ("conversation", TURNS)])
def test_a_list_beside_a_response_is_not_read(tmp_path, prompt, response, column, value):
    row = {prompt: ASK, response: GOOD} if prompt else {response: GOOD}
    (group,), ledger = read(tmp_path, [row | {column: value}], "demonstrations")
    (alone,), _ = read(tmp_path, [row], "demonstrations")
    assert group[:6] == alone[:6]
    assert dict(ledger.unread) == {column: 1}


def test_a_list_of_texts_beside_a_prompt_is_no_response(tmp_path):
    with pytest.raises(DataError, match="demonstrations are needed"):
        read(tmp_path, [{"prompt": ASK, "data": TEXTS}], "demonstrations")


@pytest.mark.parametrize("columns", [{"data": TEXTS}, {"answer": GOOD}, {"response": GOOD}])
def test_turns_are_read_where_no_column_has_the_prompt_of_a_response(tmp_path, columns):
    row = {"conversation": TURNS} | columns
    (group,), ledger = read(tmp_path, [row], "demonstrations")
    assert (group.prompt, group.responses) == (TURNS[:1], [TURNS[1:]])
    assert set(ledger.unread) == set(columns)


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ({"question": ASK, "r1_solution_1": GOOD}, "answer"),
        ({"question": ASK, "thinking_trajectories": [WHY], "attempt": GOOD}, "answer"),
        (
            {"question": ASK, "deepseek_thinking_trajectory": WHY, "deepseek_attempt": GOOD},
            "answer",
        ),
        ({"problem": ASK, "deepseek_reasoning": WHY, "deepseek_solution": GOOD}, "solution"),
    ],
)
def test_solutions_are_imitated_and_not_the_right_answer(tmp_path, columns, answer):
    (group,), ledger = read(tmp_path, [columns | {answer: "owl"}], "demonstrations")
    assert group.prompt == [user(ASK)]
    assert group.responses[0][0]["content"] == GOOD
    assert dict(ledger.unread) == {answer: 1}


def test_solutions_stand_in_the_order_of_their_numbers():
    row = {"question": ASK, "r1_solution_10": BAD, "r1_solution_2": GOOD, "r1_solution_tokens": 7}
    group = Solutions()(row)
    assert group.responses == [[bot(GOOD)], [bot(BAD)]]
    assert group.extra == {"r1_solution_tokens": 7}


@given(st.text(st.sampled_from("a\u00a0\u2028\u3000\x1c\x85\u200b \n\t")))
def test_white_space_is_squeezed_alike_in_short_and_long_texts(text):
    expected = re.sub(r"\s+", " ", text).strip()
    assert cell_text.squeeze(text) == expected
    long = text + "a" * cell_text.LONG_TEXT
    assert cell_text.squeeze(long) == re.sub(r"\s+", " ", long).strip()


@pytest.mark.parametrize("prompt", [ASK, f"  {ASK}\n", ASK.replace(" ", "  "), f"Be brief. {ASK}"])
@pytest.mark.parametrize("question", [ASK, f" {ASK} ", ASK.replace(" ", "\n")])
def test_a_prompt_repeats_a_turn_whatever_its_white_space(tmp_path, prompt, question):
    turns = {
        "chosen": [user(question), bot(GOOD)],
        "rejected": [user(question), bot(BAD)],
    }
    (group,), _ = read(tmp_path, [turns | {"prompt": prompt}], "pairs")
    assert group.prompt == [user(question)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None], True),
        (["4.5", "N/A"], True),
        (["good", "bad"], False),
        ([True, False], False),
        ([None], False),
        ("12", False),
    ],
)
def test_which_lists_have_numbers(values, expected):
    assert has_numbers(values) is expected


def test_words_beside_generations_are_no_ratings(tmp_path):
    row = {"instruction": ASK, "generations": [GOOD, BAD], "ratings": ["good", "bad"]}
    (group,), _ = read(tmp_path, [row], "prompts")
    assert group.extra["ratings"] == ["good", "bad"]
    with pytest.raises(DataError):
        read(tmp_path, [row], "ranking")


def test_a_label_of_one_word_is_no_response(tmp_path):
    rows = [{"prompt": ASK, "label": label} for label in (GOOD, "owl", " 42 ")]
    assert len(GOOD.split()) > 1
    (group,), ledger = read(tmp_path, rows, "demonstrations")
    assert group.responses == [GOOD]
    ((reason, count),) = [(reason, n) for (fate, reason), n in ledger.reasons.items() if reason]
    assert count == 2
    assert "set data.columns: {completion: label}" in reason
    groups, _ = read(tmp_path, rows, "demonstrations", names={"completion": "label"})
    assert [group.responses[0].strip() for group in groups] == [GOOD, "owl", "42"]
    groups, _ = read(tmp_path, rows, "prompts")
    assert [group.extra["label"] for group in groups] == [GOOD, "owl", " 42 "]
