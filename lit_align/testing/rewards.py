"""Check of what every reward must satisfy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.plugin_contracts import scores_fault
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
    must name them in ``wrapped``.

    Args:
        reward: with the settings to check it at.
        groups: what to score; with other columns in ``extra`` if it needs them.

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
    scores = call(reward, reward, groups)
    num_responses = sum(len(group.responses) for group in groups)
    hold(scores_fault(reward, scores, num_responses))
    if scores.scored is not None:  # what is not scored has no number
        scores = scores._replace(total=scores.total.where(scores.scored, 0.0))
    _check_part(f"{name} returns total", scores.total)
    for part, values in scores.parts.items():
        _check_part(f"{name} returns {part}", values)
    require(repr(groups) == groups_before, f"{name} changes the groups it is given")

    total = _shown(scores)
    _require_same(name, "in a second call", _shown(reward(groups)), total)
    expected = _reverse_groups(total, groups)
    _require_same(name, "in another order", _shown(reward(groups[::-1])), expected)
    separate = [_shown(reward([group])) for group in groups]
    _require_same(name, "one by one", torch.cat(separate), total)


def _shown(scores: Scores) -> Tensor:
    """Totals, with NaN for a response that is not scored."""
    if scores.scored is None:
        return scores.total
    return scores.total.where(scores.scored, float("nan"))


def _check_part(returned: str, values: Tensor) -> None:
    require(values.dtype == torch.float32, f"{returned} in {values.dtype}, not in float32")
    require(bool(values.isfinite().all()), f"{returned} {values.tolist()}, not all finite")
    require(not values.requires_grad, f"{returned} with a gradient")


def _reverse_groups(total: Tensor, groups: Sequence[Group]) -> Tensor:
    """Scores for the groups in reverse order; within a group they stay in order."""
    sizes = [len(group.responses) for group in groups]
    by_group = torch.split(total, sizes)
    return torch.cat(by_group[::-1])


def _require_same(name: str, condition: str, actual: Tensor, expected: Tensor) -> None:
    is_same = actual.shape == expected.shape and torch.allclose(
        actual, expected, rtol=1e-4, atol=1e-5, equal_nan=True
    )
    require(
        is_same,
        f"{name} returns {actual.tolist()} {condition}, and {expected.tolist()} in the first call",
    )
