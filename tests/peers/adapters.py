"""Adapters of others' making: by PEFT alone, and by trainers of TRL."""

import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from lit_align.models.adapter_set import AdapterSet
from lit_align.models.load import Base, load_model
from lit_align.models.lora import Lora
from tests import families

IDS = torch.arange(5, 25)[None]
LORA = Lora(r=4, alpha=16)


def base_folder(family, at):
    folder = at / family
    if not folder.exists():
        families.build(family).save_pretrained(folder)
    return folder


def from_peft(base, folder, **settings):
    """Write an adapter that PEFT has put on the base and that changes it; returns its logits."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = {"target_modules": "all-linear", **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=4, lora_alpha=16, task_type="CAUSAL_LM", **settings)
        peft = get_peft_model(model, config).eval()
        shake(weight for weight in peft.parameters() if weight.requires_grad)
        peft.save_pretrained(folder)
    return logits(peft)


def shake(parameters):
    """Adapters start as no change at all; make them one."""
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def in_peft(base, folder):
    """The logits of a saved adapter in PEFT."""
    model = AutoModelForCausalLM.from_pretrained(base)
    return logits(PeftModel.from_pretrained(model, str(folder)).eval())


def start(base, folder=None, quantization="none", **settings):
    """Our adapters on a base, from a saved one or from nothing."""
    model = load_model(Base(str(base), quantization, "float32"), torch.device("cpu"))
    lora = Lora(**{"r": 4, "alpha": 16, **settings})
    return AdapterSet(model, lora, init_adapter=folder, gradient_checkpointing=False)


def trained(base, quantization="none", **settings):
    """Our adapters as if they had been trained."""
    adapters = start(base, None, quantization, **settings)
    shake(adapters.trainable().values())
    return adapters


def policy_logits(adapters):
    with adapters.activate("policy", training=False) as model:
        return logits(model)
