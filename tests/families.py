"""Random two-layer models of many families of transformers, by the names of their configurations."""

import warnings

import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM

from tests import architectures

VOCABULARY = 264
SIZE = {
    **architectures.SIZE,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 1,
}
HEADS, MIXED = architectures.HEADS, architectures.MIXED
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
ROUTED = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
STATE = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

DENSE = {
    "Llama": SIZE,
    "Mistral": {**SIZE, "sliding_window": 6},
    "Qwen2": SIZE,
    "Qwen3": {**SIZE, **HEADS},
    "Gemma2": {**SIZE, **HEADS, **MIXED, "final_logit_softcapping": 2.0},
    "Gemma3Text": {**SIZE, **HEADS, **MIXED},
    "Phi": SIZE,
    "Phi3": SIZE,
    "Granite": {**SIZE, "logits_scaling": 4.0},
    "Olmo2": SIZE,
    "Olmo3": {**SIZE, **MIXED},
    "SmolLM3": SIZE,
    "Cohere2": {**SIZE, **MIXED},
    "Glm4": {**SIZE, **HEADS},
    "GPT2": {
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 512,
        "bos_token_id": None,
        "eos_token_id": 1,
    },
}
MIXTURES = {
    "Qwen3Moe": {**SIZE, **HEADS, **EXPERTS, "mlp_only_layers": [0]},
    "DeepseekV3": {**SIZE, **LATENT, **ROUTED},
    "Glm4Moe": {**SIZE, **HEADS, **ROUTED},
    "GptOss": {**SIZE, **HEADS, **MIXED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Mixtral": {**SIZE, "num_local_experts": 4},
    "Olmoe": {**SIZE, "num_experts": 4, "num_experts_per_tok": 2},
    "GraniteMoe": {**SIZE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Llama4Text": {
        **SIZE,
        **HEADS,
        "intermediate_size_mlp": 48,
        "num_local_experts": 4,
        "attention_chunk_size": 64,
        "interleave_moe_layer_step": 2,
    },
    "Phimoe": {**SIZE, "num_local_experts": 4},
    "JetMoe": {**SIZE, "kv_channels": 8, "num_local_experts": 4, "num_key_value_heads": 4},
}
RECURRENT = {
    "Mamba": {**SIZE, "state_size": 4, "time_step_rank": 4},
    "Mamba2": {**SIZE, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "FalconMamba": {**SIZE, "state_size": 4, "time_step_rank": 4},
    "FalconH1": {**SIZE, **HEADS, **STATE, "mamba_d_ssm": 64},
    "Bamba": {**SIZE, **STATE, "attn_layer_indices": [1]},
    "Jamba": {
        **SIZE,
        "num_experts": 4,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 4,
        "use_mamba_kernels": False,
    },
    "Zamba2": {
        **SIZE,
        "layers_block_type": ["mamba", "hybrid"],
        "mamba_d_state": 8,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_ngroups": 1,
        "num_key_value_heads": 4,
        "attention_head_dim": 16,
        "num_mem_blocks": 1,
        "use_mamba_kernels": False,
    },
    "GraniteMoeHybrid": {
        **SIZE,
        **STATE,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
        "layer_types": ["mamba", "attention"],
    },
    "Qwen3Next": {
        **SIZE,
        **HEADS,
        **EXPERTS,
        **LINEAR_ATTENTION,
        "shared_expert_intermediate_size": 16,
    },
    "RecurrentGemma": {
        **SIZE,
        "lru_width": 32,
        "attention_window_size": 16,
        "block_types": ["recurrent", "attention"],
    },
    "Lfm2": {
        **SIZE,
        "layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False,
    },
}
ENCODERS = {
    "Bert": {**SIZE, "pad_token_id": 0},
    "ModernBert": {**SIZE, "pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2},
}
CAUSAL = {**DENSE, **MIXTURES, **RECURRENT}
FAMILIES = {**CAUSAL, **ENCODERS}


def config(family, **changes):
    """The configuration of a family."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, f"{family}Config")(**{**FAMILIES[family], **changes})


def build(family):
    """A model with weights large enough for an error to show."""
    auto_class = AutoModel if family in ENCODERS else AutoModelForCausalLM
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = auto_class.from_config(config(family)).float().eval()
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "A_log" not in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return model
