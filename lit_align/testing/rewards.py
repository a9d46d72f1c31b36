"""Check of what every reward must satisfy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.errors import LitAlignError
from lit_align.plugin_contracts import scores_fault
from lit_align.plugin_failures import describe_exception
from lit_align.plugin_signatures import signature_fault
from lit_align.plugin_wrapping import wrapping_fault
from lit_align.rewards import Reward, Scores
from lit_align.testing.objective_checks import call, hold, require
from lit_align.types import Group, Text

PROMPT = [{"role": "user", "content": "Name a bird."}]


def assistant_message(content: str) -> Text:
    """A response of one assistant turn."""
    return [{"role": "assistant", "content": content}]


GROUPS = (
    Group(
        PROMPT,
        [
            assistant_message("An owl."),
            assistant_message("I don't know."),
            assistant_message("A bird? " * 40),
        ],
    ),
    Group(PROMPT, [assistant_message("🦉 بومة\n<b>owl</b>")]),
)


def check_reward(reward: Reward, groups: Sequence[Group] = GROUPS) -> None:
    """Fail unless ``reward`` gives each response one finite score, or none, that depends on nothing else.

    The score must be the same in a second call, when groups come in another order and when a group comes alone, which
    on-line training relies on; parts must be scores too; and the groups must not be changed. A reward that asks others
    must name them in ``wrapped``. Where groups have other columns, one without them must be scored, or refused by an
    error of ours or a ValueError. One that scores tokens must score each token of each response.

    Args:
        reward: with the settings to check it at.
        groups: what to score; with other columns in ``extra`` if it needs them, and with ``response_ids`` if it scores
            tokens.

    Raises:
        AssertionError: if a property does not hold.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> check_reward(Length(max_words=20))
    """
    name = type(reward).__name__
    groups_before = repr(groups)
    hold(signature_fault(reward))
    hold(call(reward, wrapping_fault, reward))
    scores = _first_scores(reward, groups)
    num_responses = sum(len(group.responses) for group in groups)
    hold(scores_fault(reward, scores, num_responses))
    if scores.scored is not None:  # what is not scored has no number
        scores = scores._replace(total=scores.total.where(scores.scored, 0.0))
    _check_part(f"{name} returns total", scores.total)
    for part, values in scores.parts.items():
        _check_part(f"{name} returns {part}", values.where(~values.isnan(), 0.0))  # nan: none
    require(repr(groups) == groups_before, f"{name} changes the groups it is given")

    _check_tokens(name, scores.tokens, groups)
    _check_repetitions(name, reward, scores, groups)
    _check_missing_columns(name, reward, groups)


def _first_scores(reward: Reward, groups: Sequence[Group]) -> Scores:
    """The scores; a reward that looks up a column that no group has is told how to give it one."""
    try:
        return call(reward, reward, groups)
    except AssertionError as error:
        if not isinstance(error.__cause__, KeyError) or any(group.extra for group in groups):
            raise
        raise AssertionError(
            f"{error}; if it reads a column, pass groups with that column: check_reward(reward, groups)"
        ) from error.__cause__


def _check_repetitions(name: str, reward: Reward, scores: Scores, groups: Sequence[Group]) -> None:
    """Fail unless totals and scores of tokens depend on their group alone."""
    sizes = [len(group.responses) for group in groups]
    again, backwards = reward(groups), reward(groups[::-1])
    separate = [reward([group]) for group in groups]
    total = _shown(scores)
    _require_same(name, "in a second call", _shown(again), total)
    _require_same(name, "in another order", _shown(backwards), _reversed(total, sizes))
    _require_same(name, "one by one", torch.cat([_shown(part) for part in separate]), total)
    if scores.tokens is None:
        return
    name = f"{name} scores tokens and"
    sizes = _token_counts(groups)
    _require_same(name, "in a second call", _tokens(again), scores.tokens)
    _require_same(name, "in another order", _tokens(backwards), _reversed(scores.tokens, sizes))
    tokens = torch.cat([_tokens(part) for part in separate])
    _require_same(name, "one by one", tokens, scores.tokens)


def _check_tokens(name: str, tokens: Tensor | None, groups: Sequence[Group]) -> None:
    if tokens is None:
        return
    require(
        all(group.response_ids and None not in group.response_ids for group in groups),
        f"{name} scores tokens, and the groups have none; give check_reward groups with response_ids",
    )
    count = sum(_token_counts(groups))
    require(
        tokens.shape == (count,),
        f"{name} returns {list(tokens.shape)} scores of tokens for {count} tokens; return one for each, of all "
        "responses in order",
    )
    _check_part(f"{name} returns scores of tokens", tokens)


def _check_missing_columns(name: str, reward: Reward, groups: Sequence[Group]) -> None:
    """Fail if a row without other columns ends in an error that is not ours, nor a ValueError; it may have a score."""
    if not any(group.extra for group in groups):
        return
    bare = groups[0]._replace(extra={}, source="a row without its columns")
    try:
        reward([bare])
    except (LitAlignError, ValueError):
        return
    except Exception as error:
        raise AssertionError(
            f"{name} fails at a row without its columns: {describe_exception(error)}; raise a DataError that names the "
            "row's source and the column"
        ) from error


def _token_counts(groups: Sequence[Group]) -> list[int]:
    return [sum(len(ids or ()) for ids in group.response_ids) for group in groups]


def _tokens(scores: Scores) -> Tensor:
    return torch.empty(0) if scores.tokens is None else scores.tokens


def _shown(scores: Scores) -> Tensor:
    """Totals, with NaN for a response that is not scored."""
    if scores.scored is None:
        return scores.total
    return scores.total.where(scores.scored, float("nan"))


def _check_part(returned: str, values: Tensor) -> None:
    require(values.dtype == torch.float32, f"{returned} in {values.dtype}, not in float32")
    require(bool(values.isfinite().all()), f"{returned} {values.tolist()}, not all finite")
    require(not values.requires_grad, f"{returned} with a gradient")


def _reversed(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Values for the groups in reverse order; within a group they stay in order."""
    by_group = torch.split(values, list(sizes))
    return torch.cat(by_group[::-1])


def _require_same(name: str, condition: str, actual: Tensor, expected: Tensor) -> None:
    is_same = actual.shape == expected.shape and torch.allclose(
        actual, expected, rtol=1e-4, atol=1e-5, equal_nan=True
    )
    require(
        is_same,
        f"{name} returns {actual.tolist()} {condition}, and {expected.tolist()} in the first call",
    )
