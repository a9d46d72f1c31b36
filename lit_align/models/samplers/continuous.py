"""The model in memory, sampled by the continuous batching of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_align.checks import check_fraction
from lit_align.errors import ModelError
from lit_align.hookspecs import Register, hookimpl
from lit_align.models.decoding.batch import Completion
from lit_align.models.generate import check_prompts
from lit_align.models.load import Base, load_config
from lit_align.models.lora import Lora
from lit_align.models.samplers.base import SampledModel, Sampler, SamplingRequest
from lit_align.models.stop_ids import stop_ids
from lit_align.seeding import step_seed

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase

ATTENTIONS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
"""Implementations of attention that can read a paged cache."""

LAYER_TYPES = ("full_attention", "sliding_attention")
"""Layers whose cache can be paged."""


@dataclass(frozen=True)
class Continuous(Sampler):
    """Sample the model in memory by the continuous batching of transformers (5.23): a paged cache, and CUDA graphs.

    It computes with the active adapter, and no second copy of the base. Its random numbers are those of torch's
    generator, seeded by the request and drawn for whatever shares a batch: equal requests on one machine gave equal
    completions, but nothing promises that a resumed run is bit for bit the same, nor that a completion depends on its
    own prompt alone. Each call starts a thread that has ended when the completions are returned.

    Whether it is faster on a GPU, its CUDA graphs and its attention kernels there are not checked.

    Args:
        max_memory: share of a GPU's free memory that the cache takes while it samples.
        max_batch_tokens: tokens in one pass; null lets transformers choose by the memory of a GPU.
        page_size: tokens in a page of the cache.

    Raises:
        ModelError: if the model's layers or attention have no paged cache.
    """

    max_memory: float = 0.5
    max_batch_tokens: int | None = None
    page_size: int = 256

    def __post_init__(self) -> None:
        check_fraction("max_memory", self.max_memory)

    def check(self, base: Base, lora: Lora | None, tokenizer: PreTrainedTokenizerBase) -> None:
        _check_layers(load_config(base))
        _check_attention(base.attention)

    def sample(self, model: SampledModel, request: SamplingRequest) -> list[list[Completion]]:
        with model.activate() as base:
            check_prompts(base.config, request.prompts, request.max_new_tokens)
            _check_layers(base.config)
            _check_attention(base.config._attn_implementation)
            return self._generate(base, model.tokenizer, request)

    def _generate(
        self, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, request: SamplingRequest
    ) -> list[list[Completion]]:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        stop_tokens = stop_ids(base, tokenizer)
        choice: dict[str, Any] = {"do_sample": False}
        if request.temperature:
            choice = {"do_sample": True, "temperature": request.temperature, "top_k": 0, "top_p": 1}
        generation = GenerationConfig(  # type: ignore[no-untyped-call]
            **choice,
            max_new_tokens=request.max_new_tokens,
            num_return_sequences=request.num_generations,
            eos_token_id=stop_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
        first_place = request.places[0] if request.prompts else 0
        batching = ContinuousBatchingConfig(
            return_logprobs=True,
            seed=step_seed(request.seed, first_place) % 2**63,  # its seeds have 63 bits
            page_size=self.page_size,
            max_memory_percent=self.max_memory,
            **self._sizes(base, request),
            auto_switch_to_flash=False,  # attention is that of the training pass
        )
        prompts = [list(prompt) for prompt in request.prompts]
        generate: Any = base.generate_batch
        outputs = generate(prompts, generation, batching, warmup=base.device.type == "cuda")
        return _completions(outputs, request, frozenset(stop_tokens))

    def _sizes(self, base: PreTrainedModel, request: SamplingRequest) -> dict[str, Any]:
        """Sizes of the cache and of a pass; on a CPU those that the request needs, not a share of all memory."""
        if base.device.type != "cpu":
            return {"max_batch_tokens": self.max_batch_tokens}
        longest = max(map(len, request.prompts), default=0) + request.max_new_tokens
        num_rows = max(request.batch_size, request.num_generations)
        return {
            "num_blocks": num_rows * -(-longest // self.page_size) + 1,
            "max_batch_tokens": self.max_batch_tokens or request.token_budget,
        }


def _completions(
    outputs: Mapping[str, Any], request: SamplingRequest, stop_tokens: frozenset[int]
) -> list[list[Completion]]:
    """Completions in the order of the prompts.

    Raises:
        ModelError: if one is missing, which transformers logs and passes over.
    """
    count = request.num_generations
    num_wanted = len(request.prompts) * count
    failures = [str(output.error) for output in outputs.values() if output.error is not None]
    if failures or len(outputs) != num_wanted:
        reason = failures[0] if failures else "it says no reason"
        raise ModelError(
            f"continuous batching completed {len(outputs) - len(failures)} of {num_wanted} responses ({reason}); lower "
            "max_memory or max_batch_tokens of Continuous, or use InProcess"
        )
    completions = []
    for output in outputs.values():
        ids = list(output.generated_tokens)
        completions.append(Completion(ids, list(output.logprobs), ids[-1] in stop_tokens))
    return [completions[start : start + count] for start in range(0, num_wanted, count)]


def _check_layers(config: Any) -> None:
    """Refuse layers without a paged cache: transformers would fail in a thread, after it has taken the memory."""
    text_config = config.get_text_config()
    layer_types = set(getattr(text_config, "layer_types", None) or ("full_attention",))
    has_state = any(hasattr(text_config, name) for name in ("state_size", "ssm_state_size"))
    unknown = sorted(layer_types - set(LAYER_TYPES)) + ["state-space"] * has_state
    if unknown:
        raise ModelError(
            f"{config.model_type} has {' and '.join(unknown)} layers, whose cache Continuous cannot page; use InProcess"
        )


def _check_attention(attention: str | None) -> None:
    if attention not in (*ATTENTIONS, "fastest", None):
        raise ModelError(
            f"base.attention is {attention}, which cannot read the paged cache of Continuous; set it to sdpa, or use "
            "InProcess"
        )


@hookimpl
def register_samplers(register: Register) -> None:
    register(Continuous)
