"""Tokenise groups: ids of prompt and responses, and which are scored (every assistant turn and its end)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lit_align.chat.plain_text import as_chat as text_as_chat
from lit_align.chat.spelled_tokens import (
    SpecialTokensInText,
    changed_by_template,
    fast_backend,
    is_split,
    spelled_tokens,
)
from lit_align.chat.text_encoder import TextEncoder
from lit_align.chat.turn_ends import TurnEnds
from lit_align.data.chat_renderer import ChatRenderer, LearnedTurns, Part, Rendered, Run
from lit_align.data.long_text import LongTexts, WhenOverlong, refuse_overlong, response_texts
from lit_align.data.solution_steps import (
    LINES,
    StepSettings,
    divide_run,
    drop_cut_labels,
    join_steps,
    learned_steps,
    mark_ends,
)
from lit_align.errors import Malformed, ModelError, Overlong, SetAside
from lit_align.types import Branch, Group, SolutionStep, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


class Encoded(NamedTuple):
    """A tokenised group, and what was lost.

    Args:
        tree: the token ids.
        cut: tokens that did not fit.
        ends_lost: responses whose end was among them, so that stopping is not learned from them.
        boundary_merges: responses of which a token would have spanned a boundary, say between prompt and response,
            had they been tokenised in one go.
        unread: names of what the row holds and nothing read, such as ``turn.timestamp``.
        from_text: whether plain text was rendered as turns.
        chars_cut: characters of long texts that were cut off before tokenising; ``cut`` does not count their tokens.
        spelled: special tokens that the text spells out.
        split: whether these were split into ordinary tokens.
    """

    tree: Tree
    cut: int = 0
    ends_lost: int = 0
    boundary_merges: int = 0
    unread: tuple[str, ...] = ()
    from_text: bool = False
    chars_cut: int = 0
    spelled: tuple[str, ...] = ()
    split: bool = False


class _Sequence(NamedTuple):
    """A tokenised part of a response, of any length; ``merged`` if a token would have spanned a boundary.

    ``lengths`` are the tokens of its parts, without the one that may end it.
    """

    ids: list[int]
    scored: list[bool]
    merged: bool
    lengths: list[int]


class ChatTokenizer:
    """Turns groups into trees of token ids.

    Where a group has steps, the scored tokens are those that end a labelled step.

    Text is the prompt, then the response and the end-of-sequence token. Messages are rendered by the tokenizer's chat
    template; every assistant turn of a response is scored, with the token that ends it. What is scored never depends on
    the padding token, so a tokenizer that pads with its end-of-sequence token is safe.

    Args:
        tokenizer: of the model that is trained.
        max_length: tokens that a prompt and one response may have together.
        overlong: what happens to longer ones: ``"drop"`` drops the row, ``"truncate"`` the end of the response,
            ``"error"`` stops. A prompt is never cut: one that fills ``max_length`` drops the row.
        allow_empty: whether a response may be empty, as a sampled one can be; it is then its end-of-sequence token.
        learned_turns: whether all assistant turns of a response are learned or only the last.
        as_chat: whether plain prompts and responses are rendered as turns where the tokenizer has a chat template.
        special_tokens_in_text: what becomes of text that spells a special token out: ``split`` into ordinary tokens,
            ``set_aside``, or ``keep`` as the special token. None splits it in turns, where only the chat template
            writes special tokens, and keeps it in plain text, which has no other way to write them.
        steps: how responses are put together from steps, where a group has some.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        overlong: WhenOverlong = "drop",
        allow_empty: bool = False,
        learned_turns: LearnedTurns = "all",
        as_chat: bool = True,
        special_tokens_in_text: SpecialTokensInText | None = None,
        steps: StepSettings = LINES,
    ) -> None:
        self.steps = steps
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.overlong = overlong
        self.allow_empty = allow_empty
        self.learned_turns = learned_turns
        self.as_chat = as_chat and bool(tokenizer.chat_template)
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token, so stopping cannot be learned; set eos_token"
            )
        self._renderer = ChatRenderer(tokenizer, learned_turns)
        self._eos: int = tokenizer.eos_token_id
        self._bos: int | None = tokenizer.bos_token_id
        self._ends = TurnEnds(tokenizer)
        self.special_tokens_in_text = special_tokens_in_text
        backend = fast_backend(tokenizer)
        self._encoder = TextEncoder(tokenizer, backend)
        self._spelled = spelled_tokens(tokenizer)
        self._long_texts = LongTexts(backend, self._tokenize, max_length)
        self._adds_bos = self._bos is not None and tokenizer("a").input_ids[0] == self._bos

    def settings(self) -> dict[str, Any]:
        """What the ids of a group depend on besides the tokenizer."""
        return {
            "max_length": self.max_length,
            "overlong": self.overlong,
            "allow_empty": self.allow_empty,
            "learned_turns": self.learned_turns,
            "as_chat": self.as_chat,
            "special_tokens_in_text": self.special_tokens_in_text,
            "steps": self.steps,
        }

    def encode(self, group: Group) -> Encoded:
        """The group as a tree.

        Raises:
            Malformed: if a response has nothing to score, or text cannot be rendered.
            SetAside: if the chat template does not show all that is learned, or steps contain the separator, or none
                that is learned from has a label.
            Overlong: if the row does not fit and is not to be truncated.
            DataError: if the chat template is missing, or if the row does not fit and that is an error.
        """
        if group.steps:
            learned = [learned_steps(steps, self.steps) for steps in group.steps]
            group = join_steps(group._replace(steps=tuple(learned)), self.steps.separator)
        chat = text_as_chat(group) if self.as_chat else None
        group = chat or group
        is_text = isinstance(group.prompt, str)
        spelled = tuple(self._spelled.find(group))
        split = is_split(spelled, self.special_tokens_in_text, is_text)
        shorter = self._long_texts.limit(group, self.overlong)
        rendered = self._render(shorter, split)
        start_ids = self._tokenize(rendered.prompt)
        prompt = self._prompt_ids(start_ids, is_text)
        tree = Tree(prompt, [], [], group)
        branches: list[Branch] = []
        boundary_merges = 0
        for number, (first, *others) in enumerate(rendered.responses):
            if group.steps:
                first = self._divide(first, others, group.steps[number])
            main = self._sequence(first, start_ids, is_text)
            tree.responses.append(main.ids)
            if group.steps:
                marks = mark_ends(main.scored, main.lengths, group.steps[number])
                tree.scored.append(marks)
            else:
                tree.scored.append(main.scored)
            boundary_merges += main.merged
            for run in others:
                ids = self._tokenize(run.prompt)
                sequence = self._sequence(run, ids, is_text)
                branch_prompt = self._prompt_ids(ids, is_text)
                branches.append(Branch(number, branch_prompt, sequence.ids, sequence.scored))
                boundary_merges += sequence.merged
        tree = tree._replace(branches=tuple(branches))
        for number in range(len(tree.responses)):
            if not any(any(part.scored) for part in tree.parts_of(number)):
                raise Malformed("empty response")
        encoded = self._limit_length(tree)
        return encoded._replace(
            boundary_merges=boundary_merges,
            unread=rendered.unread,
            from_text=chat is not None,
            chars_cut=_num_characters(group) - _num_characters(shorter),
            spelled=spelled,
            split=split,
        )

    def _divide(self, run: Run, others: list[Run], steps: tuple[SolutionStep, ...]) -> Run:
        """The run with a part for each step."""
        if others:
            raise SetAside("the chat template writes a response with steps in several parts")
        return divide_run(run, steps, self.steps.separator, self._spelled)

    def _render(self, group: Group, split: bool) -> Rendered:
        """The rendered group, with marks for the special tokens that its text spells out if these are split."""
        rendered = self._renderer.render(group)
        if not split:
            return rendered
        marked = self._renderer.render(self._spelled.mark_group(group))
        if marked.map_texts(self._spelled.unmark)[:2] != rendered[:2]:
            raise changed_by_template()
        return marked._replace(unread=rendered.unread)

    def _limit_length(self, tree: Tree) -> Encoded:
        """The tree with no part of a response longer than ``max_length`` allows."""
        # a prompt without responses must leave room for one token
        longest = max(map(len, tree.responses), default=1)
        limit = self._response_limit(tree.group, len(tree.prompt), longest)
        responses, scored, branches = [], [], []
        cut = 0
        ends_lost = set()
        for number, (ids, mask) in enumerate(zip(tree.responses, tree.scored, strict=True)):
            responses.append(ids[:limit])
            scored.append(mask[:limit])
            if len(ids) > limit:
                cut += len(ids) - limit
                ends_lost.add(number)
        for branch in tree.branches:
            room = self._branch_limit(tree.group, branch)
            if room:
                shorter = branch._replace(ids=branch.ids[:room], scored=branch.scored[:room])
                branches.append(shorter)
            if len(branch.ids) > room:
                cut += len(branch.ids) - room
                ends_lost.add(branch.response)
        whole = tree
        tree = tree._replace(responses=responses, scored=scored, branches=tuple(branches))
        if cut:
            _check_truncated(tree)
            if tree.group.steps:
                group = drop_cut_labels(tree.group, whole.scored, tree.scored)
                tree = tree._replace(group=group)
        return Encoded(tree, cut, len(ends_lost))

    def _response_limit(self, group: Group, prompt_length: int, longest: int) -> int:
        """Tokens that each response may have; ``longest`` are needed."""
        limit = self.max_length - prompt_length
        if longest <= limit:
            return limit
        size = f"{prompt_length} + {longest} tokens, over max_length {self.max_length}"
        refuse_overlong(group, self.overlong, size, fills_prompt=limit < 1)
        return limit

    def _branch_limit(self, group: Group, branch: Branch) -> int:
        """Tokens that a branch may have; 0 if its prompt leaves no room, and rows are truncated."""
        if self.overlong == "truncate" and len(branch.prompt) >= self.max_length:
            return 0
        return self._response_limit(group, len(branch.prompt), len(branch.ids))

    def _prompt_ids(self, ids: list[int], is_text: bool) -> list[int]:
        """The prompt with one begin-of-sequence token if the model expects it, never two; never empty."""
        if self._bos is None:
            return ids or [self._eos]
        if ids[:2] == [self._bos] * 2:
            return ids[1:]
        if is_text and self._adds_bos and ids[:1] != [self._bos]:
            return [self._bos, *ids]
        return ids or [self._bos]

    def _sequence(self, run: Run, prompt_ids: list[int], is_text: bool) -> _Sequence:
        """Tokenise a run of turns, with an end-of-sequence token if the template does not end the last one."""
        parts = run.parts
        part_ids = self._tokenize_in_context(run.prompt, prompt_ids, parts)
        merged = part_ids is None
        if part_ids is None:
            part_ids = [self._tokenize(part.text) for part in parts]
        ids: list[int] = []
        scored: list[bool] = []
        for piece, part in zip(part_ids, parts, strict=True):
            ids += piece
            scored += self._score_mask(piece, part, is_text)
        has_content = any(scored) or self.allow_empty
        if has_content and parts and parts[-1].scored and not self._has_end(part_ids[-1], is_text):
            ids.append(self._eos)
            scored.append(True)
        return _Sequence(ids, scored, merged, [*map(len, part_ids)])

    def _score_mask(self, ids: list[int], part: Part, is_text: bool) -> list[bool]:
        """Which ids of a part are scored.

        A template may put text such as a line break after the token that ends a turn; no model generates it.
        """
        mask = [part.scored] * len(ids)
        if part.scored and not is_text:
            end = self._ends.position(ids)
            if end is not None:
                mask[end:] = [False] * (len(ids) - end)
        return mask

    def _has_end(self, ids: list[int], is_text: bool) -> bool:
        """Whether the last part of a response ends it."""
        if is_text:
            return ids[-1:] == [self._eos]
        return self._ends.position(ids) is not None

    def _tokenize_in_context(
        self, start: str, start_ids: list[int], parts: list[Part]
    ) -> list[list[int]] | None:
        """Ids of all parts, tokenised together with the prompt, or None if a token spans a boundary."""
        part_ids = []
        text, previous = start, start_ids
        for part in parts:
            text += part.text
            ids = self._tokenize(text)
            done = len(previous)
            if ids[:done] != previous:
                return None
            part_ids.append(ids[done:])
            previous = ids
        return part_ids

    def _tokenize(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Malformed("text with half of a surrogate pair") from error
        if self._spelled.is_marked(text):
            return self._spelled.encode(text)
        return self._encoder.encode(text)


def _num_characters(group: Group) -> int:
    """Characters of all responses, thoughts included."""
    return sum(map(len, response_texts(group.responses)))


def _check_truncated(tree: Tree) -> None:
    """Refuse a truncated tree of which nothing can be learned any more."""
    parts = [tree.parts_of(number) for number in range(len(tree.responses))]
    for response in parts:
        if not any(any(part.scored) for part in response):
            raise Overlong("nothing to learn from within max_length")
    ids = [[part.ids for part in response] for response in parts]
    for pair in tree.group.pairs:
        if ids[pair.better] == ids[pair.worse]:
            raise Overlong("responses do not differ within max_length")
