"""Write a model of Llama's architecture as a GGUF file, which llama.cpp and Ollama run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPLITS: Mapping[str, tuple[str, ...]] = {
    "gpt-2": ("ByteLevel with words",),
    "smollm": ("Digits one by one", "ByteLevel with words"),
    "llama-bpe": (f"Split {LLAMA3_WORDS}", "ByteLevel"),
    "qwen2": (f"Split {LLAMA3_WORDS.replace('{1,3}', '')}", "ByteLevel"),
}
"""How text is split before BPE, by the name that llama.cpp has for it."""


def gguf_obstacle(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why a model cannot be written as GGUF here; None if it can."""
    config: Any = model.config
    if config.model_type != "llama":
        return f"only Llama's architecture is written here, and this one is {config.model_type}"
    rope = dict(config.rope_parameters or {})
    if rope.get("rope_type", "default") != "default":
        return f"its positions are scaled ({rope['rope_type']})"
    if config.attention_bias or config.mlp_bias:
        return "its linear layers have biases"
    if split_name(tokenizer) is None:
        return "its tokenizer splits text in a way that has no name here"
    return None


def split_name(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """llama.cpp's name of how a byte-level BPE tokenizer splits text; None for others."""
    content = _tokenizer_content(tokenizer)
    if content is None or content["model"].get("type") != "BPE" or content.get("normalizer"):
        return None
    splitter = content.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers", [splitter])
    described = tuple(_describe_split(step) for step in steps)
    for name, wanted in SPLITS.items():
        if described == wanted:
            return name
    return None


def _tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any] | None:
    """The content of tokenizer.json; None for tokenizers that have none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return None if backend is None else dict(json.loads(backend.to_str()))


def _describe_split(step: Mapping[str, Any]) -> str:
    kind = str(step.get("type", ""))
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return "ByteLevel with words" if step.get("use_regex", True) else "ByteLevel"
    if kind == "Digits" and step.get("individual_digits"):
        return "Digits one by one"
    if kind == "Split" and step.get("behavior") == "Isolated":
        return f"Split {step['pattern'].get('Regex')}"
    return kind


def write_gguf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Write weights, settings and tokenizer into one file.

    Args:
        model: merged, of Llama's architecture.
        tokenizer: a byte-level BPE.
        file: where to.

    Raises:
        ModelError: if `gguf_obstacle` finds one.
    """
    from gguf import GGUFWriter

    obstacle = gguf_obstacle(model, tokenizer)
    if obstacle is not None:
        raise ModelError(f"the model cannot be written as GGUF here: {obstacle}")
    writer = GGUFWriter(file, "llama")
    _add_settings(writer, model.config)
    _add_tokenizer(writer, tokenizer, int(model.config.vocab_size))
    for name, weight in _tensors(model):
        _add_tensor(writer, name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_settings(writer: GGUFWriter, config: Any) -> None:
    head_size = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    from gguf import TokenType

    content = _tokenizer_content(tokenizer) or {}
    texts = [f"[PAD{number}]" for number in range(size)]
    types = [TokenType.UNUSED] * size
    for token, number in tokenizer.get_vocab().items():
        texts[number], types[number] = token, TokenType.NORMAL
    for number, added in tokenizer.added_tokens_decoder.items():
        types[number] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    pairs = content["model"]["merges"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(split_name(tokenizer)))
    writer.add_token_list(texts)
    writer.add_token_types(types)
    if merges:
        writer.add_token_merges(merges)
    writer.add_eos_token_id(int(tokenizer.eos_token_id))
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(int(tokenizer.pad_token_id))
    bos = tokenizer.bos_token_id
    if bos is not None:
        writer.add_bos_token_id(int(bos))
    template = tokenizer.chat_template
    if isinstance(template, str):
        writer.add_chat_template(template)
    starts = _starts_with_bos(tokenizer)
    writer.add_add_bos_token(starts)


def _starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the model expects BOS before everything: the tokenizer adds it, or the template writes it."""
    bos = tokenizer.bos_token
    if bos is None:
        return False
    template = str(tokenizer.chat_template or "")
    writes_bos = "bos_token" in template or bos in template
    return writes_bos or tokenizer("a").input_ids[0] == tokenizer.bos_token_id


def _tensors(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """The weights by GGUF's names; queries and keys in the order in which llama.cpp rotates them."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config: Any = model.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tensors = []
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        written = names.get_name(name, try_suffixes=(".weight",))
        if written is None:
            raise ModelError(f"the weight {name!r} has no name in GGUF; convert with llama.cpp")
        layer = name.split(".")[-2]
        tensors.append((written, _pair_rows(weight, heads[layer]) if layer in heads else weight))
    return tensors


def _pair_rows(weight: Tensor, heads: int) -> Tensor:
    """Rows i and i + d/2 of each head next to each other: transformers rotates halves, llama.cpp neighbours."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)


def _add_tensor(writer: GGUFWriter, name: str, weight: Tensor) -> None:
    from gguf import GGMLQuantizationType

    weight = weight.detach().cpu().contiguous()
    if weight.dtype == torch.bfloat16 and weight.dim() > 1:
        data = weight.view(torch.uint8).numpy()
        writer.add_tensor(name, data, raw_dtype=GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, weight.float().numpy())
