"""What expects how much reward is to come (Schulman et al., 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_align.errors import ModelError
from lit_align.models.adapter_files import load_adapter, lora_settings
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.heads import ScoreHead
from lit_align.models.load import tokenizer_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Critic:
    """What expects how much reward is to come; an adapter and a head of its own.

    Args:
        vf_coef: of its loss beside the policy's; half the squared error a token.
        clip: how far an expectation may move in one iteration; null lets it.
        lr: learning rate; null takes the policy's.
        init_from: the ``adapter`` of a RewardModel run on the same base, whose score of what was said so far is the first
            expectation; null begins by expecting nothing.
    """

    vf_coef: float = 1.0
    clip: float | None = 0.2
    lr: float | None = None
    init_from: str | None = None

    def begin(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        """Give the role ``critic`` its first weights.

        Raises:
            ModelError: if a reward model reads other tokens, or its adapter is of another make.
        """
        head = adapters.head("critic")
        head.weight.data.zero_()
        if self.init_from is None:
            return
        scores, record = (
            ScoreHead.load(self.init_from),
            Path(self.init_from).expanduser() / "provenance.json",
        )
        wrote = json.loads(record.read_text("utf-8"))
        if wrote.get("tokenizer") != tokenizer_fingerprint(tokenizer):
            raise ModelError(
                f"the reward model in {self.init_from!r} was trained with another tokenizer or chat template than "
                f"{adapters.base!r} has here; give one that reads the same tokens, or set critic.start to null"
            )
        if (mine := lora_settings(adapters, "critic")) != wrote.get("lora"):
            raise ModelError(
                f"the reward model in {self.init_from!r} has the adapter {wrote.get('lora')} and the critic {mine}; "
                "set lora to the former"
            )
        load_adapter(adapters, self.init_from, "critic")
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
