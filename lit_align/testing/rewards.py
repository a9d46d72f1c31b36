"""What every reward must satisfy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lit_align.rewards import Reward
from lit_align.testing.objective_checks import require
from lit_align.types import Group

TURN = [{"role": "user", "content": "Name a bird."}]
GROUPS = (
    Group(
        TURN,
        [
            [{"role": "assistant", "content": one}]
            for one in ("An owl.", "I don't know.", "A bird? " * 40)
        ],
    ),
    Group(TURN, [[{"role": "assistant", "content": "🦉 بومة\n<b>owl</b>"}]]),
)


def check_reward(reward: Reward, groups: Sequence[Group] = GROUPS) -> None:
    """Fail unless ``reward`` gives each response one finite score that depends on nothing else.

    It must be the same when asked again, when groups come in another order and when a group comes alone, which
    on-line training relies on; parts must be scores too; and what it is given must stay as it was.

    Args:
        reward: with the settings to check it at.
        groups: what to score; with other columns in ``extra`` if it needs them.

    Raises:
        AssertionError: if a promise is broken.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> check_reward(Length(most=20))
    """
    name, before = type(reward).__name__, repr(groups)
    scores, count = reward(groups), sum(len(group.responses) for group in groups)
    for part, values in {"total": scores.total, **scores.parts}.items():
        require(
            values.shape == (count,),
            f"{name} gives {part} of shape {list(values.shape)} for {count} responses",
        )
        require(
            values.dtype == torch.float32, f"{name} gives {part} in {values.dtype}, not in float32"
        )
        require(
            bool(values.isfinite().all()), f"{name} gives {part} {values.tolist()}, not all finite"
        )
        require(not values.requires_grad, f"{name} gives {part} with a gradient")
    require(repr(groups) == before, f"{name} changes the groups it is given")
    _same(name, "asked again", reward(groups).total, scores.total)
    _same(name, "in another order", reward(groups[::-1]).total, _reversed(scores.total, groups))
    _same(name, "one by one", torch.cat([reward([group]).total for group in groups]), scores.total)


def _reversed(total: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
    return torch.cat(torch.split(total, [len(group.responses) for group in groups])[::-1])


def _same(name: str, how: str, now: torch.Tensor, before: torch.Tensor) -> None:
    alike = now.shape == before.shape and torch.allclose(now, before, rtol=1e-4, atol=1e-5)
    require(
        alike, f"{name} gives {now.tolist()} when groups come {how}, and gave {before.tolist()}"
    )
