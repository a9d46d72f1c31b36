"""Read the completions of an engine that may send anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from lit_align.models.decoding.batch import Completion
from lit_align.servers.reply_checks import UnreadableReply, is_logp


class Expected(NamedTuple):
    """What an answer must agree with.

    Args:
        model: the name that was asked.
        prompt: token ids that were sent.
        num_completions: of the prompt.
        max_tokens: of a completion.
        stop_tokens: that end one.
        vocabulary: number of tokens there are.
    """

    model: str
    prompt: Sequence[int]
    num_completions: int
    max_tokens: int
    stop_tokens: frozenset[int]
    vocabulary: int


def parse_completions(reply: Any, expected: Expected) -> list[Completion]:
    """The completions of one prompt.

    Args:
        reply: the JSON of the answer.
        expected: what it must agree with.

    Raises:
        UnreadableReply: with a short reason.
    """
    try:
        model, choices = reply["model"], sorted(reply["choices"], key=lambda one: one["index"])
        parts = [(choice, choice["token_ids"], choice["logprobs"]) for choice in choices]
        parsed = [
            (choice, ids, logprobs["token_logprobs"], choice["finish_reason"])
            for choice, ids, logprobs in parts
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableReply(
            f"an answer without {error}" if isinstance(error, KeyError) else "half an answer",
            retryable=True,
        ) from error
    if model != expected.model:
        raise UnreadableReply(f"an answer of {model!r}, when {expected.model!r} was asked")
    if len(parsed) != expected.num_completions:
        raise UnreadableReply(
            f"{len(parsed)} of {expected.num_completions} completions of a prompt", retryable=True
        )
    completions = []
    for choice, ids, logps, reason in parsed:
        if choice.get("prompt_token_ids") not in (None, list(expected.prompt)):
            raise UnreadableReply("completions of another prompt than was sent")
        _check_numbers(ids, logps, expected)
        completions.append(_completion(ids, logps, reason, expected))
    return completions


def _check_numbers(ids: Any, logps: Any, expected: Expected) -> None:
    if not (isinstance(ids, list) and isinstance(logps, list) and len(ids) == len(logps)):
        raise UnreadableReply("tokens without their log-probabilities", retryable=True)
    for token in ids:
        if type(token) is not int or not 0 <= token < expected.vocabulary:
            raise UnreadableReply(f"the token {token!r}, which is not in the vocabulary")
    for logp in logps:
        if not is_logp(logp) or not math.isfinite(logp):
            raise UnreadableReply(f"the log-probability {logp!r}")


def _completion(ids: list[int], logps: list[float], reason: Any, expected: Expected) -> Completion:
    ended = bool(ids) and ids[-1] in expected.stop_tokens
    if reason not in ("stop", "length"):
        raise UnreadableReply(f"a completion that finished by {reason!r}", retryable=True)
    if reason == "stop" and not ended:
        raise UnreadableReply("a completion that stops at a token which ends nothing here")
    if not expected.stop_tokens.isdisjoint(ids[:-1]):
        raise UnreadableReply("a completion that goes on after its end")
    if not ended and len(ids) != expected.max_tokens:
        raise UnreadableReply(
            f"a completion cut off after {len(ids)} of {expected.max_tokens} tokens", retryable=True
        )
    return Completion(ids, [float(logp) for logp in logps], ended)
