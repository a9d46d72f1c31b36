"""A reward model as a folder for ``AutoModelForSequenceClassification``: one score, in the weights of one model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from lit_align.errors import ModelError
from lit_align.models.heads import ScoreHead
from lit_align.models.merging import merge_weights
from lit_align.models.stop_ids import stop_ids

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase
    from lit_align.models.adapter_set import AdapterSet

PAD_TOKEN = "<|pad|>"


class Classifier(NamedTuple):
    """A reward model in transformers' own class.

    Args:
        model: whose logit is the score less ``offset``.
        offset: what the class has no place for: its head has no bias. 0 where the last norm has one.
    """

    model: PreTrainedModel
    offset: float


@torch.no_grad()
def to_classifier(
    adapters: AdapterSet, role: str, tokenizer: PreTrainedTokenizerBase
) -> Classifier:
    r"""The base with ``role`` merged into it under a head that gives its normalised score.

    The head's weights are :math:`c^\top W / \sigma`. The bias, :math:`(c^\top b - \mu) / \sigma`, goes into that of the
    last layer norm, as the multiple of the head's weights whose product with them it is. RMS norms have no bias, and no
    other weight adds a constant; it is then the offset, which changes no comparison of two scores.

    Args:
        adapters: cannot be used afterwards.
        role: with a score head.
        tokenizer: gets a padding token that no text ends with; the class reads the last token that is no padding.

    Raises:
        ModelError: if transformers has no such class for this architecture.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    head = adapters.head(role)
    merged = merge_weights(adapters, role)
    config: Any = copy.deepcopy(merged.config)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"transformers has no sequence classification for {config.model_type}, so {adapters.base!r} cannot be "
            "written as one; export the adapter, which lit-align loads with its head"
        )
    config.num_labels = 1
    config.id2label, config.label2id = {0: "score"}, {"score": 0}
    model_class: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with torch.device("meta"):  # its weights are those of the merged model
        classifier: Any = model_class(config)
    if not isinstance(getattr(classifier, "score", None), nn.Linear):
        raise ModelError(
            f"the {model_class.__name__} of transformers has no linear head called score; export the adapter, which "
            "lit-align loads with its head"
        )
    body: Any = merged.base_model
    body_class: Any = MODEL_MAPPING[type(config)]
    if type(body) is not body_class:
        raise ModelError(
            f"the {model_class.__name__} of transformers has another body than {type(merged).__name__}; export the "
            "adapter, which lit-align loads with its head"
        )
    setattr(classifier, classifier.base_model_prefix, body)
    offset = _set_head(classifier, head, body)
    stops = set(stop_ids(merged, tokenizer))
    _set_padding(classifier, tokenizer, stops)
    classifier.config.score_offset = offset
    return Classifier(classifier.eval(), offset)


@torch.no_grad()
def _set_head(classifier: Any, head: ScoreHead, body: nn.Module) -> float:
    """Fold combination and normalisation into head and last norm; returns the constant that is left over."""
    weight = (head.combine @ head.weight) / head.scale
    constant = ((head.combine @ head.bias - head.mean) / head.scale).item()
    dtype = next(body.parameters()).dtype
    score = nn.Linear(len(weight), 1, bias=classifier.score.bias is not None, dtype=dtype)
    score.to(weight.device).weight.copy_(weight[None])
    classifier.score = score
    norm_bias = _last_norm_bias(body, len(weight))
    if score.bias is not None:
        score.bias.fill_(constant)
    elif norm_bias is not None and weight.square().sum() > 0:
        norm_bias += constant * weight / weight.square().sum()
    else:
        return constant
    return 0.0


def _last_norm_bias(body: nn.Module, width: int) -> torch.Tensor | None:
    """The bias of the norm behind the last layer, if it is a layer norm that has one."""
    children = list(body.children())
    layers = [index for index, child in enumerate(children) if isinstance(child, nn.ModuleList)]
    for child in children[layers[-1] + 1 :] if layers else []:
        if isinstance(child, nn.LayerNorm) and child.bias is not None and len(child.bias) == width:
            return child.bias
    return None


def _set_padding(classifier: Any, tokenizer: PreTrainedTokenizerBase, stops: set[int]) -> None:
    """Pad with a token that ends no text."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in stops:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    if len(tokenizer) > classifier.get_input_embeddings().num_embeddings:
        classifier.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tokenizer.padding_side = "right"
    classifier.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    classifier.config.pad_token_id = tokenizer.pad_token_id
