"""Special tokens that text spells out, such as the end of a turn within a question: found, and split like other text.

Where a chat is rendered and tokenised at once, transformers can do this itself (``sanitize_control_tokens``); but it
tokenises the text before and after such a token apart, and splits the tags of thoughts too.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from lit_align.chat.control_tokens import (
    PLAIN_WORD,
    SplittingTokenizer,
    control_ids,
    thought_marks,
    words_pattern,
)
from lit_align.chat.template import ChatTemplate
from lit_align.errors import SetAside
from lit_align.jsonl import parse_json
from lit_align.types import Group, Message

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

SpecialTokensInText = Literal["split", "set_aside", "keep"]
"""What becomes of a text that spells a special token out."""

STRUCTURE_KEYS = {"role", "type"}  # whose words a template compares with its own
PRIVATE = range(0xF0000, 0xFFFFE)  # characters to which Unicode gives no meaning
NONCE_LENGTH = 8
HIDDEN = ""  # what is marked where a token comes out of text only by the tokenizer's normalisation


class SpelledTokens:
    """Finds and marks the control tokens that text spells out, and tokenises marked text.

    A mark stands for the token while the chat template is applied. It begins with characters that were drawn at random,
    so that no text contains it.

    Args:
        tokenizer: with its chat template, if it has one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        ids = control_ids(tokenizer)
        start = "".join(chr(secrets.choice(PRIVATE)) for _ in range(NONCE_LENGTH))
        self._marks, names = {}, {}
        for token, sign in zip(sorted(ids), PRIVATE, strict=False):
            self._marks[token] = f"{start}m{chr(sign)}"
            names[token] = f"{start}t{chr(sign)}"
        self._tokenizer = SplittingTokenizer(tokenizer, names, ids, fast_backend(tokenizer))
        self._pattern = words_pattern(ids)
        # in a turn of the assistant, the marks of thoughts are its own
        self._assistant_pattern = words_pattern(ids.keys() - thought_marks(tokenizer, ids))
        self._marks[HIDDEN] = f"{start}h"
        self._marked = {mark: token for token, mark in self._marks.items()}
        # a template may write JSON without any such character
        for token, mark in self._marks.items():
            self._marked[json.dumps(mark)[1:-1]] = json.dumps(token)[1:-1]
        self._mark_pattern = words_pattern(self._marked)

    def find(self, group: Group) -> list[str]:
        """The tokens that the text of a group spells out, sorted."""
        found: set[str] = set()
        turns, free = (
            [group.prompt, group.responses],
            [group.tools, *group.template_kwargs.values()],
        )
        for text, pattern in [*self._texts(turns), *self._texts(free, is_free=True)]:
            found.update(pattern.findall(text))
            found.update(self._find_hidden(text, pattern))
        return sorted(found)

    def mark_group(self, group: Group) -> Group:
        """The group with a mark for each token that its text spells out."""
        template_kwargs = {}
        for name, value in group.template_kwargs.items():
            template_kwargs[name] = self._mark(value, self._pattern, is_free=True)
        return group._replace(
            prompt=self._mark(group.prompt, self._pattern),
            responses=self._mark(group.responses, self._pattern),
            tools=tuple(self._mark(group.tools, self._pattern, is_free=True)),
            template_kwargs=template_kwargs,
        )

    def unmark(self, text: str) -> str:
        """The text with the tokens that the marks stand for."""
        return self._mark_pattern.sub(lambda match: self._marked[match[0]], text)

    def is_marked(self, text: str) -> bool:
        """Whether there is a mark in the text."""
        return bool(self._mark_pattern.search(text))

    def marked_places(self, text: str, places: Sequence[int]) -> list[int]:
        """Where in a marked text the places of the unmarked text are; those within a mark are at its end.

        Args:
            text: with marks.
            places: in the unmarked text, in ascending order.
        """
        marks = [*self._mark_pattern.finditer(text)]
        moved, longer, number = [], 0, 0
        for place in places:
            while number < len(marks) and marks[number].start() - longer < place:
                mark = marks[number]
                end = mark.start() - longer + len(self._marked[mark[0]])
                longer += len(mark[0]) - len(self._marked[mark[0]])
                place, number = max(place, end), number + 1
            moved.append(place + longer)
        return moved

    def encode(self, text: str) -> list[int]:
        """Ids of a marked text: what the marks stand for is split, and the tokens that the template wrote are not."""
        names = self._tokenizer.names
        named = self._pattern.sub(lambda match: names[match[0]], text)
        return self._tokenizer.encode(self.unmark(named))

    # ------------------------------------------------------------------ all texts of a value

    def _find_hidden(self, text: str, pattern: re.Pattern[str]) -> list[str]:
        """The tokens that the tokenizer's normalisation makes of a text, unless they can be seen in it."""
        if self._normalizer is None or pattern.search(text):
            return []
        return pattern.findall(self._normalizer.normalize_str(text))

    @cached_property
    def _normalizer(self) -> Any:
        """What the tokenizer does to text before it looks for control tokens; None if it does nothing."""
        backend = self._tokenizer.backend
        if backend is None or backend.normalizer is None:
            return None
        added = backend.get_added_tokens_decoder().values()
        is_normalized = any(token.normalized and token.content in self._marks for token in added)
        return backend.normalizer if is_normalized else None

    def _texts(
        self, value: Any, pattern: re.Pattern[str] | None = None, is_free: bool = False
    ) -> Iterator[tuple[str, re.Pattern[str]]]:
        """All texts in a value, each with the pattern of what it must not spell out.

        Args:
            value: with texts in it.
            pattern: of the texts; None for that of all control tokens.
            is_free: whether keys are the author's own, as in arguments and tools; in a turn, the template reads them.
        """
        pattern = pattern or self._pattern
        if isinstance(value, str):
            yield value, pattern
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self._texts(item, pattern, is_free)
        elif isinstance(value, dict):
            pattern = self._pattern_of(value, pattern)
            for key, item in value.items():
                if is_free or not _is_word(key):
                    yield from self._texts(key, pattern)
                if not is_free and _is_structure(key, item):
                    continue
                is_item_free = is_free or key == "arguments"
                yield from self._texts(item, pattern, is_item_free)
                if key == "arguments" and isinstance(item, str):
                    yield from self._texts(_arguments(item), pattern, is_item_free)

    def _mark(self, value: Any, pattern: re.Pattern[str], is_free: bool = False) -> Any:
        if isinstance(value, str):
            hidden = self._marks[HIDDEN] if self._find_hidden(value, pattern) else ""
            return hidden + pattern.sub(lambda match: self._marks[match[0]], value)
        if isinstance(value, list | tuple):
            return [self._mark(item, pattern, is_free) for item in value]
        if not isinstance(value, dict):
            return value
        pattern = self._pattern_of(value, pattern)
        marked = {}
        for key, item in value.items():
            marked_key = self._mark(key, pattern) if is_free or not _is_word(key) else key
            if not is_free and _is_structure(key, item):
                marked[marked_key] = item
                continue
            is_item_free = is_free or key == "arguments"
            marked_item = self._mark(item, pattern, is_item_free)
            if key == "arguments" and isinstance(item, str):
                values = self._mark(_arguments(item), pattern, is_item_free)
                # escapes can spell a token too
                marked_item = marked_item if _arguments(marked_item) == values else values
            marked[marked_key] = marked_item
        return marked

    def _pattern_of(self, value: Mapping[str, Any], pattern: re.Pattern[str]) -> re.Pattern[str]:
        return self._assistant_pattern if value.get("role") == "assistant" else pattern


class TurnTokenizer:
    """Tokenises conversations for a model that reads them whole; their text spells no special token.

    Args:
        tokenizer: with a chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)
        self._spelled = spelled_tokens(tokenizer)

    def encode(
        self,
        turns: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Ids of the conversation; arguments as for `ChatTemplate.render`.

        Raises:
            Malformed: if the template refuses the turns.
            DataError: if there is no chat template.
        """
        group = Group([*turns], [], tools=tuple(tools), template_kwargs={**(template_kwargs or {})})
        if not self._spelled.find(group):
            text = self._render(group, add_generation_prompt)
            return list(self.tokenizer(text, add_special_tokens=False).input_ids)
        marked = self._render(self._spelled.mark_group(group), add_generation_prompt)
        return self._spelled.encode(marked)

    def _render(self, group: Group, add_generation_prompt: bool) -> str:
        return self.template.render(
            [*group.prompt],
            add_generation_prompt=add_generation_prompt,
            tools=group.tools,
            template_kwargs=group.template_kwargs,
        )


def spelled_tokens(tokenizer: PreTrainedTokenizerBase) -> SpelledTokens:
    """The spelled tokens of a tokenizer, which are found out once for all that use it as it is."""
    special = str(tokenizer.special_tokens_map)
    return _spelled_tokens(tokenizer, str(tokenizer.chat_template), special, len(tokenizer))


@lru_cache(maxsize=4)
def _spelled_tokens(
    tokenizer: PreTrainedTokenizerBase, template: str, special: str, size: int
) -> SpelledTokens:
    return SpelledTokens(tokenizer)


def fast_backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The compiled tokenizer, which takes a third of the time of the call around it; None if there is none like it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    probe = f" Probe,\n{tokenizer.eos_token} éß 12  "
    expected = list(tokenizer(probe, add_special_tokens=False).input_ids)
    is_same = backend.encode(probe, add_special_tokens=False).ids == expected
    return backend if is_same else None


def is_split(spelled: Sequence[str], treatment: SpecialTokensInText | None, is_text: bool) -> bool:
    """Whether special tokens that a row spells out are split into ordinary tokens.

    Args:
        spelled: the tokens.
        treatment: what is set; None splits in turns and keeps in plain text.
        is_text: whether the row is plain text.

    Raises:
        SetAside: if the row is set aside for them.
    """
    if spelled and treatment == "set_aside":
        raise SetAside(
            f"the text spells out the special token {spelled[0]!r}; set data.special_tokens_in_text to split, or "
            "to keep"
        )
    usual: SpecialTokensInText = "keep" if is_text else "split"
    return bool(spelled) and (treatment or usual) == "split"


def changed_by_template() -> SetAside:
    """The error for a text whose special tokens cannot be told from the template's own."""
    return SetAside(
        "the chat template changes a special token that the text spells out; set data.special_tokens_in_text to keep"
    )


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and PLAIN_WORD.fullmatch(value) is not None


def _is_structure(key: Any, value: Any) -> bool:
    """Whether a value of a turn, or of a part, is a word that the template compares with its own."""
    return key in STRUCTURE_KEYS and _is_word(value)


def _arguments(text: str) -> Any:
    """The arguments of a tool call that are JSON text; the text itself if it is none."""
    try:
        return parse_json(text)
    except ValueError:
        return text
