"""Guidelines and examples come before the first task, and are no votes."""

import re
from urllib.parse import urlencode

import pytest

from lit_align.errors import ConfigError
from lit_align.labelling.introduction import Introduction, make_examples, read_guidelines
from lit_align.labelling.votes import read_votes
from lit_align.types import Group, Pair
from tests.labelling.serving import Visitor, csrf_of, make_groups, serving
from tests.labelling.test_safety import FORM

EXAMPLES = [
    Group("2 + 2?", ["5", "4"], (Pair(1, 0),), extra={"explanation": "It is **four**."}),
    Group("Hello?", ["Hi.", "Hello."], ranking=(1, 1)),
]
GUIDELINES = "# Be fair\n\nLook at [the facts](https://example.org).\n\n* first\n"


def test_guidelines_and_examples_come_first_and_are_no_votes(tmp_path):
    introduction = Introduction(GUIDELINES, make_examples(EXAMPLES, "compare"))
    with serving(tmp_path / "l.db", make_groups(2), introduction=introduction) as (store, port):
        ada = Visitor(port, store.invite("ada"))
        assert ada.ask("GET", "/")[1]["location"] == "/guidelines"
        text = ada.get("/guidelines")
        assert "<h2>Be fair</h2>" in text
        assert '<a href="https://example.org">' in text
        assert "2 examples show" in text
        assert "Go on with the tasks" not in text
        shown, form = ada.shown("/examples/1"), ada.task("/examples/1")
        right = shown.index("4")
        for preference, verdict in (
            (2 * right - 1, "Right"),
            (1 - 2 * right, "Not quite"),
            (0, "Not quite"),
        ):
            body = urlencode({**form, "preference": 3 * preference})
            text = ada.ask("POST", "/examples/1", body, **FORM)[2]
            assert f"<h1>{verdict}</h1>" in text
            assert f"<dd>Answer {right + 1} is better</dd>" in text
            assert "It is <strong>four</strong>." in text
            assert "Next example" in text
        assert ada.ask("GET", "/")[0] == 303  # it is not over yet
        body = urlencode({**ada.task("/examples/2"), "preference": 0})
        text = ada.ask("POST", "/examples/2", body, **FORM)[2]
        assert "<h1>Right</h1>" in text
        assert "Begin" in text
        assert ada.send("/examples/2", **form) == 422  # without an answer
        assert ada.ask("GET", "/examples/3")[0] == 404
        assert ada.send("/guidelines", csrf=csrf_of(text)) == 303
        assert 'href="/guidelines"' in ada.get("/")
        assert "Go on with the tasks" in ada.get("/guidelines")
        assert read_votes(store.path).history == []
        assert store.progress(1)[:2] == (0, 2)
    # what is written anew is read again, by who has read the first text too
    with serving(tmp_path / "l.db", introduction=Introduction("Be kind.")) as (store, port):
        ada = Visitor(port, store.invite("ada"))
        assert ada.ask("GET", "/")[1]["location"] == "/guidelines"
        text = ada.get("/guidelines")
        assert "Begin" in text
        assert "example" not in text.split("<main")[1]
        assert ada.ask("GET", "/examples/1")[0] == 404
    with serving(tmp_path / "l.db") as (store, port):
        ada = Visitor(port, store.invite("ada"))
        assert "Guidelines" not in ada.get("/")
        assert ada.ask("GET", "/guidelines")[0] == 404


def test_an_example_of_each_kind_knows_what_is_right():
    rated = Group("?", ["x"], ratings=({"rating": 6.0},))
    [example] = make_examples([rated], "rate")
    assert [example.is_right({"rating": value, "flags": {}}) for value in (4, 5, 7)] == [
        *(False, True, True)
    ]
    [example] = make_examples([Group("?", ["x"], desirable=(False,))], "thumbs")
    assert [example.is_right({"up": up}) for up in (True, False)] == [False, True]
    ranked = Group("?", ["x", "y", "z"], ranking=(2, 1, 3))
    [example] = make_examples([ranked], "rank")
    texts = {
        text: place for text, place in zip(example.responses, example.answer["places"], strict=True)
    }
    assert texts == {"x": 2, "y": 1, "z": 3}
    assert example.is_right({"places": example.answer["places"]})
    assert not example.is_right({"places": example.answer["places"][::-1]})


def test_examples_stand_in_either_order():
    examples = make_examples([EXAMPLES[0]] * 20, "compare")
    assert {example.responses.index("4") for example in examples} == {0, 1}
    assert all(
        example.answer["preference"] == (1 if example.responses[1] == "4" else -1)
        for example in examples
    )


def test_what_cannot_be_an_introduction_is_refused(tmp_path):
    (tmp_path / "empty.md").write_text(" \n")
    (tmp_path / "latin.md").write_bytes("Grüße".encode("latin-1"))
    for name, sentence in (
        ("none.md", "cannot be read: .*; name a Markdown file in UTF-8"),
        ("latin.md", "cannot be read: .*; name a Markdown file in UTF-8"),
        ("empty.md", "is empty; write into it"),
    ):
        with pytest.raises(ConfigError, match=f"guidelines is .*{re.escape(name)}.*{sentence}"):
            read_guidelines(str(tmp_path / name))
    with pytest.raises(ConfigError, match="examples have no row with an answer to compare"):
        make_examples(make_groups(2), "compare")
