"""A role as a model of its own: the adapter merged into whole weights, and by how much that changes what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lit_align.errors import ModelError
from lit_align.models.atomic_folder import whole_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet

TEXTS = (
    "The boat left the harbour at six, and by noon nobody on the pier could see it any more.",
    "Q: How many legs has a spider?\nA: Eight. An insect has six.",
    "def area(radius):\n    return 3.141592653589793 * radius ** 2\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 質問に短く答えてください。",
)


class Merged(NamedTuple):
    """What a merge cost, over every token of the sample texts.

    Args:
        largest: greatest difference of a logit.
        mean: mean absolute difference of the logits.
        kl: mean KL divergence from what was trained to what is written, in nats a token.
        same_first: share of tokens at which the likeliest next one is the same.
    """

    largest: float
    mean: float
    kl: float
    same_first: float

    @classmethod
    def of(cls, trained: list[Tensor], merged: list[Tensor]) -> Merged:
        """From the logits of each text, ``[tokens, vocabulary]``.

        Example:
            >>> Merged.of([torch.zeros(1, 2)], [torch.tensor([[0.0, 0.5]])]).largest
            0.5
        """
        before, after = torch.cat(trained).float(), torch.cat(merged).float()
        off = (before - after).abs()
        kl = nn.functional.kl_div(
            after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="none"
        )
        same = (before.argmax(-1) == after.argmax(-1)).float()
        return cls(
            off.max().item(), off.mean().item(), kl.sum(-1).mean().item(), same.mean().item()
        )


@torch.no_grad()
def merge(
    adapters: AdapterSet, role: str, tokenizer: PreTrainedTokenizerBase, folder: Path, bound: float
) -> Merged:
    """Write ``role`` as whole weights with its tokenizer; the roles are used up.

    Weights in 4 bits are unpacked first and the adapter is added to those, not to the ones that were once packed: it
    has learned to correct them as they are.

    Args:
        roles: the base and its adapters.
        role: whom to write.
        tokenizer: goes with it.
        folder: where to; ``merge.json`` beside the weights says what the merge cost.
        bound: largest difference of a logit to accept, over the tokens of `TEXTS`.

    Raises:
        ModelError: if the merged model says something else; nothing is written then.
    """
    ids = [
        torch.tensor([tokenizer(text).input_ids], device=adapters.model.device) for text in TEXTS
    ]
    with adapters.activate(role, training=False) as model:
        trained = [model(input_ids=one).logits[0].float().cpu() for one in ids]
    whole = _merged(adapters, role)
    cost = Merged.of(trained, [whole(input_ids=one).logits[0].float().cpu() for one in ids])
    if not cost.largest <= bound:
        raise ModelError(
            f"the merged model differs from what was trained by {cost.largest:.3g} in a logit, over --bound {bound}"
            "; export the adapter alone, merge in float32 (--dtype float32), or raise --bound"
        )
    with whole_folder(folder) as made:
        whole.save_pretrained(made)
        tokenizer.save_pretrained(made)
        record = {
            "base": adapters.base,
            "role": role,
            "bound": bound,
            **cost._asdict(),
            "texts": TEXTS,
        }
        (made / "merge.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return cost


def _merged(adapters: AdapterSet, role: str) -> PreTrainedModel:
    """The base with ``role`` inside its weights, all of them whole."""
    from peft.tuners.lora import LoraLayer

    with adapters.activate(role, training=False) as base:
        model: Any = base
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            plain = _whole(layer.get_base_layer(), model.dtype)
            if role in layer.lora_A:
                plain.weight += cast("Any", layer).get_delta_weight(role).to(plain.weight)
            model.set_submodule(name, plain)
    for name, layer in list(model.named_modules()):
        if type(layer).__name__ == "Linear4bit":
            model.set_submodule(name, _whole(layer, model.dtype))
    if hasattr(model.config, "quantization_config"):
        del (
            model.config.quantization_config
        )  # or it could not be saved, nor be loaded as what it is
    model.is_quantized, model.hf_quantizer, model._hf_peft_config_loaded = False, None, False
    made: PreTrainedModel = model
    return made


def _whole(layer: nn.Module, dtype: torch.dtype) -> nn.Linear:
    """A linear layer whose weights are numbers, not codes."""
    if type(layer).__name__ != "Linear4bit":
        if not isinstance(layer, nn.Linear):
            raise ModelError(
                f"an adapter on a {type(layer).__name__} cannot be merged here; export the adapter alone, and merge it "
                "with PEFT's merge_and_unload"
            )
        return layer
    from bitsandbytes.functional import dequantize_4bit

    packed: Any = layer.weight
    weight = dequantize_4bit(packed.data, packed.quant_state).to(dtype)
    plain = nn.Linear(
        weight.shape[1],
        weight.shape[0],
        bias=layer.bias is not None,
        device=weight.device,
        dtype=dtype,
    )
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.to(dtype), requires_grad=False)  # type: ignore[arg-type]
    return plain
