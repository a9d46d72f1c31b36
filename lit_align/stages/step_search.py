"""Beam search over the steps of answers, guided by a reward (Snell et al., 2024, https://arxiv.org/abs/2408.03314)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from lit_align.checks import check_at_least
from lit_align.data.solution_steps import strip_start, unfinished_step
from lit_align.errors import ConfigError
from lit_align.rewards import Reward
from lit_align.rewards.base import as_response, checked_scores
from lit_align.seeding import step_seed
from lit_align.types import Group

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

LINE_BREAK = "\n"
"""What ends a step where neither the search nor its reward says so."""


class Answer(NamedTuple):
    """One sampled answer.

    Args:
        text: with leading and trailing blanks.
        ended: whether the model ended it, rather than the token limit.
        ids: its tokens as they were sampled, with the one that ends it; None if nobody knows them.
    """

    text: str
    ended: bool
    ids: Sequence[int] | None = None


class Answering(Protocol):
    """What samples; `lit_align.stages.answering.Responder` is one."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the model."""

    @property
    def max_new_tokens(self) -> int:
        """Longest answer."""

    @property
    def seed(self) -> int:
        """Of sampling."""

    def sample(
        self, prompts: Sequence[Sequence[int]], role: str = "policy", **overrides: Any
    ) -> list[list[Answer]]:
        """Answers to prompts of token ids, ``[prompt][sample]``."""


@dataclass
class StepSearch:
    r"""Sample answers step by step, and go on from those whose steps so far have the highest reward.

    Each round samples n next steps to a prompt, the same number from each answer that is kept, and keeps ``width`` of
    all. Answers that have ended compete with the others.

    Args:
        width: answers that are kept; n is a multiple of it.
        separator: text that ends a step; null takes the one that the reward was trained with, or a line break where
            the reward reads no steps.
        step_tokens: tokens of a step, at most; a longer one is scored where it is cut, and goes on in the next round.
    """

    width: int = 4
    separator: str | None = None
    step_tokens: int = 64

    def __post_init__(self) -> None:
        check_at_least("best_of.search.width", self.width, 1)
        check_at_least("best_of.search.step_tokens", self.step_tokens, 1)
        if self.separator is not None and not self.separator:
            raise ConfigError(
                "best_of.search.separator is empty; give what ends a step, or null for what the reward was trained with"
            )

    def check(self, n: int, reward: Reward) -> None:
        """Refuse a number of samples that cannot be shared out, and steps that the reward does not read.

        Raises:
            ConfigError: naming both settings.
        """
        self.separator_for(reward)
        if n % self.width:
            raise ConfigError(
                f"best_of.n is {n} and best_of.search.width {self.width}; make n a multiple of it, so that each answer "
                "that is kept goes on as often"
            )

    def separator_for(self, reward: Reward) -> str:
        """What ends a step of the search, at which the reward divides answers too.

        A beginning that ends elsewhere would be scored as a complete answer, or as another step.

        Raises:
            ConfigError: if the reward divides answers at another text, or its parts at several.
        """
        trained = sorted(reward.step_separators())
        if len(trained) > 1:
            raise ConfigError(
                f"best_of.reward divides answers into steps at {' and at '.join(map(repr, trained))}, and a search has "
                "steps of one kind; take process reward models that were trained with the same data.step_separator"
            )
        if trained and self.separator not in (None, *trained):
            raise ConfigError(
                f"best_of.search.separator is {self.separator!r}, and best_of.reward was trained with steps that end "
                f"with {trained[0]!r}; set it to null, which takes that"
            )
        if self.separator is not None:
            return self.separator
        return trained[0] if trained else LINE_BREAK

    def answers(
        self,
        responder: Answering,
        reward: Reward,
        n: int,
        groups: Sequence[Group],
        places: Sequence[int],
    ) -> list[list[Answer]]:
        """The kept answers to each prompt, at most ``width``, best first.

        Args:
            responder: samples.
            reward: scores answers and beginnings of answers.
            n: next steps that are sampled to a prompt in a round.
            groups: prompts with their ids.
            places: of the prompts in the data; seeds depend on them alone.
        """
        separator = self.separator_for(reward)
        beams = [[Answer("", False, ())] for _ in groups]
        number = 0
        while any(self._open(responder, beams)):
            share = n if number == 0 else n // self.width
            candidates = self._continue(responder, share, number, groups, beams, places, separator)
            beams = self._best(responder, reward, groups, candidates)
            number += 1
        return beams

    def _open(
        self, responder: Answering, beams: Sequence[Sequence[Answer]]
    ) -> Iterator[tuple[int, int]]:
        """Prompt and place of the answers that go on."""
        for prompt, row in enumerate(beams):
            for place, answer in enumerate(row):
                if _goes_on(responder, answer):
                    yield prompt, place

    def _continue(
        self,
        responder: Answering,
        share: int,
        number: int,
        groups: Sequence[Group],
        beams: Sequence[Sequence[Answer]],
        places: Sequence[int],
        separator: str,
    ) -> list[list[Answer]]:
        """For each prompt the answers that are complete, and the others with next steps; each only once."""
        going_on = list(self._open(responder, beams))
        by_room: dict[int, list[tuple[int, int]]] = {}
        for i, k in going_on:
            room = min(self.step_tokens, responder.max_new_tokens - len(beams[i][k].ids or ()))
            by_room.setdefault(room, []).append((i, k))
        sampled: dict[tuple[int, int], list[Answer]] = {}
        for room, members in by_room.items():  # so that no answer depends on the room of others
            rows = responder.sample(
                [[*groups[i].prompt_ids, *(beams[i][k].ids or ())] for i, k in members],
                num_generations=share,
                max_new_tokens=room,
                prompt_indices=[places[i] * self.width + k for i, k in members],
                seed=step_seed(responder.seed, number),
            )
            sampled.update(zip(members, rows, strict=True))
        candidates: list[dict[tuple[int, ...], Answer]] = []
        for row in beams:
            complete = [answer for answer in row if not _goes_on(responder, answer)]
            candidates.append({tuple(answer.ids or ()): answer for answer in complete})
        for prompt, place in going_on:
            for step in sampled[prompt, place]:
                longer = _add(responder, beams[prompt][place], step, separator)
                candidates[prompt].setdefault(tuple(longer.ids or ()), longer)
        return [list(row.values()) for row in candidates]

    def _best(
        self,
        responder: Answering,
        reward: Reward,
        groups: Sequence[Group],
        candidates: Sequence[Sequence[Answer]],
    ) -> list[list[Answer]]:
        """The best of each prompt's answers, the first of equal ones first."""
        candidate_groups = []
        for group, row in zip(groups, candidates, strict=True):
            responses = [as_response(group, answer.text) for answer in row]
            ids = tuple(answer.ids for answer in row)
            beginnings = [
                answer.text.lstrip() if _goes_on(responder, answer) else None for answer in row
            ]
            candidate_groups.append(
                group._replace(responses=responses, response_ids=ids, beginnings=beginnings)
            )
        scores = checked_scores(reward, candidate_groups, may_abstain=True)
        totals = scores.total.cpu()
        if scores.scored is not None:
            totals = totals.where(scores.scored.cpu(), -math.inf)
        best, sizes = [], [len(row) for row in candidates]
        for row, values in zip(candidates, torch.split(totals, sizes), strict=True):
            order = values.sort(descending=True, stable=True).indices[: self.width]
            best.append([row[k] for k in order.tolist()])
        return best


def _goes_on(responder: Answering, answer: Answer) -> bool:
    """Whether the model has not ended the answer, and it has room for more."""
    return not answer.ended and len(answer.ids or ()) < responder.max_new_tokens


def _add(responder: Answering, answer: Answer, step: Answer, separator: str) -> Answer:
    """The answer with the first step of what was sampled after it."""
    start, room = list(answer.ids or ()), responder.max_new_tokens
    ids = [*start, *(step.ids or ())]
    text_start = len(answer.text) - len(unfinished_step(answer.text, separator))

    def text_of(count: int) -> str:
        return str(responder.tokenizer.decode(ids[:count], skip_special_tokens=True))

    def has_step(count: int) -> bool:
        return separator in strip_start(text_of(count)[text_start:], separator)

    counts = range(len(start), len(ids))
    end = len(start) + bisect_left(counts, True, key=has_step)
    is_cut = end < len(ids) or len(ids) > room
    count = min(end, room)
    return Answer(text_of(count), step.ended and not is_cut, ids[:count])
