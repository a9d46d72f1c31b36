#!/bin/sh
# transformers 5.23.0, torch 2.13.0 (CPU).
# A loop that decodes with any causal language model passes its cache as past_key_values; Mamba calls the argument
# cache_params.
# Expected: the one name works for all, or a TypeError about the other.
# Seen: Mamba takes past_key_values among its further keyword arguments and drops it. Nothing is raised and nothing is
# logged; each token is read as if it were the first, so the logits are exactly those of the token alone.
# Source: transformers/models/mamba/modeling_mamba.py, forward and its **kwargs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0
env/bin/python - <<'PY'
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

torch.manual_seed(0)
sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
models = {
    "llama": LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, intermediate_size=64)),
    "mamba": MambaForCausalLM(MambaConfig(**sizes, state_size=4)),
}
ids = torch.randint(0, 64, (1, 6))


def apart(model, name):
    """Logits of the last token with the tokens before it in a cache, against those of one pass over all."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids[:, :-1], **{name: cache}, use_cache=True)
        last = model(ids[:, -1:], **{name: cache}, use_cache=True).logits[:, -1]
        whole = model(ids).logits[:, -1]
        alone = model(ids[:, -1:]).logits[:, -1]
    return (last - whole).abs().max().item(), (last - alone).abs().max().item()


figures = {
    "llama, past_key_values": apart(models["llama"].eval(), "past_key_values"),
    "mamba, past_key_values": apart(models["mamba"].eval(), "past_key_values"),
    "mamba, cache_params": apart(models["mamba"].eval(), "cache_params"),
}
for what, (whole, alone) in figures.items():
    print(f"{what}: apart from one pass over all tokens {whole:.1e}, from the last token alone {alone:.1e}")
assert figures["llama, past_key_values"][0] < 1e-5
assert figures["mamba, cache_params"][0] < 1e-5
whole, alone = figures["mamba, past_key_values"]
assert whole > 0.1
assert alone == 0.0
PY
