"""Answers in a text: whole words and equal numbers, and nothing within a longer one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.functional.text_metrics import contains_answer

RIGHT = [
    ("It has 5 legs.", "5"),
    ("It has 5.0 legs", "5"),
    ("About 1,000 of them", "1000"),
    ("1000", "1,000"),
    ("x = -7.", "-7"),
    ("a half, .5", "0.5"),
    ("5, 6 or 7", "5"),
    ("5-6", "6"),
    ("It is in New\n York!", "new york"),
    ("I write C++ daily", "C++"),
    ("ÄPFEL", "äpfel"),
]
WRONG = [
    ("It has 15 legs.", "5"),
    ("It has 50 legs.", "5"),
    ("3.5", "5"),
    ("3.5", "3"),
    ("9-7 is 2", "-7"),
    ("v1.5", "5"),
    ("H2O", "2"),
    ("In Parisian cafes", "Paris"),
    ("art", "cart"),
    ("cart", "art"),
    ("anything", ""),
]


@pytest.mark.parametrize(("text", "answer"), RIGHT)
def test_an_answer_that_a_text_contains(text, answer):
    assert contains_answer(text, answer)


@pytest.mark.parametrize(("text", "answer"), WRONG)
def test_an_answer_that_a_text_does_not_contain(text, answer):
    assert not contains_answer(text, answer)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_a_number_is_right_if_it_is_equal(number, other):
    assert contains_answer(f"That makes {number:,}, I think.", str(other)) is (number == other)
