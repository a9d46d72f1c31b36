#!/bin/sh
# transformers 5.23.0, torch 2.13.0 (CPU).
# Falcon-H1 has attention and a recurrent state in each layer. Sampling several responses to each prompt is done by
# prefilling once and repeating the rows of the cache, cache.batch_repeat_interleave(n).
# Expected: all of a layer's state has n times the rows, or an error says that this cache cannot be repeated.
# Seen: keys and values are repeated, convolution and recurrent states are not, and there is no error until the next
# token, where sizes of rows differ.
# Source: transformers/cache_utils.py, batch_repeat_interleave of a layer with both kinds of state.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0
env/bin/python - <<'PY'
import torch
from transformers import DynamicCache, FalconH1Config, FalconH1ForCausalLM

torch.manual_seed(0)
config = FalconH1Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    mamba_d_ssm=64,
    mamba_n_heads=4,
    mamba_d_head=16,
    mamba_d_state=8,
)
model = FalconH1ForCausalLM(config).eval()
ids = torch.randint(0, 64, (2, 5))
with torch.no_grad():
    cache = model(ids, past_key_values=DynamicCache(config=config), use_cache=True).past_key_values
cache.batch_repeat_interleave(2)
layer = cache.layers[0]
rows = {}
for name, value in vars(layer).items():
    if isinstance(value, torch.Tensor) and value.dim() > 1:
        rows[name] = value.shape[0]
    elif isinstance(value, dict):
        rows[name] = [part.shape[0] for part in value.values() if isinstance(part, torch.Tensor)]
try:
    with torch.no_grad():
        model(ids[:, :1].repeat_interleave(2, 0), past_key_values=cache, use_cache=True)
except RuntimeError as error:
    answer = str(error).splitlines()[0]
else:
    answer = "computed"
print(type(layer).__name__, rows, answer)
assert rows["keys"] == 4 and any(value in (2, [2]) for value in rows.values())
assert answer != "computed"
PY
