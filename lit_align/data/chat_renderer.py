"""Render groups as text: the prompt, and each response in parts that say what is trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lit_align.chat.template import (
    ANSWER,
    ASSISTANT,
    REMEDY,
    THOUGHTS,
    USER,
    ChatTemplate,
    arguments_from_json,
)
from lit_align.chat.turns import LEARNED_KEYS, THOUGHTS_KEYS, is_learned, split_thoughts
from lit_align.errors import Malformed, SetAside
from lit_align.jsonl import parse_json
from lit_align.types import Group, Message

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

CLOSING_TAG = re.compile(r"\s*</\w+>\s*")
OPENED_TAG = re.compile(r"<(\w+)>\s*$")
EMPTY_ELEMENT = re.compile(r"\s*<(\w+)>\s*</\1>\s*")

LearnedTurns = Literal["all", "last"]
"""Which assistant turns of a response are learned."""


class Part(NamedTuple):
    """A piece of a rendered response.

    Args:
        text: as rendered.
        scored: whether it is trained on: a turn of the assistant.
    """

    text: str
    scored: bool


class Run(NamedTuple):
    """Turns of a response that continue one prompt.

    Args:
        prompt: the text before them.
        parts: of the turns, in order.
    """

    prompt: str
    parts: list[Part]


class Rendered(NamedTuple):
    """A rendered group.

    Args:
        prompt: that the first run of each response continues.
        responses: the runs of each response: one, unless the template writes earlier turns otherwise than the newest.
        unread: names of what the row holds and nothing read, such as ``turn.timestamp``.
    """

    prompt: str
    responses: list[list[Run]]
    unread: tuple[str, ...] = ()

    def map_texts(self, change: Callable[[str], str]) -> Rendered:
        """The same with every text changed."""
        responses = []
        for runs in self.responses:
            changed = []
            for run in runs:
                parts = [part._replace(text=change(part.text)) for part in run.parts]
                changed.append(Run(change(run.prompt), parts))
            responses.append(changed)
        return Rendered(change(self.prompt), responses, self.unread)


class ChatRenderer:
    """Applies a tokenizer's chat template.

    Each assistant turn is learned as the newest turn of its conversation, under the prompt that it is sampled from: the
    turns before it with the generation prompt. The template needs no ``generation`` marks.

    Args:
        tokenizer: with the chat template; text without turns needs none.
        learned_turns: whether all assistant turns of a response are learned or only the last.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, learned_turns: LearnedTurns = "all"
    ) -> None:
        self.template = ChatTemplate(tokenizer)
        self.learned_turns = learned_turns
        self._empty_thoughts: dict[str, str] = {}

    def render(self, group: Group) -> Rendered:
        """The prompt's text, and the parts of each response.

        Raises:
            Malformed: if text and messages are mixed, or the template refuses the turns.
            SetAside: if the template does not show all that is learned.
            DataError: if there is no chat template.
        """
        prompt = group.prompt
        if any(
            isinstance(response, str) != isinstance(prompt, str) for response in group.responses
        ):
            raise Malformed("one of prompt and responses is text, the other messages")
        if isinstance(prompt, str):
            texts = [[Part(str(response), True)] for response in group.responses]
            return Rendered(prompt, [[Run(prompt, parts)] for parts in texts])
        responses = [response for response in group.responses if isinstance(response, list)]
        opens_answer = all(map(_starts_with_answer, responses))
        start = self._apply(group, prompt, opens_answer)
        if group.tools and start == self._apply(group._replace(tools=()), prompt, opens_answer):
            raise SetAside(f"the chat template does not show the tools of the row; {REMEDY}")
        if not responses:
            self._check_context(prompt, start)
        runs = []
        turns = list(prompt)
        for response in responses:
            conversation = _Conversation(self, group, prompt, response)
            runs.append(conversation.runs(start, opens_answer))
            turns += response
        return Rendered(start, runs, self._unread(group, turns))

    def learned(self, prompt: Sequence[Message], response: Sequence[Message]) -> list[int]:
        """Places in the conversation of the turns that are learned.

        Raises:
            Malformed: if the response has no assistant turn.
            SetAside: if all of them are only read.
        """
        places = []
        for place, turn in enumerate(response, len(prompt)):
            if is_learned(turn):
                places.append(place)
        if places:
            return places if self.learned_turns == "all" else places[-1:]
        if any(turn["role"] == "assistant" for turn in response):
            raise SetAside("every assistant turn is only read (weight 0)")
        raise Malformed("empty response")

    @cached_property
    def header(self) -> str:
        """What the generation prompt usually is."""
        opened = self.template.render([USER], add_generation_prompt=True)
        return opened.removeprefix(self.template.render([USER])) or "\0"

    def empty_thoughts(self, group: Group, turns: Sequence[Message], prompt: str) -> str:
        """What the template writes between ``prompt`` and an answer without thoughts, if that is an empty thought.

        No assistant has written it.
        """
        settings = [turns[-1]["role"], bool(group.tools), group.template_kwargs]
        key = json.dumps(settings, default=str)
        if key not in self._empty_thoughts:
            thinks = {**ASSISTANT, THOUGHTS_KEYS[0]: THOUGHTS}
            with_thoughts = self._apply(group, [*turns, thinks])
            without = self._apply(group, [*turns, ASSISTANT]).partition(ANSWER)[0]
            frame = with_thoughts.replace(THOUGHTS, "").partition(ANSWER)[0]
            is_empty = THOUGHTS in with_thoughts and frame.split() == without.split()
            is_beyond = is_empty and without.startswith(prompt)
            self._empty_thoughts[key] = without[len(prompt) :] if is_beyond else ""
        return self._empty_thoughts[key]

    def _apply(
        self, group: Group, turns: Sequence[Message], add_generation_prompt: bool = False
    ) -> str:
        return self.template.render(
            turns,
            add_generation_prompt=add_generation_prompt,
            tools=group.tools,
            template_kwargs=group.template_kwargs,
        )

    def _check_context(self, turns: Sequence[Message], rendered: str) -> None:
        """Refuse a prompt that lacks the words of a turn; thoughts of earlier turns may be left out by design."""
        for turn in turns:
            _, answer = split_thoughts(turn)
            calls = turn.get("tool_calls") or []
            words = _call_words(calls) if calls else _content_words(turn, answer)
            _check_words(turn, "content" if not calls else "tool calls", words, rendered)

    def _unread(self, group: Group, turns: Sequence[Message]) -> tuple[str, ...]:
        """Names of keys and arguments that hold a value and that nothing reads."""
        names = []
        for name in group.template_kwargs:
            if not self.template.reads_variable(name):
                names.append(f"chat_template_kwargs.{name}")
        for turn in turns:
            for key, value in turn.items():
                if not self._reads(turn, key, value):
                    names.append(f"turn.{key}")
        return tuple(dict.fromkeys(names))

    def _reads(self, turn: Message, key: str, value: Any) -> bool:
        is_assistant = turn["role"] == "assistant"
        if key in ("role", "content") or value is None:
            return True
        if key in LEARNED_KEYS:
            return is_assistant or not value
        if key in THOUGHTS_KEYS:
            writes_thoughts = self.template.thoughts_key or self.template.has_inline_thoughts
            return is_assistant and writes_thoughts is not None
        return self.template.reads_key(key)


class _Conversation:
    """One response after its prompt, rendered turn by turn.

    Args:
        renderer: whose template is applied.
        group: for tools and arguments of the template.
        prompt: turns before the response.
        response: its turns.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        group: Group,
        prompt: Sequence[Message],
        response: Sequence[Message],
    ) -> None:
        self.renderer = renderer
        self.group = group
        self.turns = [*prompt, *response]
        self.learned = renderer.learned(prompt, response)
        self.num_prompt = len(prompt)

    def runs(self, start: str, opens_answer: bool) -> list[Run]:
        """The runs of the response; the first one continues ``start``.

        Args:
            start: the rendered prompt.
            opens_answer: whether it ends with the generation prompt.
        """
        runs = [Run(start, [])]
        rendered = prompt = start
        for place in self.learned:
            if place > self.num_prompt or not opens_answer:
                prompt = self._apply(self.turns[:place], add_generation_prompt=True)
            if not prompt.startswith(rendered):
                runs.append(Run(prompt, []))
            elif len(prompt) > len(rendered):
                runs[-1].parts.append(Part(prompt[len(rendered) :], False))
            answer = self._answer(place, prompt)
            runs[-1].parts.extend(answer)
            rendered = prompt + "".join(part.text for part in answer)
        self.renderer._check_context(self.turns[: self.learned[-1]], prompt)
        if self.learned[-1] + 1 < len(self.turns):
            whole = self._apply(self.turns)
            if whole.startswith(rendered):
                runs[-1].parts.append(Part(whole[len(rendered) :], False))
        return runs

    def _answer(self, place: int, prompt: str) -> list[Part]:
        """The turn at ``place`` after its prompt, as the newest of the conversation."""
        turn = self.turns[place]
        whole = self._apply(self.turns[: place + 1])
        thoughts, answer = split_thoughts(turn)
        if whole.startswith(prompt):
            text = whole[len(prompt) :]
            if text.startswith(self.renderer.header):
                raise SetAside(
                    "the chat template opens this assistant turn anew, which its generation prompt does not"
                )
            unscored = "" if thoughts else self._empty_thoughts(place, prompt, text)
        else:
            text, unscored = self._close_thoughts(place, prompt, whole, thoughts)
        _check_words(turn, "thoughts", [thoughts], text)
        _check_words(turn, "content", [answer], text)
        _check_words(turn, "tool calls", _call_words(turn.get("tool_calls") or []), text)
        parts = [Part(text[: len(unscored)], False), Part(text[len(unscored) :], True)]
        return [part for part in parts if part.text]

    def _empty_thoughts(self, place: int, prompt: str, text: str) -> str:
        """The beginning of ``text`` that is an empty thought, which the template has written and no assistant."""
        empty = self.renderer.empty_thoughts(self.group, self.turns[:place], prompt)
        for beginning in (empty, empty.rstrip()):
            if beginning and text.startswith(beginning):
                return beginning
        match = EMPTY_ELEMENT.match(text)
        written = match and match[0].strip() not in self.turns[place]["content"]
        return match[0] if match and written else ""

    def _close_thoughts(
        self, place: int, prompt: str, whole: str, thoughts: str
    ) -> tuple[str, str]:
        """The turn after a prompt that opens the thoughts, where the template writes the turn in another way.

        A turn without thoughts closes them at once. Where the template takes thoughts out of every turn that it is
        given, they are put back as they are sampled.

        Returns:
            The text after the prompt, and the part of it that no assistant has written.
        """
        if not thoughts:
            thinks = {**self.turns[place], THOUGHTS_KEYS[0]: THOUGHTS}
            with_thoughts = self._apply([*self.turns[:place], thinks])
            text = with_thoughts.removeprefix(prompt).replace(THOUGHTS, "", 1)
            closed = CLOSING_TAG.match(text)
            if closed and with_thoughts.startswith(prompt):
                return text, closed[0]
        opened = OPENED_TAG.search(prompt)
        header = prompt[: opened.start()] if opened else prompt
        if opened is None or not whole.startswith(header):
            raise SetAside(
                "the chat template does not continue its generation prompt with this assistant turn; set "
                f"template_kwargs (such as enable_thinking) to the mode of the data, or {REMEDY}"
            )
        closing = f"\n</{opened[1]}>\n\n"
        if closing.strip() not in self.renderer.template.source:
            raise SetAside("the chat template opens thoughts that it does not close")
        answer = whole[len(header) :]
        return thoughts + closing + answer, "" if thoughts else closing

    def _apply(self, turns: Sequence[Message], add_generation_prompt: bool = False) -> str:
        return self.renderer._apply(self.group, turns, add_generation_prompt)


def _starts_with_answer(response: list[Message]) -> bool:
    return bool(response) and response[0]["role"] == "assistant"


def _check_words(turn: Message, name: str, words: Sequence[str], rendered: str) -> None:
    for word in words:
        if not _appears(word.strip(), rendered):
            article = "an" if turn["role"] == "assistant" else "a"
            raise SetAside(
                f"the chat template leaves out or changes the {name} of {article} {turn['role']} turn; {REMEDY}"
            )


def _appears(words: str, rendered: str) -> bool:
    """Whether the words are in the text, possibly as a JSON string."""
    if words in rendered:
        return True
    escaped = (json.dumps(words, ensure_ascii=is_ascii)[1:-1] for is_ascii in (False, True))
    return any(form in rendered for form in escaped)


def _content_words(turn: Message, answer: str) -> list[str]:
    """The words of a turn that is read; a tool's result in JSON may be formatted anew."""
    if turn["role"] != "tool":
        return [answer if turn["role"] == "assistant" else turn["content"]]
    try:
        return list(_leaves(parse_json(turn["content"])))
    except ValueError:
        return [turn["content"]]


def _call_words(calls: Sequence[dict[str, Any]]) -> list[str]:
    """The names, and the names and texts of arguments, of tool calls."""
    words = []
    for call in calls:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            arguments = arguments_from_json(arguments)
        words += [call["function"]["name"], *_leaves(arguments)]
    return words


def _leaves(value: Any) -> Iterator[str]:
    """All keys and texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
