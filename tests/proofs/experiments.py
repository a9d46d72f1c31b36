"""What small experiments have in common: a quiet trainer, a model of words, figures of one seed after another."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Run = dict[str, Any]
"""The figures of a seed, which it names."""

QUIET = {
    "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False,
    "accelerator": "cpu",
}  # fmt: skip
"""Settings of a trainer that prints and keeps nothing."""


def measure_seeds(
    file: Path,
    seeds: Iterable[int],
    learn: Callable[[int], Run],
    draw: Callable[[list[Run]], None],
    **settings: Any,
) -> None:
    """Write the figures and the plot after each seed; those of other seeds stay.

    Args:
        file: of the figures.
        seeds: to measure.
        learn: measures one.
        draw: plots all that are in the file.
        settings: that are written beside the runs.
    """
    for seed in seeds:
        run = learn(seed)
        print(json.dumps(run), flush=True)
        earlier = json.loads(file.read_text())["runs"] if file.exists() else []
        runs = [each for each in earlier if each["seed"] != seed] + [run]
        runs.sort(key=lambda each: each["seed"])
        file.write_text(json.dumps({**settings, "runs": runs}, indent=1) + "\n")
        draw(runs)


def untrained_llama(
    folder: Path, words: Sequence[str], seed: int, positions: int, **settings: Any
) -> LlamaForCausalLM:
    """A random Llama of two layers over words, whose tokenizer is written into ``folder``.

    Args:
        folder: of the tokenizer, and later of the model.
        words: the language; the last is the end.
        seed: of the weights, and of what torch draws next.
        positions: that the model has.
        settings: others of its configuration.
    """
    end = words[-1]
    tokenizer = Tokenizer(
        models.WordLevel({word: k for k, word in enumerate(words)}, unk_token=end)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end)
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, eos_token_id=len(words) - 1, bos_token_id=None, max_position_embeddings=positions,
        **settings,
    )  # fmt: skip
    return LlamaForCausalLM(config)
