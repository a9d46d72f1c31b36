"""The tokens that only a chat template may write, and a tokenizer that reads them as text wherever else they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lit_align.chat.template import ASSISTANT, THOUGHTS, USER, ChatTemplate
from lit_align.chat.turn_ends import special_ids, turn_ends
from lit_align.errors import Malformed, SetAside
from lit_align.types import Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

THOUGHT_MARKS = {
    *("<think>", "</think>"),
    *("[THINK]", "[/THINK]"),
    *("<|START_THINKING|>", "<|END_THINKING|>"),
    *("<seed:think>", "</seed:think>"),
    *("◁think▷", "◁/think▷"),
}
"""What models write around their thoughts; some of their templates show no thoughts."""

PLAIN_WORD = re.compile(r"[\w-]+")
TAG = re.compile(r"<(/?)(\w+)>")
NO_MATCH = "(?!)"
SYSTEM: Message = {"role": "system", "content": "a"}


def control_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The special tokens, and the other added tokens with which the chat template frames turns.

    White space is none, nor are words, and tags such as ``<think>`` and ``</think>``, that the tokenizer does not call
    special: they belong to what is written in a turn.

    Args:
        tokenizer: with its chat template, if it has one.
    """
    added = tokenizer.added_tokens_decoder
    special = special_ids(tokenizer)
    contents = {token.content for token in added.values()}
    framing = _framing_ids(tokenizer)
    ids = {}
    for number in special.union(framing):
        token = str(tokenizer.convert_ids_to_tokens(number))
        if number in added:
            token = added[number].content
        is_tag = number not in special and _closes_or_opens(token, contents)
        if token.strip() and not is_tag:
            ids[token] = number
    return ids


def thought_marks(tokenizer: PreTrainedTokenizerBase, controls: Collection[str]) -> set[str]:
    """The control tokens around an assistant's thoughts, which belong to what it writes.

    Besides those of well-known models, they are the two next to the thoughts that the chat template writes, unless it
    writes them without thoughts too.

    Args:
        tokenizer: with its chat template, if it has one.
        controls: the control tokens.
    """
    marks = THOUGHT_MARKS.intersection(controls)
    if not tokenizer.chat_template:
        return marks
    template, pattern = ChatTemplate(tokenizer), words_pattern(controls)
    with_thoughts = _render_or_empty(template, [USER, {**ASSISTANT, "thinking": THOUGHTS}])
    before, thoughts, after = with_thoughts.partition(THOUGHTS)
    if not thoughts:
        return marks
    around = {*pattern.findall(before)[-1:], *pattern.findall(after)[:1]}
    for turns in ([USER, ASSISTANT, USER, ASSISTANT], [SYSTEM, USER, ASSISTANT]):
        around.difference_update(pattern.findall(_render_or_empty(template, turns)))
    around.difference_update(tokenizer.convert_ids_to_tokens([*turn_ends(tokenizer)]))
    # a single one ends a message rather than thoughts
    return marks | around if len(around) == 2 else marks


def words_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern of any of the words, the longest that fits; words of common beginnings are compared once.

    Example:
        >>> words_pattern(["<s>", "<s>>", "<end>"]).findall("<s>>, <s>, <e>")
        ['<s>>', '<s>']
    """
    return re.compile(_alternatives(sorted(set(words))) or NO_MATCH)


class SplittingTokenizer:
    """Tokenises text in which the control tokens that count have other names.

    The names are private, so what the text itself spells out is split like all other text, and nothing else changes:
    the text is tokenised in one piece.

    Args:
        tokenizer: whose ids are wanted.
        names: of the control tokens.
        ids: of the control tokens.
        backend: the compiled tokenizer; None if the tokenizer has none that gives the same ids.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        names: Mapping[str, str],
        ids: Mapping[str, int],
        backend: Tokenizer | None,
    ) -> None:
        self.tokenizer = tokenizer
        self.names = names
        self.backend = backend
        self._ids = {names[token]: number for token, number in ids.items()}
        for number, added in tokenizer.added_tokens_decoder.items():
            if added.content not in names:
                self._ids[added.content] = number

    def encode(self, text: str) -> list[int]:
        """Ids of a text with named control tokens.

        Raises:
            SetAside: if the tokenizer makes a control token of plain text.
        """
        if self._renamed is not None:
            return list(self._renamed.encode(text, add_special_tokens=False).ids)
        ids: list[int] = []
        for place, piece in enumerate(self._pieces.split(text)):
            ids += [self._ids[piece]] if place % 2 else self._encode_plain(piece)
        return ids

    @cached_property
    def _renamed(self) -> Tokenizer | None:
        return None if self.backend is None else renamed_tokenizer(self.backend, self.names)

    @cached_property
    def _pieces(self) -> re.Pattern[str]:
        return re.compile(f"({words_pattern(self._ids).pattern})")

    def _encode_plain(self, text: str) -> list[int]:
        if not text:
            return []
        options = {"add_special_tokens": False, "split_special_tokens": True}
        ids = list(self.tokenizer(text, **options).input_ids)
        controls = {self._ids[name]: token for token, name in self.names.items()}
        for number in ids:
            if number in controls and number != self.tokenizer.unk_token_id:
                raise SetAside(
                    f"the tokenizer makes the special token {controls[number]!r} of plain text"
                )
        return ids


def renamed_tokenizer(backend: Tokenizer, names: Mapping[str, str]) -> Tokenizer:
    """A copy of a compiled tokenizer in which tokens have other names and the same ids.

    Args:
        backend: stays as it is.
        names: for each token, its other name.
    """
    from tokenizers import Tokenizer

    settings: dict[str, Any] = json.loads(backend.to_str())
    settings["post_processor"] = settings["truncation"] = settings["padding"] = None
    for added in settings["added_tokens"]:
        added["content"] = names.get(added["content"], added["content"])
    model = settings["model"]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(word, word): number for word, number in model["vocab"].items()}
    else:  # a unigram model lists words with their scores
        model["vocab"] = [[names.get(word, word), score] for word, score in model["vocab"]]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _makes_any(pair, names)]
    return Tokenizer.from_str(json.dumps(settings))


def _makes_any(pair: tuple[str, str], words: Collection[str]) -> bool:
    """Whether one of the words takes part in a merge, or results from it."""
    left, right = pair
    return left in words or right in words or left + right in words


def _framing_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Added tokens that end turns, stand in the template's texts, or come out of it around plain turns.

    Words are among them only if they end turns: a template that names a role or a key does not frame turns with it.
    """
    ends = set(turn_ends(tokenizer))
    if not tokenizer.chat_template:
        return ends
    framing = set()
    candidates = {}
    for number, token in tokenizer.added_tokens_decoder.items():
        if not PLAIN_WORD.fullmatch(token.content.strip()):
            candidates[number] = token.content
    template = ChatTemplate(tokenizer)
    for number, content in candidates.items():
        if any(content in text for text in template.texts):
            framing.add(number)
    tool = {**USER, "role": "tool"}
    for turns in ([SYSTEM, USER, ASSISTANT], [USER, ASSISTANT, USER], [USER, ASSISTANT, tool]):
        text = _render_or_empty(template, turns)
        framing |= candidates.keys() & set(tokenizer(text, add_special_tokens=False).input_ids)
    return ends | framing


def _render_or_empty(template: ChatTemplate, turns: list[Message]) -> str:
    """The turns through the template, up to an answer where a user speaks last; empty if it refuses them."""
    try:
        return template.render(turns, add_generation_prompt=turns[-1]["role"] == "user")
    except Malformed:
        return ""


def _closes_or_opens(token: str, tokens: Collection[str]) -> bool:
    """Whether a token is a tag whose other half is a token too."""
    match = TAG.fullmatch(token)
    if match is None:
        return False
    return f"<{'' if match[1] else '/'}{match[2]}>" in tokens


def _alternatives(words: list[str]) -> str:
    """The pattern of sorted words, as a tree of their characters."""
    by_first: dict[str, list[str]] = {}
    for word in words:
        if word:
            by_first.setdefault(word[0], []).append(word[1:])
    branches = []
    for first, suffixes in by_first.items():
        branches.append(re.escape(first) + _alternatives(suffixes))
    if not branches:
        return ""
    pattern = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    is_optional = "" in words
    return f"(?:{pattern})?" if is_optional else pattern
