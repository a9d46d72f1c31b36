"""Decode one batch: tokens are chosen on the device, and the host looks at them every few steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_align.compat.stopping import stop_if_told
from lit_align.models.decoding.prompts import Limits, Prompts
from lit_align.models.decoding.row_order import move_rows
from lit_align.models.decoding.sequences import sequences_for
from lit_align.models.decoding.token_choice import choose_tokens
from lit_align.progress import note_sampled

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel

STEPS_BETWEEN_CHECKS = 16
"""Tokens that a GPU chooses before the host looks which completions have ended; it waits for the GPU once for them."""


class Completion(NamedTuple):
    """One sampled completion.

    Args:
        ids: its tokens, including the one that ended it.
        logps: log-probability of each token at the sampling temperature; at 1 with greedy decoding.
        ended: whether the model ended it, rather than the limit.
    """

    ids: list[int]
    logps: list[float]
    ended: bool

    @property
    def response_ids(self) -> list[int]:
        """Its tokens without the one that ended it."""
        return self.ids[:-1] if self.ended else self.ids


class Choice(NamedTuple):
    """How tokens are chosen and what ends a completion.

    Args:
        temperature: 0 for greedy decoding.
        stop_tokens: tokens that end a completion.
        steps_between_checks: tokens until completions that have ended leave the batch.
    """

    temperature: float
    stop_tokens: frozenset[int]
    steps_between_checks: int


def steps_between_checks(device: torch.device) -> int:
    """Each step on a CPU, where a look costs nothing and a row that has ended would be computed for nothing."""
    return 1 if device.type == "cpu" else STEPS_BETWEEN_CHECKS


def decode_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    choice: Choice,
    token_budget: int,
) -> list[list[Completion]]:
    """Decode all completions of ``prompts`` together, ``[prompt][sample]``; finished ones leave the batch.

    Args:
        model: in eval mode.
        prompts: token ids.
        uniforms: ``[prompts, samples, max_new_tokens]``, on the model's device.
        choice: how to choose.
        token_budget: tokens of prompts that are read at once.
    """
    num_generations, max_new_tokens = uniforms.shape[1:]
    padded = Prompts.pad(prompts, model.device)
    sequences = sequences_for(model, padded.ids.shape[1] + max_new_tokens)
    logits = sequences.read(padded, Limits(num_generations, max_new_tokens, token_budget))
    uniforms = uniforms.flatten(0, 1).clone()  # rows of it move
    log = _CompletionLog(len(uniforms), choice.stop_tokens)
    interval = choice.steps_between_checks
    for step in range(max_new_tokens):
        stop_if_told()
        if step % interval == 0:
            sequences.reserve(interval)
            chosen = uniforms.new_empty(2, len(uniforms), interval)
        uniform = uniforms[:, step] if choice.temperature else None
        token, logp = choose_tokens(logits, choice.temperature, uniform)
        chosen[0, :, step % interval] = token
        chosen[1, :, step % interval] = logp
        is_last = step + 1 == max_new_tokens
        if is_last or (step + 1) % interval == 0:
            log.add(chosen[:, :, : step % interval + 1], is_last)
            if is_last or log.all_ended:
                break
            if sequences.can_drop and log.some_ended:
                order = log.drop_ended()
                uniforms, token = move_rows(uniforms, order), move_rows(token, order)
                sequences.keep_rows(order)
        logits = sequences.append(token)
    completions = log.completions()
    return [
        completions[i : i + num_generations] for i in range(0, len(completions), num_generations)
    ]


class _CompletionLog:
    """What has been chosen so far, on the host.

    Args:
        count: completions that are decoded together.
        stop_tokens: tokens that end one.
    """

    def __init__(self, count: int, stop_tokens: frozenset[int]) -> None:
        self.stop_tokens = stop_tokens
        self.active = list(range(count))  # the completion that each row of the batch decodes
        self.ids: list[list[int]] = [[] for _ in range(count)]
        self.logps: list[list[float]] = [[] for _ in range(count)]
        self.ended = [False] * count

    def add(self, chosen: Tensor, is_last: bool = False) -> None:
        """Add the tokens and log-probabilities of some steps, ``[2, rows, steps]``; those after an end are dropped.

        Args:
            chosen: both as floating-point numbers.
            is_last: whether all completions end here, at their limit.
        """
        num_done, num_tokens = sum(self.ended), 0
        tokens, logps = chosen.tolist()
        for row, completion in enumerate(self.active):
            if not self.ended[completion]:
                num_tokens += self._extend(completion, tokens[row], logps[row])
        note_sampled((len(self.ended) if is_last else sum(self.ended)) - num_done, num_tokens)

    def _extend(self, completion: int, tokens: list[float], logps: list[float]) -> int:
        """Add to one completion until it ends; how many tokens."""
        ids = [int(token) for token in tokens]
        for place, token in enumerate(ids):
            if token in self.stop_tokens:
                self.ended[completion] = True
                ids = ids[: place + 1]
                break
        self.ids[completion] += ids
        self.logps[completion] += logps[: len(ids)]
        return len(ids)

    @property
    def all_ended(self) -> bool:
        """Whether no completion goes on."""
        return all(self.ended)

    @property
    def some_ended(self) -> bool:
        """Whether rows of the batch decode completions that have ended."""
        return any(self.ended[completion] for completion in self.active)

    def drop_ended(self) -> list[int]:
        """Rows that go on, in an order in which few move: the last ones take the places of those that have ended."""
        going_on = [row for row, completion in enumerate(self.active) if not self.ended[completion]]
        last_ones = [row for row in going_on if row >= len(going_on)]
        order = []
        for row in range(len(going_on)):
            order.append(last_ones.pop() if self.ended[self.active[row]] else row)
        self.active = [self.active[row] for row in order]
        return order

    def completions(self) -> list[Completion]:
        """All of them, in the order in which they were started."""
        return [Completion(*parts) for parts in zip(self.ids, self.logps, self.ended, strict=True)]
