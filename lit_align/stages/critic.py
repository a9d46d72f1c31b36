"""What expects how much reward is to come (Schulman et al., 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_align.errors import ModelError
from lit_align.models.heads import ScoreHead
from lit_align.models.load import tokenizer_fingerprint
from lit_align.models.roles import Roles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Critic:
    """What expects how much reward is to come; an adapter and a head of its own.

    Args:
        weight: of its loss beside the policy's; half the squared error a token.
        clip: how far an expectation may move in one iteration; null lets it.
        lr: learning rate; null takes the policy's.
        start: the ``adapter`` of a RewardModel run on the same base, whose score of what was said so far is the first
            expectation; null begins by expecting nothing.
    """

    weight: float = 1.0
    clip: float | None = 0.2
    lr: float | None = None
    start: str | None = None

    def begin(self, roles: Roles, tokenizer: PreTrainedTokenizerBase) -> None:
        """Give the role ``critic`` its first weights.

        Raises:
            ModelError: if a reward model reads other tokens, or its adapter is of another make.
        """
        head = roles.head("critic")
        head.weight.data.zero_()
        if self.start is None:
            return
        scores, record = ScoreHead.load(self.start), Path(self.start).expanduser() / "provenance.json"
        wrote = json.loads(record.read_text("utf-8"))
        if wrote.get("tokenizer") != tokenizer_fingerprint(tokenizer):
            raise ModelError(
                f"the reward model in {self.start!r} was trained with another tokenizer or chat template than "
                f"{roles.base!r} has here; give one that reads the same tokens, or set critic.start to null"
            )
        if (mine := roles.settings("critic")) != wrote.get("lora"):
            raise ModelError(
                f"the reward model in {self.start!r} has the adapter {wrote.get('lora')} and the critic {mine}; "
                "set lora to the former"
            )
        roles.load(self.start, "critic")
        # The score that a reward gives is one number, normalised; all of that is linear and goes into the weights.
        head.weight.data.copy_((scores.combine @ scores.weight)[None] / scores.scale)
        head.bias.data.copy_((scores.combine @ scores.bias - scores.mean)[None] / scores.scale)

    def losses(self, values: Tensor, before: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
        """Half the squared error of each token, ``[n]``, and whether the clip decided it.

        Args:
            values: what it expects now, ``[n]``.
            before: what it expected when the tokens were sampled.
            returns: what was right.

        Example:
            Right is 1; it went from 0 to 0.5 and may go to 0.2.

            >>> Critic(clip=0.2).losses(torch.tensor([0.5]), torch.tensor([0.0]), torch.tensor([1.0]))
            (tensor([0.3200]), tensor([True]))
        """
        held = values
        if self.clip is not None:
            held = before + (values - before).clamp(-self.clip, self.clip)
        free, clipped = ((one - returns).square() for one in (values, held))
        return 0.5 * torch.maximum(free, clipped), clipped > free
