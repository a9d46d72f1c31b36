"""Sentences whose nouns were counted by hand."""

import pytest
from lit_align_nouns import ENDINGS, NOT_NOUNS, Nouns, _word_list, is_noun

from lit_align.rewards import Group
from lit_align.testing import check_reward

COUNTED = {
    "The cat sat on the mat.": 2,  # cat, mat
    "Women's hats, wolves and LEAVES!": 4,  # women, hats, wolves, leaves
    "In the mornings she ate berries, potatoes and half a loaf.": 4,  # mornings, berries, potatoes, loaf
    "Friendship needs honesty, and honesty needs illness to be seen.": 4,  # friendship, honesty twice, illness
    "Realism is a movement, not a decision.": 3,  # realism, movement, decision
    "Please mention that we implement them, hence enhance it.": 0,
    "They were happily running, because it is good.": 0,
    "": 0,
    "3 ... 4_5 !": 0,
}


def test_it_keeps_the_promises():
    check_reward(Nouns())


@pytest.mark.parametrize(("text", "count"), COUNTED.items())
def test_nouns_as_counted_by_hand(text, count):
    assert Nouns()([Group("", [text])]).total.tolist() == [count]


def test_a_word_counts_each_time_and_in_a_conversation_only_what_was_answered():
    asked, said = (
        {"role": "user", "content": "A dog?"},
        {"role": "assistant", "content": "A cat, a cat."},
    )
    assert Nouns()([Group("", ["cat cat cat", [asked, said]])]).total.tolist() == [3, 2]


def test_the_list_is_of_words_once_each_that_the_endings_do_not_contradict():
    listed = _word_list()
    assert all(word.isalpha() and word.islower() for word in listed)
    assert not listed & NOT_NOUNS
    assert all(word.endswith(ENDINGS) and not is_noun(word) for word in NOT_NOUNS)


@pytest.mark.parametrize(
    "word", ["is", "has", "this", "was", "does", "goes", "less", "us", "ness", "lives", "better"]
)
def test_common_words_that_are_no_nouns(word):
    assert is_noun(word) == (word == "lives")  # which is the plural of life
