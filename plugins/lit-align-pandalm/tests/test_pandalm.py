"""Votes become a label with a probability; what says nothing is set aside, what is broken is told."""

import pytest
from lit_align_pandalm import VOTES, PandaLM

from lit_align.errors import Malformed, SetAside
from lit_align.testing import check_format
from lit_align.types import Pair


def row(*votes, **columns):
    made = {
        "idx": 7,
        "instruction": "Name a bird.",
        "input": "In the garden.",
        "response1": "Owl.",
        "response2": "Cat.",
    }
    return {**made, **dict(zip(VOTES, votes, strict=True)), **columns}


@pytest.mark.parametrize(
    ("votes", "pair"),
    [
        ((1, 1, 1), Pair(0, 1, 1.0)),
        ((2, 2, 2), Pair(1, 0, 1.0)),
        ((1, 2, 1), Pair(0, 1, 2 / 3)),
        ((2, 0, 2), Pair(1, 0, 1.0)),
    ],
)
def test_the_majority_of_the_votes_that_are_no_tie(votes, pair):
    assert check_format(PandaLM(), row(*votes)).pairs == (pair,)


@pytest.mark.parametrize("votes", [(0, 0, 0), (0, 1, 0), (1, 2, 0)])
def test_no_majority_is_set_aside(votes):
    with pytest.raises(SetAside, match="no majority"):
        PandaLM()(row(*votes))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"response1": True}, "'response1' is not text"),
        ({"response2": " "}, "empty response"),
        ({"response2": "Owl."}, "both responses are the same"),
        ({"instruction": "", "input": ""}, "empty prompt"),
        ({"annotator2": 3}, "'annotator2' is no vote"),
        ({"annotator2": True}, "'annotator2' is no vote"),
        ({"annotator2": None}, "'annotator2' is no vote"),
    ],
)
def test_what_is_broken_is_told(columns, reason):
    with pytest.raises(Malformed, match=reason):
        PandaLM()(row(1, 1, 1, **columns))


def test_instruction_and_input_make_the_prompt_and_the_rest_is_kept():
    group = PandaLM()(row(1, 1, 1))
    assert group.prompt == [{"role": "user", "content": "Name a bird.\nIn the garden."}]
    assert group.extra == {"idx": 7}


def test_votes_from_a_csv_are_text():
    assert PandaLM()(row("2", "2", "0")).pairs == (Pair(1, 0, 1.0),)
