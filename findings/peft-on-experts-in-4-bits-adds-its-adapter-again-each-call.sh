#!/bin/sh
# peft 0.21.2, bitsandbytes 0.50.2, torch 2.13.0 (CPU).
# The stacked weights of experts are packed in 4 bits by bitsandbytes' replace_parameter_4bit, and PEFT adapts them by
# target_parameters, which it supports for weights that have a parametrization.
# Expected: a model in eval mode gives the same output each time it is called with the same input.
# Seen: PEFT looks for another class of its own than the one it has added, so the adapter stays behind after each call
# and the next call adds it once more: the output moves away by one whole adapter a call. A warning asks for an issue to
# be opened; nothing stops. With gradients on, the second call raises. With whole weights all calls are equal.
# Source: peft/tuners/lora/layer.py, _remove_parametrizations of ParamWrapper.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0 peft==0.21.2 bitsandbytes==0.50.2
env/bin/python - <<'PY'
import warnings

import torch
from bitsandbytes.nn.parametrize import replace_parameter_4bit
from peft import LoraConfig, get_peft_model
from torch import nn


class Experts(nn.Module):
    """Two experts, whose outputs are added."""

    def __init__(self):
        super().__init__()
        self.down = nn.Parameter(torch.randn(2, 64, 64))

    def forward(self, states):
        return torch.einsum("ni,eoi->no", states, self.down)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = Experts()

    def forward(self, states):
        return self.experts(states)


def outputs(in_4_bits):
    torch.manual_seed(0)
    model = nn.Sequential(Block())
    if in_4_bits:
        replace_parameter_4bit(model[0].experts, "down", quant_type="nf4")
    config = LoraConfig(r=4, target_modules=[], target_parameters=["0.experts.down"])
    adapted = get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.1)
    states = torch.randn(3, 64)
    with torch.no_grad():
        calls = [adapted(states) for _ in range(4)]
        with adapted.disable_adapter():
            base = adapted(states)
    return [(call - calls[0]).abs().max().item() for call in calls], (base - calls[0]).norm().item()


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    whole, packed = outputs(False), outputs(True)
print("whole: change of four equal calls", whole[0])
print("4 bits: change of four equal calls", [round(value, 2) for value in packed[0]])
print("warnings:", sum("Could not find any LoRA parametrization" in str(w.message) for w in caught))
assert whole[0] == [0.0] * 4
assert packed[0][0] == 0.0
assert 0.1 < packed[0][1] < packed[0][2] < packed[0][3]
PY
