"""Texts of so many characters that their tokens cannot fit: recognised, and cut, before they are tokenised."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tokenizers.pre_tokenizers import ByteLevel

from lit_align.chat.turns import THOUGHTS_KEYS, split_thoughts
from lit_align.errors import DataError, Overlong
from lit_align.types import Group, Message, Text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WhenOverlong = Literal["drop", "truncate", "error"]
"""What happens to a row that does not fit: it is left out, its responses are cut at the end, or reading stops."""

MIN_LONG = 100_000
"""Characters of the shortest text that is looked at: shorter ones are tokenised at once."""

COMPOSED = 4
"""Characters that Unicode normalisation makes one of, at most."""

CUTTING_KEYS = {*THOUGHTS_KEYS, "content"}
MIN_CHARS_PER_TOKEN = 8  # of the first attempt at a prefix


def refuse_overlong(group: Group, overlong: WhenOverlong, size: str, fills_prompt: bool) -> None:
    """Refuse a row that does not fit, unless its responses are to be cut.

    Args:
        group: the row.
        overlong: what happens to rows that do not fit.
        size: of the row, and the limit that it is over.
        fills_prompt: whether the prompt alone leaves no room.

    Raises:
        Overlong: if the prompt fills the row, or rows are not truncated.
        DataError: if that is an error.
    """
    if overlong == "error":
        raise DataError(
            f"{group.source or 'a row'} has {size}; raise max_length, or set overlong to drop or truncate"
        )
    if fills_prompt:
        raise Overlong("prompt fills max_length")
    if overlong == "drop":
        raise Overlong("longer than max_length")


class TokenSize(NamedTuple):
    """How much text one token can stand for.

    Args:
        characters: of a text, at most.
        piece: characters of the longest token.
        lost: characters that become no token.
        stripping: added tokens that take any white space next to them.
    """

    characters: int
    piece: int
    lost: str
    stripping: tuple[str, ...]


class LongTexts:
    """Finds the texts of a group that have more tokens than fit, and shortens them.

    Args:
        backend: the compiled tokenizer; without one, no text is known to be too long.
        tokenize: ids of a text.
        max_length: tokens that fit.
    """

    def __init__(
        self, backend: Tokenizer | None, tokenize: Callable[[str], list[int]], max_length: int
    ) -> None:
        self.backend = backend
        self.tokenize = tokenize
        self.max_length = max_length

    def is_long(self, text: str) -> bool:
        """Whether a text, its ends stripped, certainly has more than ``max_length`` tokens."""
        if len(text) < max(MIN_LONG, self.max_length) or self._token_size is None:
            return False
        size = self._token_size
        length = len(text.strip()) - sum(map(text.count, size.lost))
        is_longer = length > self.max_length * size.characters
        return is_longer and not any(token in text for token in size.stripping)

    def in_prompt(self, group: Group) -> bool:
        """Whether a prompt certainly has more than ``max_length`` tokens."""
        return any(self.is_long(text) for text in _shown(group.prompt))

    def in_response(self, response: Text) -> bool:
        """Whether a response certainly has more than ``max_length`` tokens."""
        return any(self.is_long(text) for text in _shown(response))

    def shorten(self, group: Group) -> Group:
        """The group with each long text of a response cut, where that does not change its first tokens."""
        responses = [self._shorten_response(response) for response in group.responses]
        return group._replace(responses=responses)

    def limit(self, group: Group, overlong: WhenOverlong) -> Group:
        """The group with long texts of its responses cut, which takes less time than to tokenise them.

        Args:
            group: to cut.
            overlong: what happens to rows that do not fit.

        Raises:
            Overlong: if a text cannot fit, and rows are not truncated.
            DataError: if that is an error.
        """
        fills_prompt = self.in_prompt(group)
        if not fills_prompt and not any(map(self.in_response, group.responses)):
            return group
        size = f"a text of more than {self.max_length} tokens, over max_length"
        refuse_overlong(group, overlong, size, fills_prompt)
        return self.shorten(group)

    def _shorten_response(self, response: Text) -> Text:
        if isinstance(response, str):
            return self._prefix(response)
        turns: list[Message] = []
        for turn in response:
            if turn["role"] != "assistant" or split_thoughts(turn)[1] != turn["content"]:
                turns.append(turn)  # its thoughts stand in the content
                continue
            shorter = {}
            for key in CUTTING_KEYS.intersection(turn):
                if isinstance(turn[key], str):
                    shorter[key] = self._prefix(turn[key])
            turns.append({**turn, **shorter})
        return turns

    def _prefix(self, text: str) -> str:
        """A beginning of a long text whose first ``max_length`` tokens are those of the text; other texts as they are.

        A token of the text ends at one of the last places of the prefix, as many as the longest token has characters,
        and the tokens before it are those of the text up to there. So if the text up to each of these places begins
        with the same tokens, the whole text does too. That is as many prefixes to tokenise; a text shorter than all of
        them together stays as it is.
        """
        if self._token_size is None or not self.is_long(text):
            return text
        margin = self._token_size.piece
        if len(text) <= margin * (MIN_CHARS_PER_TOKEN * self.max_length + margin):
            return text
        start = len(text) - len(text.lstrip())
        length = start + MIN_CHARS_PER_TOKEN * self.max_length + margin
        while length < len(text) and len(self.tokenize(text[:length])) < self.max_length + margin:
            length *= 2
        prefix = text[:length]
        expected = self.tokenize(prefix)[: self.max_length]
        for place in range(len(prefix) - margin, len(prefix)):
            if self.tokenize(prefix[:place])[: self.max_length] != expected:
                return text
        return prefix

    @cached_property
    def _token_size(self) -> TokenSize | None:
        return None if self.backend is None else token_size(self.backend)


def _shown(text: Text) -> Iterator[str]:
    """The texts that every chat template shows as they are; results of tools may be formatted anew."""
    if isinstance(text, str):
        yield text
        return
    for turn in text:
        if turn["role"] == "assistant":
            yield split_thoughts(turn)[1]
        elif turn["role"] != "tool":
            yield turn["content"]


def response_texts(responses: Sequence[Text]) -> Iterator[str]:
    """The texts that may be cut."""
    for response in responses:
        if isinstance(response, str):
            yield response
            continue
        for turn in response:
            for key in CUTTING_KEYS.intersection(turn):
                if isinstance(turn[key], str):
                    yield turn[key]


def token_size(backend: Tokenizer) -> TokenSize | None:
    """How much text a token of this tokenizer can stand for; None if there is no limit, or none is known.

    There is none where a token stands for any unknown word, or where text is left out.
    """
    settings = json.loads(backend.to_str())
    model, added = settings["model"], settings["added_tokens"]
    words = model["vocab"] if isinstance(model["vocab"], dict) else [w for w, _ in model["vocab"]]
    steps = [*_steps(settings["normalizer"]), *_steps(settings["pre_tokenizer"])]
    lost = _lost_characters(model, set(words), steps)
    if lost is None or not all(map(_keeps_text, steps)):
        return None
    composes = any(step["type"] in ("NFC", "NFKC") for step in steps)
    contents = [token["content"] for token in added]
    piece = max(map(len, [*words, *contents]))
    stripping = [token["content"] for token in added if token["lstrip"] or token["rstrip"]]
    return TokenSize(piece * (COMPOSED if composes else 1), piece, lost, tuple(stripping))


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The steps of a normaliser or a pre-tokeniser, which may be a sequence."""
    if step is None:
        return
    if step["type"] == "Sequence":
        for inner in step.get("normalizers") or step.get("pretokenizers") or ():
            yield from _steps(inner)
    else:
        yield step


def _lost_characters(
    model: Mapping[str, Any], words: set[str], steps: Sequence[Mapping[str, Any]]
) -> str | None:
    """The ASCII characters that a model has no token for; None if other characters or words may be without one."""
    if model.get("byte_fallback"):
        return "" if all(f"<0x{number:02X}>" in words for number in range(256)) else None
    is_byte_level = any(step["type"] == "ByteLevel" for step in steps)
    if model["type"] != "BPE" or not is_byte_level:
        return None
    # every character beyond ASCII ends with one of these bytes
    if not all(_byte_letter(number) in words for number in range(0x80, 0xC0)):
        return None
    return "".join(chr(number) for number in range(0x80) if _byte_letter(number) not in words)


def _byte_letter(number: int) -> str:
    """The letter that stands for a byte in the vocabulary of a byte-level model."""
    letters = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(chr(number))
    return str(letters[0][0][-1])


def _keeps_text(step: Mapping[str, Any]) -> bool:
    """Whether a step leaves no text out, and makes it no shorter but by composing characters."""
    match step["type"]:
        case "Split" | "Punctuation":
            return bool(step["behavior"] != "Removed")
        case "Replace":
            pattern = step["pattern"].get("String")
            return pattern is not None and len(step["content"]) >= len(pattern)
        case kind:
            return kind in (
                "ByteLevel", "Digits", "Lowercase", "Metaspace", "NFC", "NFD", "NFKC", "NFKD", "Prepend"
            )  # fmt: skip
