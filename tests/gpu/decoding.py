"""Decoding: time of a token, against what reading weights and cache takes, and against transformers' generate."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from lit_align.models.adapter_set import AdapterSet
from lit_align.models.generate import sample
from lit_align.models.lora import Lora
from tests.gpu.ceilings import copy_bytes_per_second
from tests.gpu.options import KitOptions, peak_bytes, reset_peak, synchronize
from tests.gpu.random_weights import random_model
from tests.gpu.shapes import llama_config, word_tokenizer

BFLOAT16_BYTES = 2


class Decoder:
    """One batch of random prompts behind one model with an adapter.

    Args:
        options: device and size.
        shape: of the model.
    """

    def __init__(self, options: KitOptions, shape: str) -> None:
        self.device = options.device
        self.rows, self.prompt, self.new_tokens = (4, 8, 5) if options.tiny else (32, 512, 64)
        model: Any = random_model(llama_config("tiny" if options.tiny else shape), self.device)
        model.config.eos_token_id = model.generation_config.eos_token_id = None  # full lengths
        self.adapters = AdapterSet(model, Lora(r=16), gradient_checkpointing=False)
        self.tokenizer = word_tokenizer(model.config.vocab_size)
        generator = torch.Generator().manual_seed(0)
        self.prompts = torch.randint(
            5, model.config.vocab_size, (self.rows, self.prompt), generator=generator
        )

    def sample(self, role: str, new_tokens: int) -> None:
        """By this package."""
        with self.adapters.activate(role, training=False) as model:
            sample(
                model,
                self.tokenizer,
                self.prompts.tolist(),
                max_new_tokens=new_tokens,
                batch_size=self.rows,
            )

    @torch.no_grad()
    def generate(self, new_tokens: int, **settings: Any) -> None:
        """By transformers, with the same adapter."""
        ids = self.prompts.to(self.device)
        with self.adapters.activate("policy", training=False) as model:
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=True,
                pad_token_id=0,
                **settings,
            )

    def measure(self, run: Callable[[int], None]) -> dict:
        """Time of a token after the first, and the peak."""
        run(2)
        first, host_first = self._cost(lambda: run(1))
        reset_peak(self.device)
        total, host_total = self._cost(lambda: run(self.new_tokens + 1))
        seconds = (total - first) / self.new_tokens
        return {
            "milliseconds_per_token": 1e3 * seconds,
            "tokens_per_second": self.rows / seconds,
            "host_milliseconds_per_token": 1e3 * (host_total - host_first) / self.new_tokens,
            "peak_bytes": peak_bytes(self.device),
        }

    def _cost(self, run: Callable[[], None]) -> tuple[float, float]:
        """Seconds, and seconds of the host's CPU."""
        gc.collect()
        synchronize(self.device)
        start, host_start = time.perf_counter(), time.process_time()
        run()
        synchronize(self.device)
        return time.perf_counter() - start, time.process_time() - host_start

    def bytes_per_token(self) -> int:
        """What each decoding step has to read: the weights but for the embeddings, and the cache at its mean length."""
        model: Any = self.adapters.model
        weights = 0
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                continue
            for parameter in module.parameters(recurse=False):
                weights += parameter.numel() * parameter.element_size()
                weights += scale_bytes(parameter)
        config = model.config
        head_dim = config.hidden_size // config.num_attention_heads
        values = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim
        length = self.prompt + self.new_tokens / 2
        return round(weights + self.rows * length * values * BFLOAT16_BYTES)


def scale_bytes(parameter: Any) -> int:
    """Bytes of the scales of a 4-bit weight, which are quantised themselves; 0 for others."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return 0
    tensors = (state.absmax, state.state2.absmax)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def decoding(options: KitOptions, shape: str) -> dict:
    """This package with and without adapter, and transformers' generate with it."""
    decoder = Decoder(options, shape)
    runs = {
        "sample": lambda n: decoder.sample("policy", n),
        "sample, no adapter": lambda n: decoder.sample("reference", n),
        "generate": decoder.generate,
    }
    if not options.tiny:  # it is compiled for minutes on a CPU
        runs["generate, static cache"] = lambda n: decoder.generate(
            n, cache_implementation="static", disable_compile=True
        )
    figures = {name: decoder.measure(run) for name, run in runs.items()}
    floor = decoder.bytes_per_token() / copy_bytes_per_second(options)
    for run in figures.values():
        run["fraction_of_memory_floor"] = 1e3 * floor / run["milliseconds_per_token"]
    return {
        "ok": True,
        "rows": decoder.rows,
        "prompt_tokens": decoder.prompt,
        "bytes_per_token": decoder.bytes_per_token(),
        "floor_milliseconds_per_token": 1e3 * floor,
        "runs": figures,
    }
