"""Pretrained transformers that read tokens of another modality in place of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lit_align.errors import ConfigError, ModelError
from lit_align.models.adapter_set import Lora
from lit_align.models.load import is_causal
from lit_align.models.masks import packing_obstacle
from lit_align.orca.types import BodySpec, Embedded, Stats

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Fix = Literal["none", "double", "flip", "bidirectional"]
Tuning = Literal["lora", "layernorm", "full", "frozen"]
SAMPLE = 8192  # tokens whose moments are taken


class Body(nn.Module, ABC):
    """A transformer whose tokens come from an embedder, in place of its table of words or its projection of patches.

    Positions, types and norms are the model's own, and applied once. Only the first ``layers`` are kept; ``longest`` is
    how many tokens it reads, if its configuration does not say. Nothing is trained until ``tune``.
    """

    def __init__(
        self, model: PreTrainedModel, layers: int | None = None, longest: int | None = None
    ) -> None:
        super().__init__()
        base: Any = model.base_model
        base.pooler = None  # nothing reads it
        self.model = base
        self.name, self.config = _name(model), model.config.get_text_config()
        whole = self.config.num_hidden_layers
        if layers is not None:
            if not 1 <= layers <= whole:
                raise ModelError(
                    f"{self.name!r} has {whole} layers; layers is {layers}, set it from 1 to {whole}"
                )
            stack = next(
                m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == whole
            )
            del stack[layers:]
            self.config.num_hidden_layers = layers
        self.model.requires_grad_(False)
        std, mean = torch.std_mean(self.own().float(), 0, correction=0)
        self.spec = BodySpec(
            len(mean), longest or self.config.max_position_embeddings, Stats(mean, std)
        )

    def own(self) -> Tensor:
        """A sample of the tokens that the model is used to, ``[n, d_model]``: words from all over its vocabulary."""
        table = self.model.get_input_embeddings()
        ids = torch.linspace(
            0, self.config.vocab_size - 1, min(SAMPLE, self.config.vocab_size)
        ).long()
        words: Tensor = table(ids.to(self.model.device))
        return words

    @abstractmethod
    def forward(self, embedded: Embedded) -> Tensor:
        """The last hidden state of each token, ``[n, tokens, d_model]``; anything where there is no token."""

    def tune(self, mode: Tuning, lora: Lora, seed: int = 0) -> None:
        """Choose what is trained: adapters on it, its norms, all of it but what embedders stand in for, or nothing."""
        from peft import LoraConfig, inject_adapter_in_model

        if mode == "lora":
            config = LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=lora.targets,
            )
            with torch.random.fork_rng(
                [self.model.device] if self.model.device.type == "cuda" else []
            ):
                torch.manual_seed(seed)
                try:
                    inject_adapter_in_model(config, self.model)
                except ValueError as error:
                    raise ModelError(f"cannot put adapters on {self.name!r}: {error}") from error
        elif mode == "layernorm":
            for norm in (
                module for module in self.model.modules() if type(module).__name__.endswith("Norm")
            ):
                norm.requires_grad_(True)
        elif mode == "full":
            if not all(parameter.is_floating_point() for parameter in self.model.parameters()):
                cure = "which only adapters learn on; set base.quantization to none"
                raise ModelError(f"{self.name!r} is in 4 bits, {cure}")
            self.model.requires_grad_(True)
            self.model.get_input_embeddings().requires_grad_(False)

    def _read(self, tokens: Tensor, **how: Any) -> Tensor:
        """The model's last hidden states, for tokens of any precision."""
        states: Tensor = self.model(
            inputs_embeds=tokens.to(self.model.dtype), **how
        ).last_hidden_state
        return states.to(tokens.dtype)


class CausalBody(Body):
    """A language model that reads from left to right, such as SmolLM2, Llama or Qwen.

    Args:
        model: whose layers are attention alone.
        layers: keep only the first so many.
        attention_mode: how a token may know of those behind it: not at all; ``double``, by a second reading, or ``flip``, the mean
            of reading both ways (García-de-Herreros et al., 2025, https://arxiv.org/abs/2510.05278);
            ``bidirectional``, without the causal mask.
    """

    def __init__(
        self, model: PreTrainedModel, layers: int | None = None, attention_mode: Fix = "none"
    ) -> None:
        config: Any = model.config.get_text_config()
        if (why := packing_obstacle(model)) or config._attn_implementation == "flex_attention":
            raise ModelError(
                f"{_name(model)!r} cannot be a body: {why or 'set base.attention to sdpa'}"
            )
        # so short that windows of attention are whole
        longest = min(
            config.max_position_embeddings, getattr(config, "sliding_window", None) or 10**9
        )
        super().__init__(model, layers, longest // 2 if attention_mode == "double" else longest)
        self.attention_mode = attention_mode

    def forward(self, embedded: Embedded) -> Tensor:
        """As ``fix`` says."""
        tokens, mask, _ = embedded
        column = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        end = (column * mask).amax(1, keepdim=True)
        if self.attention_mode == "double":
            twice = torch.cat([column, end + 1 + column], 1)
            return self._causal(tokens.repeat(1, 2, 1), mask.repeat(1, 2), twice)[
                :, mask.shape[1] :
            ]
        there = self._causal(tokens, mask, column)
        if self.attention_mode != "flip":
            return there
        back = (end - column).clamp(min=0).flip(1)  # padding comes first, and what was last is at 0
        return (there + self._causal(tokens.flip(1), mask.flip(1), back).flip(1)) / 2

    def _causal(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """A token sees those before it (``bidirectional``: all), and itself, so that none sees nothing."""
        square = torch.ones(2 * mask.shape[1:], dtype=torch.bool, device=mask.device)
        seen = (square if self.attention_mode == "bidirectional" else square.tril()) & mask[:, None]
        hidden = ~(seen | torch.eye(len(square), dtype=torch.bool, device=mask.device))[:, None]
        added = torch.zeros(hidden.shape, dtype=self.model.dtype, device=mask.device)
        added.masked_fill_(hidden, torch.finfo(added.dtype).min)
        return self._read(tokens, attention_mask=added, position_ids=positions, use_cache=False)


class EncoderBody(Body):
    """A model that reads a text as a whole, such as BERT, RoBERTa or MiniLM."""

    def __init__(self, model: PreTrainedModel, layers: int | None = None) -> None:
        tables = (m for name, m in model.named_modules() if name.endswith("position_embeddings"))
        padding = getattr(
            next(tables, None), "padding_idx", None
        )  # RoBERTa's positions begin behind it
        used = 0 if padding is None else padding + 1
        super().__init__(
            model, layers, model.config.get_text_config().max_position_embeddings - used
        )

    def forward(self, embedded: Embedded) -> Tensor:
        """All at once."""
        return self._read(embedded.tokens, attention_mask=embedded.mask.long())


class VisionBody(Body):
    """A vision transformer, ViT or DINOv2: its class token comes before the tokens, and positions fit any grid."""

    def __init__(self, model: PreTrainedModel, layers: int | None = None) -> None:
        super().__init__(model, layers, longest=4096)
        self.grid = (0, 0)
        self.model.embeddings.forward = self._placed

    def own(self) -> Tensor:
        """Its projection of white noise; it has no table."""
        projection = self.model.get_input_embeddings().projection
        noise = torch.randn(
            1024, *projection.weight.shape[1:], generator=torch.Generator().manual_seed(0)
        )
        patches: Tensor = projection(noise.to(projection.weight)).flatten(1)
        return patches

    def forward(self, embedded: Embedded) -> Tensor:
        """Without the class token; tokens have to stand on a grid of two dimensions."""
        tokens, mask, grid = embedded
        if grid is None or len(grid) != 2:
            raise ConfigError(
                f"{self.name!r} reads tokens on a grid of two dimensions; give it images, by Patches"
            )
        self.grid = grid
        seen = torch.cat([mask.new_ones(len(mask), 1), mask], 1)
        states: Tensor = self.model(
            tokens.to(self.model.dtype), attention_mask=seen.long()
        ).last_hidden_state
        return states[:, 1:].to(tokens.dtype)

    def _placed(self, tokens: Tensor, **_: Any) -> Tensor:
        """What the model makes of patches before its first layer, beginning behind their projection."""
        own, size = self.model.embeddings, self.model.get_input_embeddings().projection.kernel_size
        placed = torch.cat([own.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        positions = own.interpolate_pos_encoding(
            placed, self.grid[0] * size[0], self.grid[1] * size[1]
        )
        ready: Tensor = own.dropout(placed + positions)
        return ready


def body_of(model: PreTrainedModel, layers: int | None = None, fix: Fix = "none") -> Body:
    """The body that fits a model, which `load_model` loads with ``causal=False``; arguments as for `CausalBody`."""
    if is_causal(model.config):
        return CausalBody(model, layers, fix)
    if fix != "none":
        raise ConfigError(
            f"the fix is {fix}, but {_name(model)!r} reads in both directions; set it to none"
        )
    if hasattr(getattr(model.base_model, "embeddings", None), "interpolate_pos_encoding"):
        return VisionBody(model, layers)
    if (
        "inputs_embeds" in signature(model.base_model.forward).parameters
        and not model.config.is_encoder_decoder
    ):
        return EncoderBody(model, layers)
    raise ModelError(
        f"{_name(model)!r} is a {model.config.model_type} model, which cannot be a body"
    )


def _name(model: PreTrainedModel) -> str:
    return model.name_or_path or type(model).__name__
