"""How a turn of the assistant ends: the same for training, sampling, rewards and export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_align.chat.template import ANSWER, ASSISTANT, USER, ChatTemplate
from lit_align.errors import Malformed

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a turn of the assistant: EOS, and what the chat template writes after an answer.

    The latter counts if it is an added token of the tokenizer, whether or not that is marked as special.

    Args:
        tokenizer: with its chat template, if it has one.
    """
    ends = set()
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        ends |= _template_ends(tokenizer)
    return frozenset(ends)


class TurnEnds:
    """Finds where rendered turns of the assistant end.

    Args:
        tokenizer: with its chat template, if it has one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.ids = turn_ends(tokenizer)
        self._special = special_ids(tokenizer)
        self._closing = ClosingTokens(tokenizer)

    def position(self, ids: list[int]) -> int | None:
        """The position after the token that ends a rendered turn; None if no token does.

        Behind it, only white space and tokens follow that the template adds, and that no model generates.

        Args:
            ids: of the turn.
        """
        start = self._closing.start(ids)
        for position in range(start, len(ids)):
            if ids[position] in self.ids:
                return position + 1
        for position in reversed(range(start, len(ids))):
            if ids[position] in self._special:
                return position + 1
        return None


class ClosingTokens:
    """The tokens that may stand behind the words of a turn: added ones, and white space.

    Args:
        tokenizer: of the ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._added = {**tokenizer.added_tokens_decoder}
        self._known: dict[int, bool] = {}

    def start(self, ids: list[int]) -> int:
        """Where they begin at the end of a turn."""
        start = len(ids)
        while start and self._is_closing(ids[start - 1]):
            start -= 1
        return start

    def _is_closing(self, token: int) -> bool:
        is_closing = self._known.get(token)
        if is_closing is None:
            is_closing = token in self._added or not str(self.tokenizer.decode([token])).strip()
            self._known[token] = is_closing
        return is_closing


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """All tokens that are marked as special."""
    special = set(tokenizer.all_special_ids)
    special.discard(None)  # of a special token that is named and not in the vocabulary
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token.special:
            special.add(token_id)
    return special


def _template_ends(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens with which the template ends an answer, and a turn that calls a tool."""
    template = ChatTemplate(tokenizer)
    ends = set()
    try:
        answer = template.render([USER, ASSISTANT])
    except Malformed:
        answer = ""
    closing = answer.rpartition(ANSWER)[2]
    ids = _tokenize(closing.lstrip(), tokenizer)
    if answer and ids and ids[0] in tokenizer.added_tokens_decoder:
        ends.add(ids[0])
    return ends | _call_ends(template)


def _call_ends(template: ChatTemplate) -> set[int]:
    """The last token of a turn that calls a tool, unless it belongs to a call: then there are two for two calls."""
    form = template.call_form
    if not template.shows_calls(form):
        return set()
    call = {"type": "function", "function": {"name": "a", "arguments": {"b": "c"}}}
    ids = []
    for count in (1, 2):
        turn = {"role": "assistant", "content": "", "tool_calls": [call] * count}
        try:
            text = template.render([USER, turn])
        except Malformed:  # some templates know one call only
            text = ""
        ids.append(_tokenize(text, template.tokenizer))
    one_call, two_calls = ids
    start = ClosingTokens(template.tokenizer).start(one_call)
    added = set(one_call[start:]).intersection(special_ids(template.tokenizer))
    last = [token for token in one_call[start:] if token in added][-1:]
    return {token for token in last if two_calls.count(token) <= one_call.count(token)}


def _tokenize(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)
