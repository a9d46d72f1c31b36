"""A chat template as fixed text around the content of each turn, for engines that run no Jinja."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lit_align.chat.template import ANSWER, ASSISTANT, QUESTION, USER, ChatTemplate
from lit_align.errors import Malformed, ModelError
from lit_align.types import Message

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

SYSTEM, SECOND = "probesystem", "probesecond"


class TurnPieces(NamedTuple):
    """Text around the contents of turns.

    Args:
        start: before everything.
        default_system: what a conversation without a system turn begins with.
        around: before and after the content of a turn, by role; no system where the template has none.
        generation: before an answer.
    """

    start: str
    default_system: str
    around: dict[str, tuple[str, str]]
    generation: str

    def render(self, turns: Sequence[Message]) -> str:
        """The conversation and what comes before an answer.

        Example:
            >>> pieces = TurnPieces("<s>", "", {"user": ("U: ", "; ")}, "A: ")
            >>> pieces.render([{"role": "user", "content": "Hi"}])
            '<s>U: Hi; A: '
        """
        has_system = any(turn["role"] == "system" for turn in turns)
        text = self.start + ("" if has_system else self.default_system)
        for turn in turns:
            before, after = self.around[turn["role"]]
            text += f"{before}{turn['content']}{after}"
        return text + self.generation


def turn_pieces(tokenizer: PreTrainedTokenizerBase) -> TurnPieces:
    """The pieces of a tokenizer's chat template, which it renders conversations of.

    Args:
        tokenizer: with the chat template.

    Raises:
        ModelError: if the template does more than to put fixed text around contents.
    """
    template = ChatTemplate(tokenizer)
    second: Message = {"role": "user", "content": SECOND}
    try:
        one = template.render([USER])
        two = template.render([USER, ASSISTANT])
        three = template.render([USER, ASSISTANT, second])
        prompt = template.render([USER], add_generation_prompt=True)
    except Malformed as error:
        raise _untranslatable(str(error)) from error
    if not (two.startswith(one) and three.startswith(two) and prompt.startswith(one)):
        raise _untranslatable("a turn is rendered differently once the conversation goes on")
    assistant = _split(two.removeprefix(one), ANSWER)
    user = _split(three.removeprefix(two), SECOND)
    opening = one.removesuffix(f"{user[0]}{QUESTION}{user[1]}")
    if opening == one:
        raise _untranslatable("the first turn is rendered differently from later ones")
    around = {"user": user, "assistant": assistant}
    start, default_system = opening, ""
    system = _system_block(template, user)
    if system is not None:
        before, after = _split(system, SYSTEM)
        bos = str(tokenizer.bos_token or "")
        start = bos if bos and before.startswith(bos) and opening.startswith(bos) else ""
        around["system"] = before.removeprefix(start), after
        default_system = opening.removeprefix(start)
    pieces = TurnPieces(start, default_system, around, prompt.removeprefix(one))
    _check(template, pieces)
    return pieces


def _system_block(template: ChatTemplate, user: tuple[str, str]) -> str | None:
    """What a system turn adds before the first turn; None if the template refuses one."""
    try:
        text = template.render([{"role": "system", "content": SYSTEM}, USER])
    except Malformed:
        return None
    block = text.removesuffix(f"{user[0]}{QUESTION}{user[1]}")
    if block == text:
        raise _untranslatable("a system turn changes the turn of the user")
    return block


def _split(text: str, content: str) -> tuple[str, str]:
    before, separator, after = text.partition(content)
    if not separator or content in after:
        raise _untranslatable("the content of a turn is not written once")
    return before, after


def _check(template: ChatTemplate, pieces: TurnPieces) -> None:
    """Compare pieces and template on conversations that the pieces were not read from."""
    long_turns: list[Message] = [
        {"role": "user", "content": "First line\nand a second"},
        {"role": "assistant", "content": "Yes: 1 < 2."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because."},
        USER,
    ]
    conversations = [[USER], long_turns]
    if "system" in pieces.around:
        conversations.append([{"role": "system", "content": "Be brief."}, *long_turns])
    for turns in conversations:
        try:
            expected = template.render(turns, add_generation_prompt=True)
        except Malformed as error:
            raise _untranslatable(str(error)) from error
        if pieces.render(turns) != expected:
            raise _untranslatable("it does more than to put fixed text around each turn")


def _untranslatable(reason: str) -> ModelError:
    return ModelError(f"the chat template cannot be written without Jinja: {reason}")
