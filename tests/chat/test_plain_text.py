"""Plain prompts on a chat model: what becomes turns, and what stays text."""

import pytest

from lit_align.chat.plain_text import as_chat, dialogue_turns
from lit_align.types import Group


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("\n\nHuman: Hi\n\nAssistant:", [user("Hi")]),
        (
            "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Bye\nnow\n\nAssistant: ",
            [user("Hi"), assistant("Yes?"), user("Bye\nnow")],
        ),
        ("Human: Hi", [user("Hi")]),
        ("\n\nHuman: Hi\n\nAssistant: I am", []),  # the answer has begun
        ("Write a play.\n\nHuman: Hi\n\nAssistant:", []),  # words that belong to no turn
        ("A Human: is a person", []),
        (
            "Hi\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nBye",
            [user("Hi"), assistant("Yes?"), user("Bye")],
        ),
        (
            "<extra_id_0>System\nBe kind.\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n",
            [{"role": "system", "content": "Be kind."}, user("Hi")],
        ),
        ("2 + 2?", []),
    ],
)
def test_turns_that_are_spelled_out(text, turns):
    assert dialogue_turns(text) == turns


def test_a_prompt_without_turns_is_a_turn_of_the_user():
    group = Group("2 + 2?\n", [" 4", ""], extra={"level": 1})
    assert as_chat(group) == group._replace(
        prompt=[user("2 + 2?")], responses=[[assistant("4")], [assistant("")]]
    )


@pytest.mark.parametrize(
    "group",
    [
        Group("", ["a text"]),
        Group("The sky is", [" blue."], continues=True),
        Group([user("2 + 2?")], [[assistant("4")]]),
        Group("2 + 2?", [[assistant("4")]]),
    ],
)
def test_what_is_no_plain_question_stays(group):
    assert as_chat(group) is None
