"""Exports of annotation tools: which votes count, majorities among several responses, and annotations of one task."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.data.formats.annotation_votes import (
    majority_pairs,
    numbered_responses,
    parse_vote,
)
from lit_align.data.formats.argilla import Argilla
from lit_align.data.formats.label_studio import LabelStudio, LabelStudioMin
from lit_align.errors import Malformed, SetAside
from lit_align.types import Pair
from tests.data.formats.more_public_rows import LAYOUTS
from tests.data.formats.public_rows import ASK, BAD, GOOD, read

NAMES = ["response1", "response2", "response3"]
TEXTS = {"prompt": ASK, "response1": GOOD, "response2": BAD, "response3": "The dog."}
NESTED = LAYOUTS["argilla, nested"][1]
MIN = LAYOUTS["label studio JSON_MIN"][1]


def test_a_vote_for_one_of_three_is_better_than_both_others():
    group = Argilla()(TEXTS | {"best.responses": ["response2", "response2", "response1"]})
    assert group.pairs == (Pair(1, 0, 2 / 3), Pair(0, 2), Pair(1, 2))


def test_rankings_of_three():
    ranking = [
        {"value": "response3", "rank": 1},
        {"value": "response1", "rank": 2},
        {"value": "response2", "rank": 2},
    ]
    group = Argilla()(TEXTS | {"order.responses": [ranking]})
    assert group.pairs == (Pair(2, 0), Pair(2, 1))
    assert parse_vote(["response3", "response1"], NAMES) == (2, 3, 1)


@pytest.mark.parametrize("vote", ["response2", "RESPONSE2", "2", [["response2", "response1"]][0]])
def test_ways_to_write_a_vote(vote):
    assert majority_pairs([parse_vote(vote, NAMES[:2])]) == (Pair(1, 0),)


def test_an_unknown_vote_is_malformed():
    row = TEXTS | {"best.responses": ["response1", "response9"]}
    with pytest.raises(Malformed, match="the vote 'response9' names none of response1, response2"):
        Argilla()(row)


def test_answers_that_prefer_no_response_are_no_votes():
    row = TEXTS | {
        "best.responses": ["response1"],
        "why.responses": ["none"],
        "more.responses": [None],
    }
    assert Argilla()(row).pairs == (Pair(0, 1), Pair(0, 2))


def test_two_questions_about_the_responses_are_set_aside():
    row = TEXTS | {"best.responses": ["response1"], "safest.responses": ["response2"]}
    with pytest.raises(SetAside, match="best and safest are all questions"):
        Argilla()(row)


def test_answers_of_a_pending_record_are_set_aside_where_nobody_knows_their_status():
    """argilla 2.8.0 writes this for a discarded answer: Record.to_dict() has no status of answers."""
    row = NESTED | {"status": "pending"}
    with pytest.raises(SetAside, match=r"drafts or discarded.*flatten=True"):
        Argilla()(row)
    answer = {"value": "response1", "user_id": "u", "status": "submitted"}
    assert Argilla()(row | {"responses": {"better": [answer]}}).pairs == (Pair(0, 1),)


def test_several_answers_without_a_status_are_noted():
    twice = [{"value": "response1", "user_id": user} for user in "uv"]
    assert Argilla().note(NESTED) == ""  # a completed record has an answer that was submitted
    assert "may be drafts" in Argilla().note(NESTED | {"responses": {"better": twice}})
    with_status = [answer | {"status": "submitted"} for answer in twice]
    assert Argilla().note(NESTED | {"responses": {"better": with_status}}) == ""


@given(st.lists(st.permutations([1, 2, 3]).map(tuple), min_size=1, max_size=5))
def test_a_majority_is_more_than_half(votes):
    for pair in majority_pairs(votes):
        agree = sum(places[pair.better] < places[pair.worse] for places in votes)
        assert pair.probability == agree / len(votes) > 0.5


def test_annotations_of_one_task_become_one_row(tmp_path):
    rows = [
        MIN,
        MIN | {"annotation_id": 3, "pw": [{"selected": "right"}]},
        MIN | {"annotation_id": 4},
        MIN | {"id": 2, "annotation_id": 5, "pw": [{"selected": "right"}]},
    ]
    (first, second), ledger = read(tmp_path, rows, "pairs")
    assert first.pairs == (Pair(0, 1, 2 / 3),)
    assert second.pairs == (Pair(1, 0),)
    assert (ledger.rows, ledger.joined) == (2, 2)


def test_a_vote_may_be_written_as_text(tmp_path):
    (group,), _ = read(tmp_path, [MIN | {"pw": '[{"selected": "right"}]'}], "pairs")
    assert group.pairs == (Pair(1, 0),)


def test_a_choice_may_be_the_vote():
    row = {name: value for name, value in MIN.items() if name != "pw"}
    assert LabelStudioMin()(row | {"better": "answer2"}).pairs == (Pair(1, 0),)
    with pytest.raises(SetAside, match="better and safer may all be the vote"):
        LabelStudioMin()(row | {"better": "answer2", "safer": "answer1"})
    with pytest.raises(SetAside, match="no vote"):
        LabelStudioMin()(row)
    choice = {"type": "choices", "value": {"choices": ["answer2"]}}
    task = {"data": {name: row[name] for name in ("prompt", "answer1", "answer2")}}
    group = LabelStudio()(task | {"annotations": [{"result": [choice]}]})
    assert group.pairs == (Pair(1, 0),)


@pytest.mark.parametrize("word", ["response", "reply", "answer", "completion", "output", "text"])
def test_which_columns_are_numbered_responses(word):
    numbered = [f"{word}1", f"{word}_2", f"{word.title()} 3", f"{word}-b", f"{word}_S", f"{word}A"]
    others = [f"{word}s", f"{word.upper()}S", f"{word}s_1", f"{word}x", f"{word}_id", word]
    for name in numbered:
        assert numbered_responses({name: GOOD}) == [name]
    for name in others:
        assert not numbered_responses({name: GOOD})


def test_a_plural_beside_a_response_makes_no_comparison():
    row = {"prompt": ASK, "response_a": GOOD, "responses": [GOOD, BAD], "best.responses": ["a"]}
    assert not Argilla().recognises(row)


@pytest.mark.parametrize("question", ["difficulty", "confidence", "quality", "betterment"])
@pytest.mark.parametrize("answer", [2, "2", "b", [2, 1]])
def test_a_number_is_a_vote_only_if_its_question_says_so(question, answer):
    first, second = ("response_a", "response_b") if answer == "b" else NAMES[:2]
    pair = {"prompt": ASK, first: BAD, second: GOOD}
    grade = {f"{question}.responses": [answer]}
    assert not Argilla().recognises(pair | grade)
    group = Argilla()(pair | grade | {"better.responses": [first]})
    assert group.pairs == (Pair(0, 1),)
    assert group.extra == grade


@pytest.mark.parametrize("question", ["better", "bestResponse", "which one", "winner_id"])
def test_a_number_is_a_vote_where_nothing_else_is(question):
    row = TEXTS | {f"{question}.responses": [2], "difficulty.responses": [1]}
    assert Argilla()(row).pairs == (Pair(1, 0), Pair(1, 2))
    assert Argilla()(row | {"safest.responses": ["response3"]}).pairs == (Pair(2, 0), Pair(2, 1))


@pytest.mark.parametrize("side", ["middle", "", 1])
def test_an_unknown_side_is_malformed(side):
    with pytest.raises(Malformed, match="'selected' is none of left, right and tie"):
        LabelStudioMin()(MIN | {"pw": [{"selected": side}]})
    with pytest.raises(SetAside, match="no majority"):
        LabelStudioMin()(MIN | {"pw": [{"selected": "none"}]})
