"""Two-layer random models of many architectures, with weights large enough for an error to show."""

import warnings

import torch
import transformers
from transformers import AutoModelForCausalLM

from tests.strategies import VOCABULARY

SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
HEADS = {"head_dim": 8}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6}

ARCHITECTURES = {
    "Llama": ("Llama", SIZE),
    "Llama, tied": ("Llama", {**SIZE, "tie_word_embeddings": True}),
    "Qwen2, one layer windowed": (
        "Qwen2",
        {**SIZE, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "Qwen3": ("Qwen3", {**SIZE, **HEADS}),
    "Gemma2": (
        "Gemma2",
        {**SIZE, **HEADS, **MIXED, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0},
    ),
    "Gemma3": ("Gemma3Text", {**SIZE, **HEADS, **MIXED}),
    "Mistral": ("Mistral", {**SIZE, "sliding_window": None}),
    "Mistral, windowed": ("Mistral", {**SIZE, "sliding_window": 6}),
    "Mixtral, windowed": ("Mixtral", {**SIZE, "sliding_window": 6, "num_local_experts": 2}),
    "Phi, biased head": ("Phi", SIZE),
    "Granite": ("Granite", {**SIZE, "logits_scaling": 4.0}),
    "Cohere": ("Cohere", {**SIZE, "logit_scale": 0.25}),
    "HyperCLOVAX": ("HyperCLOVAX", {**SIZE, "logits_scaling": 4.0}),
    "GPT-2": (
        "GPT2",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "OPT": (
        "OPT",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    "MPT": (
        "Mpt",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    ),
    "Bloom": ("Bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "LFM2": (
        "Lfm2",
        {**SIZE, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    ),
    "Mamba": (
        "Mamba",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
    "Qwen3-Next": (
        "Qwen3Next",
        {
            **SIZE,
            **HEADS,
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
}


def build(name, attention=None, **changes):
    """The model called ``name``, in eval mode; ``attention`` None lets transformers choose."""
    family, settings = ARCHITECTURES[name]
    options = {} if attention is None else {"attn_implementation": attention}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(**{**settings, **changes})
        model = AutoModelForCausalLM.from_config(config, **options).float().eval()
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() > 1 or "norm" not in parameter_name:
                torch.nn.init.normal_(parameter, std=0.13)
    return model
