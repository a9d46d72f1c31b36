"""Render groups as text: the prompt, and each response in parts that say what is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lit_align.errors import DataError, Malformed
from lit_align.types import Group, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REMEDY = "set chat_template: chatml, or give a template of your own"


class Part(NamedTuple):
    """A piece of a rendered response.

    Args:
        text: as rendered.
        scored: whether it is trained on: a turn of the assistant.
    """

    text: str
    scored: bool


class ChatRenderer:
    """Applies a tokenizer's chat template.

    The assistant's turns are found by rendering each beginning of the conversation, so the template needs no
    ``generation`` marks.

    Args:
        tokenizer: with the chat template; text without turns needs none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def render(self, group: Group) -> tuple[str, list[list[Part]]]:
        """The prompt's text, and the parts of each response.

        Raises:
            Malformed: if text and messages are mixed, or the template refuses the turns.
            DataError: if there is no chat template, or it is unfit for training.
        """
        prompt = group.prompt
        if any(
            isinstance(response, str) != isinstance(prompt, str) for response in group.responses
        ):
            raise Malformed("one of prompt and responses is text, the other messages")
        if isinstance(prompt, str):
            return prompt, [[Part(str(response), True)] for response in group.responses]
        responses = [response for response in group.responses if isinstance(response, list)]
        prompt_opens_answer = all(map(_starts_with_answer, responses))
        start = self._apply_template(prompt, prompt_opens_answer)
        return start, [
            self._response_parts(prompt, response, start, prompt_opens_answer)
            for response in responses
        ]

    def _response_parts(
        self, prompt: list[Message], response: list[Message], start: str, prompt_opens_answer: bool
    ) -> list[Part]:
        """The turns of one response as the template renders them after the prompt."""
        parts: list[Part] = []
        turns = [*prompt, *response]
        rendered = start
        for i in range(len(prompt), len(turns)):
            is_answer = turns[i]["role"] == "assistant"
            is_open = prompt_opens_answer and i == len(prompt)
            if is_answer and not is_open:
                rendered = _extend(parts, rendered, self._apply_template(turns[:i], True), False)
            rendered = _extend(
                parts, rendered, self._apply_template(turns[: i + 1], False), is_answer
            )
        for turn in turns:
            if turn["content"].strip() not in rendered:
                raise DataError(
                    f"the tokenizer's chat template leaves out or changes a {turn['role']} turn; {REMEDY}"
                )
        return parts

    def _apply_template(self, turns: list[Message], add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise DataError(
                f"the data are conversations and the tokenizer has no chat template; {REMEDY}"
            )
        try:
            rendered = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise Malformed(f"refused by the chat template: {error}") from error
        return str(rendered)


def _starts_with_answer(response: list[Message]) -> bool:
    return bool(response) and response[0]["role"] == "assistant"


def _extend(parts: list[Part], rendered: str, longer: str, scored: bool) -> str:
    """Append what ``longer`` has beyond ``rendered`` to the parts."""
    if not longer.startswith(rendered):
        raise DataError(
            "the tokenizer's chat template renders the beginning of a conversation differently once it goes on, so "
            f"training would see other text than generation does; {REMEDY}"
        )
    if len(longer) > len(rendered):
        parts.append(Part(longer[len(rendered) :], scored))
    return longer
