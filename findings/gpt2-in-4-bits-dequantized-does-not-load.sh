#!/bin/sh
# transformers 5.23.0, bitsandbytes 0.50.2, torch 2.13.0 (CPU).
# GPT-2 holds its weights in Conv1D layers, which are transposed linear layers. A GPT-2 in 4 bits is dequantized with
# model.dequantize() and saved, as one does before merging an adapter.
# Expected: the saved folder loads again and computes what the dequantized model does.
# Seen: dequantize() puts nn.Linear in place of every Conv1D, so the saved weights are transposed; from_pretrained
# refuses those whose shape differs, and the square ones (attn.c_proj) would be loaded transposed without a word.
# Source: transformers/integrations/bitsandbytes.py, dequantize_and_replace.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0 bitsandbytes==0.50.2 accelerate
env/bin/python - <<'PY'
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
config = GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=96, n_positions=32)
GPT2LMHeadModel(config).save_pretrained("base")
settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained("base", quantization_config=settings, dtype=torch.float32)
model.dequantize(dtype=torch.float32)
layer = model.transformer.h[0].mlp.c_fc
square = model.transformer.h[0].attn.c_proj.weight.detach().clone()
ids = torch.arange(8)[None]
expected = model(ids).logits
model.save_pretrained("dequantized")
try:
    AutoModelForCausalLM.from_pretrained("dequantized", dtype=torch.float32)
except (RuntimeError, ValueError) as error:
    answer = type(error).__name__
else:
    answer = "loaded"
again = AutoModelForCausalLM.from_pretrained("dequantized", dtype=torch.float32, ignore_mismatched_sizes=True)
same = torch.equal(again.transformer.h[0].attn.c_proj.weight, square)
original = GPT2LMHeadModel.from_pretrained("base").transformer.h[0].attn.c_proj.weight
error = (square - original).abs().max().item(), (square.T - original).abs().max().item()
print(type(layer).__name__, tuple(layer.weight.shape), answer, "square read as saved:", same, "error", error)
assert type(layer).__name__ == "Linear" and tuple(layer.weight.shape) == (256, 64)
assert answer != "loaded"
assert same and error[1] < error[0]  # it is the transpose that is near the original
PY
