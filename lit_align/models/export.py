"""Export an adapter merged into the base's weights, with the error of the logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from lit_align.errors import ModelError
from lit_align.models.atomic_folder import atomic_folder
from lit_align.models.merging import merge_weights
from lit_align.models.stop_ids import stop_ids

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase
    from lit_align.models.adapter_set import AdapterSet

TEXTS = (
    "The boat left the harbour at six, and by noon nobody on the pier could see it any more.",
    "Q: How many legs has a spider?\nA: Eight. An insect has six.",
    "def area(radius):\n    return 3.141592653589793 * radius ** 2\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 質問に短く答えてください。",
)


class MergeDifference(NamedTuple):
    """Differences between the trained and the merged model, over every token of the sample texts.

    Args:
        largest: largest difference of a logit.
        mean: mean absolute difference of the logits.
        kl: mean KL divergence from the trained to the merged model, in nats per token.
        same_first: share of tokens at which the most probable next token is the same.
    """

    largest: float
    mean: float
    kl: float
    same_first: float

    @classmethod
    def from_logits(cls, trained: list[Tensor], merged: list[Tensor]) -> MergeDifference:
        """Compare the logits of each text, ``[tokens, vocabulary]``.

        Example:
            >>> MergeDifference.from_logits([torch.zeros(1, 2)], [torch.tensor([[0.0, 0.5]])]).largest
            0.5
        """
        trained_logits, merged_logits = torch.cat(trained).float(), torch.cat(merged).float()
        error = (trained_logits - merged_logits).abs()
        kl = nn.functional.kl_div(
            merged_logits.log_softmax(-1),
            trained_logits.log_softmax(-1),
            log_target=True,
            reduction="none",
        )
        same = trained_logits.argmax(-1) == merged_logits.argmax(-1)
        return cls(
            largest=error.max().item(),
            mean=error.mean().item(),
            kl=kl.sum(-1).mean().item(),
            same_first=same.float().mean().item(),
        )


@torch.no_grad()
def merge(
    adapters: AdapterSet,
    role: str,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    bound: float,
    write_more: Callable[[Path, PreTrainedModel], None],
) -> MergeDifference:
    """Write the base with ``role`` merged into it, and its tokenizer; ``adapters`` cannot be used afterwards.

    4-bit weights are dequantized and the adapter is added to those, not to the weights before quantization: it was
    trained to correct them as they are.

    Args:
        adapters: the base and its adapters.
        role: adapter to merge.
        tokenizer: saved with the model.
        folder: where to write; ``merge.json`` beside the weights records the error.
        bound: largest difference of a logit to accept, over the tokens of `TEXTS`.
        write_more: called with the folder and the merged model, to write further files.

    Raises:
        ModelError: if the difference is larger; nothing is written then.
    """
    device = adapters.model.device
    ids = [torch.tensor([tokenizer(text).input_ids], device=device) for text in TEXTS]
    with adapters.activate(role, training=False) as model:
        trained = [model(input_ids=text_ids).logits[0].float().cpu() for text_ids in ids]
    model = merge_weights(adapters, role)
    merged = [model(input_ids=text_ids).logits[0].float().cpu() for text_ids in ids]
    difference = MergeDifference.from_logits(trained, merged)
    if not difference.largest <= bound:
        raise ModelError(
            f"the merged model differs from what was trained by {difference.largest:.3g} in a logit, over --bound "
            f"{bound}; export the adapter alone, merge in float32 (--dtype float32), or raise --bound"
        )
    record = {"base": adapters.base, "role": role, "bound": bound, **difference._asdict()}
    record["texts"] = TEXTS
    _set_ends(model, tokenizer)
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "merge.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        write_more(temporary, model)
    return difference


def _set_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Generation stops where the training has ended turns; other programs read only the model's own settings."""
    ends = stop_ids(model, tokenizer)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
