"""Every documented row of every layout, every way it breaks, and no row that makes a layout crash."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.formats import built_in, recognise
from lit_align.errors import DataError, Malformed, SetAside
from lit_align.types import Group, LabelKind, Pair

FORMATS = {type(layout).__name__: layout for layout in built_in()}
ANSWERED = [layout for layout in built_in() if layout.label_kinds != {LabelKind.PROMPTS}]


def user(content):
    return {"role": "user", "content": content}


def bot(content):
    return {"role": "assistant", "content": content}


ASKED, BLUE, GREEN = user("What colour is the sky?"), bot("It is blue."), bot("It is green.")
SAID, BETTER, WORSE = (
    {"from": "human", "value": "hi"},
    {"from": "gpt", "value": "a"},
    {"from": "gpt", "value": "b"},
)
HUMAN = "\n\nHuman: hi\n\nAssistant:"
SYSTEM = {"role": "system", "content": "Be kind."}

STEPS = {"prompt": "1 + 1 + 1?", "completions": ["1 + 1 = 2", "2 + 1 = 4"], "labels": [True, False]}
# layout, row, prompt, responses; the first eleven are the types of TRL's dataset_formats page that carry a response
SOUND = {
    "rated": (
        "Rated",
        {"prompt": "The sky is", "response": " blue.", "correctness": 4},
        "The sky is",
        [" blue."],
    ),
    "steps": (
        "Stepwise",
        STEPS,
        "1 + 1 + 1?",
        ["1 + 1 = 2\n2 + 1 = 4"],
    ),
    "text": ("Texts", {"text": "The sky is blue."}, "", ["The sky is blue."]),
    "messages": ("Conversations", {"messages": [ASKED, BLUE]}, [ASKED], [[BLUE]]),
    "completion": (
        "Completions",
        {"prompt": "The sky is", "completion": " blue."},
        "The sky is",
        [" blue."],
    ),
    "chat completion": (
        "Completions",
        {"prompt": [ASKED], "completion": [BLUE]},
        [ASKED],
        [[BLUE]],
    ),
    "pair": (
        "Preferences",
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        "The sky is",
        [" blue.", " green."],
    ),
    "implicit": (
        "Preferences",
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        "The sky is",
        [" blue.", " green."],
    ),
    "chat pair": (
        "Preferences",
        {"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN]},
        [ASKED],
        [[BLUE], [GREEN]],
    ),
    "chat implicit": (
        "Preferences",
        {"chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        [ASKED],
        [[BLUE], [GREEN]],
    ),
    "thumb": (
        "Completions",
        {"prompt": "The sky is", "completion": " blue.", "label": True},
        "The sky is",
        [" blue."],
    ),
    "chat thumb": (
        "Completions",
        {"prompt": [ASKED], "completion": [BLUE], "label": False},
        [ASKED],
        [[BLUE]],
    ),
    "messages thumb": (
        "Conversations",
        {"messages": [ASKED, BLUE, ASKED, GREEN], "label": False},
        [ASKED, BLUE, ASKED],
        [[GREEN]],
    ),
    "prompt repeated in the turns": (
        "Preferences",
        {"prompt": ASKED["content"], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        [ASKED],
        [[BLUE], [GREEN]],
    ),
    "prompt text, turns after": (
        "Preferences",
        {"prompt": ASKED["content"], "chosen": [BLUE], "rejected": [GREEN]},
        [ASKED],
        [[BLUE], [GREEN]],
    ),
    "prompt turns repeated": (
        "Preferences",
        {"prompt": [ASKED], "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        [ASKED],
        [[BLUE], [GREEN]],
    ),
    "whole words": (
        "Preferences",
        {"chosen": "It is great", "rejected": "It is green"},
        "It is",
        [" great", " green"],
    ),
    "one goes on": (
        "Preferences",
        {"chosen": "a b c", "rejected": "a b c d"},
        "a b",
        [" c", " c d"],
    ),
    "chat goes on": (
        "Preferences",
        {"chosen": [ASKED, BLUE], "rejected": [ASKED, BLUE, ASKED, GREEN]},
        [ASKED],
        [[BLUE], [BLUE, ASKED, GREEN]],
    ),
    "every turn": (
        "Conversations",
        {"messages": [SYSTEM, ASKED, BLUE, ASKED, GREEN, ASKED]},
        [SYSTEM, ASKED],
        [[BLUE, ASKED, GREEN]],
    ),
    "greeting first": (
        "Conversations",
        {"messages": [BLUE, ASKED, GREEN]},
        [BLUE, ASKED],
        [[GREEN]],
    ),
    "alpaca": (
        "Alpaca",
        {"instruction": "Add.", "input": "1 1", "output": "2"},
        [user("Add.\n1 1")],
        [[bot("2")]],
    ),
    "alpaca without input": (
        "Alpaca",
        {"instruction": "Add.", "output": "2"},
        [user("Add.")],
        [[bot("2")]],
    ),
    "alpaca with all": (
        "Alpaca",
        {
            "instruction": "b",
            "input": None,
            "output": "2",
            "system": "Be kind.",
            "history": [["a", "1"]],
        },
        [SYSTEM, user("a")],
        [[bot("1"), user("b"), bot("2")]],
    ),
    "alpaca pair": (
        "Alpaca",
        {"instruction": "a", "input": "", "chosen": "1", "rejected": "2"},
        [user("a")],
        [[bot("1")], [bot("2")]],
    ),
    "sharegpt": ("ShareGPT", {"conversations": [SAID, BETTER]}, [user("hi")], [[bot("a")]]),
    "sharegpt tools": (
        "ShareGPT",
        {
            "conversations": [
                {"from": "system", "value": "Be kind."},
                SAID,
                {"from": "function_call", "value": "f()"},
                {"from": "observation", "value": "1"},
                BETTER,
            ]
        },
        [SYSTEM, user("hi")],
        [[bot("f()"), {"role": "tool", "content": "1"}, bot("a")]],
    ),
    "sharegpt pair": (
        "ShareGPT",
        {"conversations": [SAID], "chosen": BETTER, "rejected": WORSE, "system": "Be kind."},
        [SYSTEM, user("hi")],
        [[bot("a")], [bot("b")]],
    ),
    "sharegpt thumb": (
        "ShareGPT",
        {"conversations": [SAID, WORSE], "kto_tag": False},
        [user("hi")],
        [[bot("b")]],
    ),
    "hh": (
        "HH",
        {"chosen": f"{HUMAN} a", "rejected": f"{HUMAN} b"},
        [user("hi")],
        [[bot("a")], [bot("b")]],
    ),
    "hh, many turns": (
        "HH",
        {"chosen": f"{HUMAN} a\n\nb{HUMAN} c", "rejected": f"{HUMAN} a\n\nb{HUMAN} d"},
        [user("hi"), bot("a\n\nb"), user("hi")],
        [[bot("c")], [bot("d")]],
    ),
    "groups": ("Groups", {"prompt": "a", "responses": ["b", "c", "d"]}, "a", ["b", "c", "d"]),
}


@pytest.mark.parametrize("case", SOUND)
def test_sound_rows(case):
    name, row, prompt, responses = SOUND[case]
    layout = recognise(row | {"id": 7}, ANSWERED)
    assert type(layout).__name__ == name
    group = layout(row | {"id": 7})
    assert (group.prompt, group.responses) == (prompt, responses)
    assert group.extra == {"id": 7}
    assert group.pairs == ((Pair(0, 1),) if "rejected" in row else ())
    thumb = row.get("label", row.get("kto_tag"))
    assert group.desirable == (() if thumb is None else (thumb,))
    given = {"pairs": group.pairs, "desirable": group.desirable}
    assert {label for label, value in given.items() if value} <= layout.label_kinds


def test_labels_of_groups():
    row = {"prompt": "a", "responses": ["b", "c"], "pairs": [[1, 0], [1, 0, 0.75], [1, 0, 1, 2]]}
    group = FORMATS["Groups"](row | {"desirable": [False, True]})
    assert group.pairs == (Pair(1, 0), Pair(1, 0, 0.75), Pair(1, 0, 1.0, 2.0))
    assert group.desirable == (False, True)


def test_rankings_and_ratings_of_groups():
    row = {
        "prompt": "a",
        "responses": ["b", "c"],
        "ranking": [1, 0],
        "ratings": [{"tone": 3, "wit": None}, {"wit": 1}],
    }
    group = FORMATS["Groups"](row)
    assert group.ranking == (1, 0)
    assert group.ratings == ({"tone": 3.0}, {"wit": 1.0})


def test_margin_is_kept():
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2}
    assert FORMATS["Preferences"](row).pairs == (Pair(0, 1, 1.0, 2.0),)


PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
GROUP = {"prompt": "a", "responses": ["b", "c"]}
BROKEN = {
    "missing field 'chosen'": ("Preferences", {"prompt": "a", "rejected": "c"}),
    "missing field 'rejected'": ("Preferences", PAIR | {"rejected": None}),
    "'chosen' is not text (got bool)": ("Preferences", PAIR | {"chosen": True}),
    "empty response": ("Preferences", PAIR | {"chosen": " \n"}),
    "empty prompt": ("Preferences", PAIR | {"prompt": ""}),
    "chosen equals rejected": ("Preferences", PAIR | {"chosen": "c"}),
    "'margin' is not a number (got str)": ("Preferences", PAIR | {"margin": "much"}),
    "chosen and rejected have no prompt in common": (
        "Preferences",
        {"chosen": "Yes", "rejected": "Yet"},
    ),
    "one of 'chosen' and 'rejected' is text, the other messages": (
        "Preferences",
        {"chosen": "a", "rejected": [BLUE]},
    ),
    "a turn of 'chosen' has no 'role' and 'content'": (
        "Preferences",
        PAIR | {"chosen": [{"role": "user"}]},
    ),
    "'content' in 'chosen' is not text (got NoneType)": (
        "Preferences",
        PAIR | {"chosen": [bot(None)]},
    ),
    "a turn of 'chosen' has the unknown role 'bard'": (
        "Preferences",
        PAIR | {"chosen": [{"role": "bard", "content": "b"}]},
    ),
    "a tool call of 'messages' has no function name": (
        "Conversations",
        {"messages": [ASKED, BLUE | {"tool_calls": [{}]}]},
    ),
    "no assistant turn": ("Conversations", {"messages": [ASKED]}),
    "empty prompt ": ("Conversations", {"messages": [BLUE]}),
    "'messages' is not a list of turns (got str)": ("Conversations", {"messages": "hi"}),
    "'label' is not true or false (got '5')": (
        "Completions",
        {"prompt": "a", "completion": "b", "label": 5},
    ),
    "one of 'prompt' and 'completion' is text, the other messages": (
        "Completions",
        {"prompt": "a", "completion": [BLUE]},
    ),
    "'history' is not pairs of question and answer": (
        "Alpaca",
        {"instruction": "a", "output": "b", "history": 3},
    ),
    "missing field 'output'": ("Alpaca", {"instruction": "a"}),
    "a turn of 'conversations' has no 'from' and 'value'": (
        "ShareGPT",
        {"conversations": [{"from": "human"}]},
    ),
    "'chosen' is not a dialogue of Human and Assistant": (
        "HH",
        {"chosen": "hi", "rejected": HUMAN + " b"},
    ),
    "'rejected' does not end with the Assistant": (
        "HH",
        {"chosen": HUMAN + " b", "rejected": "\n\nHuman: hi"},
    ),
    "empty response ": ("HH", {"chosen": HUMAN + " a", "rejected": HUMAN}),
    "no response": ("Groups", GROUP | {"responses": []}),
    "'responses' is not a list (got str)": ("Groups", GROUP | {"responses": "bc"}),
    "a pair is not [better, worse, probability, margin]": (
        "Groups",
        GROUP | {"pairs": [[0, 1, "sure"]]},
    ),
    "a pair is not of two of the responses": ("Groups", GROUP | {"pairs": [[0, 2]]}),
    "a pair's probability is not above 0 and at most 1": ("Groups", GROUP | {"pairs": [[0, 1, 0]]}),
    "chosen equals rejected ": (
        "Groups",
        {"prompt": "a", "responses": ["b", "b"], "pairs": [[0, 1]]},
    ),
    "'ranking' is not a place, 1 for the best, for each response": (
        "Groups",
        GROUP | {"ranking": [1, 2, 3]},
    ),
    "'ranking' is not a place, 1 for the best, for each response ": (
        "Groups",
        GROUP | {"ranking": [1, -1]},
    ),
    "'ratings' is not one for each response": ("Groups", GROUP | {"ratings": [{"tone": 1}]}),
    "a rating is not numbers by attribute (got int)": ("Groups", GROUP | {"ratings": [3, 4]}),
    "the rating 'tone' is not a number (got str)": (
        "Groups",
        GROUP | {"ratings": [{"tone": "nice"}, {}]},
    ),
    "the rating 'helpfulness' is not from 0 to 4": (
        "Rated",
        {"prompt": "a", "response": "b", "helpfulness": 7},
    ),
    "missing field 'response'": ("Rated", {"prompt": "a", "response": None, "helpfulness": 3}),
    "one of 'prompt' and 'response' is text, the other messages": (
        "Rated",
        {"prompt": "a", "response": [BLUE], "helpfulness": 3},
    ),
    "'completions' and 'labels' are not of one length": ("Stepwise", STEPS | {"labels": [True]}),
    "empty step": ("Stepwise", STEPS | {"completions": ["1 + 1 = 2", " "]}),
    "the label of a step is not from 0 to 1": ("Stepwise", STEPS | {"labels": [1, -1]}),
    "the label of a step is not a number (got str)": ("Stepwise", STEPS | {"labels": ["+", "-"]}),
    "'desirable' is not true or false for each response": ("Groups", GROUP | {"desirable": [True]}),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_broken_rows(reason):
    name, row = BROKEN[reason]
    with pytest.raises(Malformed) as raised:
        FORMATS[name](row)
    assert str(raised.value) == reason.strip()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), inner, max_size=4)
    ),
    max_leaves=8,
)
columns = sorted(
    {name for _, row, *_ in SOUND.values() for name in row}
    | {"tools", "margin", "pairs", "desirable"}
)


@given(
    st.sampled_from(sorted(SOUND)),
    st.dictionaries(st.sampled_from(columns), json_values, max_size=4),
)
@settings(max_examples=600, deadline=None)
def test_no_row_makes_a_layout_crash(case, changes):
    row = SOUND[case][1] | changes
    for layout in FORMATS.values():
        layout.recognises(row)
        with suppress(Malformed, SetAside):
            assert isinstance(layout(row), Group)


def test_unknown_columns_name_the_layouts():
    with pytest.raises(
        DataError,
        match=r"no format matches the columns a, b; rename them to those of one of Alpaca, .*Comp.*HH.*write a pl",
    ):
        recognise({"a": 1, "b": 2}, built_in())


def test_ambiguous_columns_name_the_candidates():
    with pytest.raises(DataError, match="could be Completions or Conversations; set format to one"):
        recognise({"prompt": "a", "completion": "b", "messages": []}, built_in())
