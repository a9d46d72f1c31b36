"""Token ids of text without special treatment, fast where texts share what stands between special tokens."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from lit_align.chat.control_tokens import words_pattern

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

KEPT_SEGMENTS = 64
"""Segments whose ids are kept: those of a row, and what the template writes into every row."""

LONGEST_KEPT = 100_000
"""Characters of the longest segment that is kept."""


class TextEncoder:
    """Encodes text as the tokenizer does, without adding special tokens.

    A prompt is encoded alone and before each of its responses. Special tokens cut text into segments that are encoded
    apart from each other, so a segment need be encoded only once.

    Args:
        tokenizer: whose ids are wanted.
        backend: the compiled tokenizer; None if the tokenizer has none that gives the same ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, backend: Tokenizer | None) -> None:
        self.tokenizer = tokenizer
        self.backend = backend
        self._cutting = {} if backend is None else cutting_tokens(backend)
        self._pattern = re.compile(f"({words_pattern(self._cutting).pattern})")
        self._segments: OrderedDict[str, list[int]] = OrderedDict()

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``."""
        if not self._cutting:
            return self._encode_whole(text)
        ids: list[int] = []
        for place, segment in enumerate(self._pattern.split(text)):
            if place % 2:
                ids.append(self._cutting[segment])
            elif segment:
                ids += self._encode_segment(segment)
        return ids

    def _encode_segment(self, segment: str) -> list[int]:
        ids = self._segments.get(segment)
        if ids is not None:
            self._segments.move_to_end(segment)
            return ids
        ids = self._encode_whole(segment)
        if len(segment) > LONGEST_KEPT:
            return ids
        self._segments[segment] = ids
        if len(self._segments) > KEPT_SEGMENTS:
            self._segments.popitem(last=False)
        return ids

    def _encode_whole(self, text: str) -> list[int]:
        backend = self.backend
        if backend is None or backend.truncation or backend.padding:
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)
        return list(backend.encode(text, add_special_tokens=False).ids)


def cutting_tokens(backend: Tokenizer) -> dict[str, int]:
    """The added tokens at which a compiled tokenizer cuts text before it does anything else with it, and their ids.

    Empty if the ids of a segment depend on more than the segment: on a token that takes white space or letters beside
    it, on whether it is the first of the text, or on chance.
    """
    cutting = {}
    for number, token in backend.get_added_tokens_decoder().items():
        if token.lstrip or token.rstrip or token.single_word:
            return {}
        if not token.normalized and token.content:
            cutting[token.content] = number
    # of the whole tokenizer it would be a JSON text of megabytes
    splitter = backend.pre_tokenizer
    settings = None if splitter is None else json.loads(splitter.__getstate__())
    depends_on_place = _has(settings, "prepend_scheme", "first")
    is_random = getattr(backend.model, "dropout", None)
    return {} if depends_on_place or is_random or backend.encode_special_tokens else cutting


def _has(settings: Any, name: str, value: str) -> bool:
    """Whether a part of nested settings has this value under this name."""
    if isinstance(settings, list):
        return any(_has(part, name, value) for part in settings)
    if not isinstance(settings, dict):
        return False
    if settings.get(name) == value:
        return True
    return any(_has(part, name, value) for part in settings.values())
