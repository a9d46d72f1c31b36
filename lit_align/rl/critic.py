"""Value function (critic): predicts the return of a partial response (Schulman et al., 2017, https://arxiv.org/abs/1707.06347)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_align.errors import ModelError
from lit_align.jsonl import read_json
from lit_align.models.adapter_files import load_adapter, lora_settings
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.heads import ScoreHead
from lit_align.models.load import tokenizer_fingerprint

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


@dataclass
class Critic:
    """Value function; an adapter with a value head on the policy's base model.

    Args:
        vf_coef: weight of the value loss, half the squared error of a token, beside the policy loss.
        clip: how far a value may move from its old one before the loss is clipped; null clips nothing.
        lr: learning rate; null takes the policy's.
        init_from: the ``adapter`` of a RewardModel run on the same base, whose score of a partial response is the
            initial value; null starts from a zero value head.
    """

    vf_coef: float = 1.0
    clip: float | None = 0.2
    lr: float | None = None
    init_from: str | None = None

    def initialize(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        """Set the initial weights of the adapter ``critic`` and its head.

        Raises:
            ModelError: if the reward model has another tokenizer or other LoRA settings.
        """
        head = adapters.head("critic")
        head.weight.data.zero_()
        if self.init_from is None:
            return
        reward_head = ScoreHead.load(self.init_from)
        self._check_provenance(self.init_from, adapters, tokenizer)
        load_adapter(adapters, self.init_from, "critic")
        # A reward model combines and normalizes its scores; both are linear and go into the weights.
        weight = reward_head.combine @ reward_head.weight
        bias = reward_head.combine @ reward_head.bias - reward_head.mean
        head.weight.data.copy_(weight[None] / reward_head.scale)
        head.bias.data.copy_(bias[None] / reward_head.scale)

    def parameter_groups(self, groups: list[list[nn.Parameter]]) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer: the policy's, and the critic's with its own learning rate."""
        options = {} if self.lr is None else {"lr": self.lr}
        policy, *critic = groups
        return [{"params": policy}, *({"params": group, **options} for group in critic)]

    def losses(self, values: Tensor, old_values: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
        """Value loss of each token, ``[n]``, and whether clipping decided it, ``[n]``.

        Args:
            values: values under the critic that is being trained, ``[n]``.
            old_values: values when the tokens were sampled, ``[n]``.
            returns: targets, ``[n]``.

        Example:
            The value moved from 0 to 0.5 and the return is 1; the loss sees it clipped to 0.2.

            >>> Critic(clip=0.2).losses(torch.tensor([0.5]), torch.tensor([0.0]), torch.tensor([1.0]))
            (tensor([0.3200]), tensor([True]))
        """
        clipped_values = values
        if self.clip is not None:
            moves = values - old_values
            limit = old_values + moves.clamp(-self.clip, self.clip)
            # a value that is not clipped is no sum, whose rounding would count as clipping
            clipped_values = torch.where(moves.abs() > self.clip, limit, values)
        squared_errors = (values - returns).square()
        clipped_errors = (clipped_values - returns).square()
        return 0.5 * torch.maximum(squared_errors, clipped_errors), clipped_errors > squared_errors

    @staticmethod
    def _check_provenance(
        folder: str, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        provenance = read_json(Path(folder).expanduser() / "provenance.json")
        if provenance.get("tokenizer") != tokenizer_fingerprint(tokenizer):
            raise ModelError(
                f"the reward model in {folder!r} was trained with another tokenizer or chat template than "
                f"{adapters.base!r} has here; name one with the same tokenizer, or set critic.init_from to null"
            )
        critic_lora = lora_settings(adapters, "critic")
        if critic_lora != provenance.get("lora"):
            raise ModelError(
                f"the reward model in {folder!r} has the adapter {provenance.get('lora')} and the critic "
                f"{critic_lora}; set lora to the former"
            )
