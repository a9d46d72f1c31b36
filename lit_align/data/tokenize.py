"""Conversations as token ids, and which of them are learned from: every assistant turn of a response and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lit_align.errors import DataError, Malformed, ModelError, Overlong
from lit_align.types import Group, Message, Tree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIX = "set chat_template: chatml, or give a template of your own"

Part = tuple[str, bool]
"""A stretch of rendered text, and whether it is learned from."""


class Encoded(NamedTuple):
    """A group as token ids, and what that cost.

    Args:
        tree: the ids.
        cut: tokens that did not fit.
        ends_lost: responses whose end was among them, so that stopping is not learned from them.
        boundary_merges: responses of which a token would have spanned a boundary, say between prompt and response,
            had they been tokenised in one go.
    """

    tree: Tree
    cut: int = 0
    ends_lost: int = 0
    boundary_merges: int = 0


class ChatTokenizer:
    """Turns groups into trees of token ids.

    Text is the prompt, then the response and the end-of-sequence token. Messages are rendered by the tokenizer's chat
    template; the assistant's turns are found by rendering each beginning of the conversation, so the template needs no
    marks of its own, and each is learned from with the token that ends it. What is learned from never depends on the
    padding token: a tokenizer that pads with its end-of-sequence token is no danger.

    Args:
        tokenizer: of the model that is trained.
        max_length: tokens that a prompt and one response may have together.
        overlong: what becomes of those that have more: ``"drop"`` loses the row, ``"truncate"`` the end of the
            response, ``"error"`` stops. A prompt is never cut: one that fills all of it loses the row.
        silent: whether a response may say nothing, as a model's own may; it is then its end.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        overlong: Literal["drop", "truncate", "error"] = "drop",
        silent: bool = False,
    ) -> None:
        self.tokenizer, self.max_length, self.overlong, self.silent = (
            tokenizer,
            max_length,
            overlong,
            silent,
        )
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token, so stopping cannot be learned; set eos_token"
            )
        self._end: int = tokenizer.eos_token_id
        self._begin: int | None = tokenizer.bos_token_id
        added = tokenizer.added_tokens_decoder.items()
        self._special = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
        self._adds_begin = self._begin is not None and tokenizer("a").input_ids[0] == self._begin

    def encode(self, group: Group) -> Encoded:
        """The group as a tree.

        Raises:
            Malformed: if a response has nothing to learn from, or text cannot be rendered.
            Overlong: if the row does not fit and is not to be cut.
            DataError: if the chat template is missing or unfit, or if the row does not fit and that is an error.
        """
        plain = isinstance(group.prompt, str)
        start, responses = self._render(group)
        asked = self._ids(start)
        prompt = self._prompt(asked, plain)
        branches = [self._branch(start, asked, parts, plain) for parts in responses]
        if not all(any(scored) for _, scored, _ in branches):
            raise Malformed("empty response")
        whole = [ids for ids, _, _ in branches]
        room = self._room(group, prompt, whole)
        tree = Tree(
            prompt,
            [ids[:room] for ids in whole],
            [scored[:room] for _, scored, _ in branches],
            group,
        )
        cut = sum(map(len, whole)) - sum(map(len, tree.responses))
        if cut:
            if not all(map(any, tree.scored)):
                raise Overlong("nothing to learn from within max_length")
            if any(
                tree.responses[pair.better] == tree.responses[pair.worse] for pair in group.pairs
            ):
                raise Overlong("responses do not differ within max_length")
        ends_lost = sum(len(ids) > room for ids in whole)
        return Encoded(tree, cut, ends_lost, sum(merged for _, _, merged in branches))

    def _room(self, group: Group, prompt: list[int], responses: list[list[int]]) -> int:
        """Tokens that each response may have."""
        room = self.max_length - len(prompt)
        longest = max(map(len, responses), default=1)  # a prompt alone is to leave room for one
        if longest <= room:
            return room
        if self.overlong == "error":
            raise DataError(
                f"{group.source or 'a row'} has {len(prompt)} + {longest} tokens, over max_length {self.max_length}; "
                "raise max_length, or set overlong to drop or truncate"
            )
        if room < 1:
            raise Overlong("prompt fills max_length")
        if self.overlong == "drop":
            raise Overlong("longer than max_length")
        return room

    def _render(self, group: Group) -> tuple[str, list[list[Part]]]:
        """The prompt's text, and the parts of each response."""
        prompt = group.prompt
        if any(
            isinstance(response, str) != isinstance(prompt, str) for response in group.responses
        ):
            raise Malformed("one of prompt and responses is text, the other messages")
        if isinstance(prompt, str):
            return prompt, [[(str(response), True)] for response in group.responses]
        branches = [response for response in group.responses if isinstance(response, list)]
        asks = all(response[:1] and response[0]["role"] == "assistant" for response in branches)
        start = self._template(prompt, asks)
        return start, [self._parts(prompt, response, start, asks) for response in branches]

    def _parts(
        self, prompt: list[Message], response: list[Message], start: str, asks: bool
    ) -> list[Part]:
        """Turns of one response as the chat template renders them after the prompt."""
        parts: list[Part] = []
        turns, done = [*prompt, *response], start
        for at in range(len(prompt), len(turns)):
            is_answer = turns[at]["role"] == "assistant"
            if is_answer and not (asks and at == len(prompt)):
                done = self._extend(parts, done, self._template(turns[:at], True), False)
            done = self._extend(parts, done, self._template(turns[: at + 1], False), is_answer)
        for turn in turns:
            if turn["content"].strip() not in done:
                raise DataError(
                    f"the tokenizer's chat template leaves out or changes a {turn['role']} turn; {FIX}"
                )
        return parts

    def _extend(self, parts: list[Part], done: str, more: str, learned: bool) -> str:
        """Append what ``more`` has beyond ``done``."""
        if not more.startswith(done):
            raise DataError(
                "the tokenizer's chat template renders a conversation differently once it goes on, so what was learned "
                f"would not be what is asked for later; {FIX}"
            )
        if len(more) > len(done):
            parts.append((more[len(done) :], learned))
        return more

    def _template(self, turns: list[Message], asks: bool) -> str:
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            raise DataError(
                f"the data are conversations and the tokenizer has no chat template; {FIX}"
            )
        try:
            rendered: Any = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=asks
            )
        except TemplateError as error:
            raise Malformed(f"refused by the chat template: {error}") from error
        return str(rendered)

    def _prompt(self, ids: list[int], plain: bool) -> list[int]:
        """The prompt with one begin-of-sequence token where the model is used to it, never two."""
        if self._begin is None:
            return ids or [self._end]
        if ids[:2] == [self._begin] * 2:
            return ids[1:]
        if plain and self._adds_begin and ids[:1] != [self._begin]:
            return [self._begin, *ids]
        return ids or [self._begin]

    def _branch(
        self, start: str, asked: list[int], parts: list[Part], plain: bool
    ) -> tuple[list[int], list[bool], bool]:
        """Ids of a response, which of them are learned from, and whether a token would have spanned a boundary."""
        pieces = self._pieces(start, asked, parts)
        merged = pieces is None
        if pieces is None:
            pieces = [self._ids(text) for text, _ in parts]
        ids: list[int] = []
        scored: list[bool] = []
        for piece, (_, learned) in zip(pieces, parts, strict=True):
            ids += piece
            end = self._turn_end(piece)
            # what a template puts after the token that ends a turn, such as a line break, comes from no model
            scored += [learned and (plain or end is None or i < end) for i in range(len(piece))]
        ended = ids[-1:] == [self._end] if plain else self._turn_end(pieces[-1]) is not None
        if (any(scored) or self.silent) and parts[-1][1] and not ended:
            ids.append(self._end)
            scored.append(True)
        return ids, scored, merged

    def _turn_end(self, ids: list[int]) -> int | None:
        """Where a turn is over: after its last special token, if only blanks follow; None if none ends it."""
        end = max((i + 1 for i, token in enumerate(ids) if token in self._special), default=0)
        blank = not str(self.tokenizer.decode(ids[end:])).strip()
        return end if end and blank else None

    def _pieces(self, text: str, done: list[int], parts: list[Part]) -> list[list[int]] | None:
        """Ids of all parts, tokenised in one go with the prompt's ``text``, or None if a token spans a boundary."""
        pieces = []
        for more, _ in parts:
            text += more
            ids = self._ids(text)
            if ids[: len(done)] != done:
                return None
            pieces.append(ids[len(done) :])
            done = ids
        return pieces

    def _ids(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Malformed("text with half of a surrogate pair") from error
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)
