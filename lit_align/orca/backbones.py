"""Pretrained transformers that read tokens of another modality in place of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lit_align.compat.packed_experts import whole_for_peft
from lit_align.errors import ConfigError, ModelError
from lit_align.models.inventory import adapted_layers
from lit_align.models.layers import read_layers
from lit_align.models.load import is_causal
from lit_align.models.lora import Lora
from lit_align.models.lora_targets import adapting, set_targets
from lit_align.models.masks import packing_obstacle
from lit_align.orca.types import BackboneSpec, Embedded, TokenStats

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel

AttentionMode = Literal["none", "double", "flip", "bidirectional"]
Tuning = Literal["lora", "layernorm", "full", "frozen"]

STATS_TOKENS = 8192  # tokens of the vocabulary whose statistics are taken
STATS_PATCHES = 1024  # patches of noise whose statistics are taken
MAX_PATCHES = 4096  # a vision model interpolates its positions, so this only bounds memory


class Backbone(nn.Module, ABC):
    """A transformer whose tokens come from an embedder, in place of its word or patch embeddings.

    Position embeddings, token types and norms are the model's own, and applied once. Nothing is trained until `tune`.

    Args:
        model: the pretrained model; its head and pooler are left out.
        layers: use only the first so many layers; None uses all.
        max_tokens: longest input in tokens; None takes it from the configuration.
    """

    def __init__(
        self, model: PreTrainedModel, layers: int | None = None, max_tokens: int | None = None
    ) -> None:
        super().__init__()
        base: Any = model.base_model
        base.pooler = None  # its output is not used
        self.model = base
        self.name = _name(model)
        self.config = model.config.get_text_config()
        if layers is not None:
            self._cut(layers)
        self.model.requires_grad_(False)
        std, mean = torch.std_mean(self.sample_tokens().float(), 0, correction=0)
        self.spec = BackboneSpec(
            d_model=len(mean),
            max_tokens=max_tokens or self.config.max_position_embeddings,
            stats=TokenStats(mean, std),
        )

    def _cut(self, layers: int) -> None:
        """Remove all layers but the first ``layers``."""
        total = self.config.num_hidden_layers
        if not 1 <= layers <= total:
            raise ModelError(
                f"{self.name!r} has {total} layers; layers is {layers}, set it from 1 to {total}"
            )
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == total:
                del module[layers:]
                break
        self.config.num_hidden_layers = layers

    def sample_tokens(self) -> Tensor:
        """The model's own embeddings of words from all over its vocabulary, ``[n, d_model]``."""
        vocabulary = self.config.vocab_size
        count = min(STATS_TOKENS, vocabulary)
        ids = torch.linspace(0, vocabulary - 1, count).long()
        table = self.model.get_input_embeddings()
        embeddings: Tensor = table(ids.to(self.model.device))
        return embeddings

    @abstractmethod
    def forward(self, embedded: Embedded) -> Tensor:
        """Last hidden state of each token, ``[n, tokens, d_model]``; undefined at padding."""

    def tune(self, mode: Tuning, lora: Lora, seed: int = 0) -> None:
        """Choose what is trained.

        Args:
            mode: lora adds adapters; layernorm trains the norms; full trains all but the input embeddings, which the
                embedder replaces; frozen trains nothing.
            lora: the adapters' settings.
            seed: of their initial weights.

        Raises:
            ModelError: if the model cannot be trained this way.
        """
        if mode == "lora":
            self._add_adapters(lora, seed)
        elif mode == "layernorm":
            for module in self.model.modules():
                if type(module).__name__.endswith("Norm"):
                    module.requires_grad_(True)
        elif mode == "full":
            if not all(parameter.is_floating_point() for parameter in self.model.parameters()):
                raise ModelError(
                    f"{self.name!r} is in 4 bits, which can only be trained by adapters; "
                    "set base.quantization to none"
                )
            self.model.requires_grad_(True)
            self.model.get_input_embeddings().requires_grad_(False)

    def _add_adapters(self, lora: Lora, seed: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout)
        with whole_for_peft(self.model):
            layers = read_layers(self.model)
        set_targets(config, layers, adapted_layers(layers, lora))
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            with adapting(self.name, config, layers, self.model):
                inject_adapter_in_model(config, self.model)

    def _hidden_states(self, tokens: Tensor, **inputs: Any) -> Tensor:
        """Last hidden states of the model, in the precision of ``tokens``."""
        output = self.model(inputs_embeds=tokens.to(self.model.dtype), **inputs)
        states: Tensor = output.last_hidden_state
        return states.to(tokens.dtype)


class CausalBackbone(Backbone):
    """A causal language model, such as SmolLM2, Llama or Qwen.

    Args:
        model: of attention layers alone.
        layers: use only the first so many layers; None uses all.
        attention_mode: how a token attends to later ones: not at all; ``double`` repeats the input and uses the second
            half; ``flip`` takes the mean of both directions (García-de-Herreros et al., 2025,
            https://arxiv.org/abs/2510.05278); ``bidirectional`` removes the causal mask.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers: int | None = None,
        attention_mode: AttentionMode = "none",
    ) -> None:
        config: Any = model.config.get_text_config()
        reason = packing_obstacle(model)
        if not reason and config._attn_implementation == "flex_attention":
            reason = "set base.attention to sdpa"
        if reason:
            raise ModelError(f"{_name(model)!r} cannot be a backbone: {reason}")
        max_tokens = config.max_position_embeddings
        window = getattr(config, "sliding_window", None)
        if window:  # a longer input would not fit into one attention window
            max_tokens = min(max_tokens, window)
        if attention_mode == "double":
            max_tokens = max_tokens // 2
        super().__init__(model, layers, max_tokens)
        self.attention_mode = attention_mode

    def forward(self, embedded: Embedded) -> Tensor:
        """One reading of the tokens, or two, by ``attention_mode``."""
        tokens, mask, _ = embedded
        length = mask.shape[1]
        positions = torch.arange(length, device=mask.device).expand_as(mask)
        last = (positions * mask).amax(1, keepdim=True)
        if self.attention_mode == "double":
            doubled = torch.cat([positions, last + 1 + positions], 1)
            states = self._attend(tokens.repeat(1, 2, 1), mask.repeat(1, 2), doubled)
            return states[:, length:]
        states = self._attend(tokens, mask, positions)
        if self.attention_mode != "flip":
            return states
        # in reverse, padding comes first, and the last token is at position 0
        reverse = (last - positions).clamp(min=0).flip(1)
        backward = self._attend(tokens.flip(1), mask.flip(1), reverse).flip(1)
        return (states + backward) / 2

    def _attend(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Attend to earlier tokens (``bidirectional``: to all); padding attends to itself, so its softmax is finite."""
        length, device = mask.shape[1], mask.device
        visible = torch.ones(length, length, dtype=torch.bool, device=device)
        if self.attention_mode != "bidirectional":
            visible = visible.tril()
        visible = visible & mask[:, None]
        visible = visible | torch.eye(length, dtype=torch.bool, device=device)
        hidden = ~visible[:, None]
        bias = torch.zeros(hidden.shape, dtype=self.model.dtype, device=device)
        bias.masked_fill_(hidden, torch.finfo(bias.dtype).min)
        return self._hidden_states(
            tokens, attention_mask=bias, position_ids=positions, use_cache=False
        )


class EncoderBackbone(Backbone):
    """A bidirectional encoder, such as BERT, RoBERTa or MiniLM; arguments as for `Backbone`."""

    def __init__(self, model: PreTrainedModel, layers: int | None = None) -> None:
        max_tokens = model.config.get_text_config().max_position_embeddings
        for name, module in model.named_modules():
            if name.endswith("position_embeddings"):
                padding = getattr(module, "padding_idx", None)
                if padding is not None:  # RoBERTa's positions begin after the padding index
                    max_tokens = max_tokens - (padding + 1)
                break
        super().__init__(model, layers, max_tokens)

    def forward(self, embedded: Embedded) -> Tensor:
        """Every token attends to all."""
        return self._hidden_states(embedded.tokens, attention_mask=embedded.mask.long())


class VisionBackbone(Backbone):
    """A vision transformer, ViT or DINOv2; its class token comes first, its positions are interpolated to the grid."""

    def __init__(self, model: PreTrainedModel, layers: int | None = None) -> None:
        super().__init__(model, layers, MAX_PATCHES)
        self.grid = (0, 0)
        self.model.embeddings.forward = self._add_positions

    def sample_tokens(self) -> Tensor:
        """The model's projection of patches of white noise, ``[n, d_model]``; it has no vocabulary."""
        projection = self.model.get_input_embeddings().projection
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(STATS_PATCHES, *projection.weight.shape[1:], generator=generator)
        patches: Tensor = projection(noise.to(projection.weight)).flatten(1)
        return patches

    def forward(self, embedded: Embedded) -> Tensor:
        """Hidden states without that of the class token.

        Raises:
            ConfigError: unless tokens are on a two-dimensional grid.
        """
        tokens, mask, grid = embedded
        if grid is None or len(grid) != 2:
            raise ConfigError(
                f"{self.name!r} reads tokens on a two-dimensional grid; give it images, embedded by Patches"
            )
        self.grid = grid
        with_class_token = torch.cat([mask.new_ones(len(mask), 1), mask], 1)
        output = self.model(tokens.to(self.model.dtype), attention_mask=with_class_token.long())
        states: Tensor = output.last_hidden_state
        return states[:, 1:].to(tokens.dtype)

    def _add_positions(self, tokens: Tensor, **_: Any) -> Tensor:
        """The model's embedding layer from after its patch projection: class token, positions and dropout."""
        embeddings = self.model.embeddings
        class_token = embeddings.cls_token.expand(len(tokens), -1, -1)
        tokens = torch.cat([class_token, tokens], 1)
        projection = self.model.get_input_embeddings().projection
        patch_height, patch_width = projection.kernel_size
        height = self.grid[0] * patch_height
        width = self.grid[1] * patch_width
        positions = embeddings.interpolate_pos_encoding(tokens, height, width)
        embedded: Tensor = embeddings.dropout(tokens + positions)
        return embedded


def backbone_for(
    model: PreTrainedModel, layers: int | None = None, attention_mode: AttentionMode = "none"
) -> Backbone:
    """The kind of backbone that fits a model, which `load_model` loads with ``causal=False``.

    Arguments are as for `CausalBackbone`.

    Raises:
        ConfigError: if ``attention_mode`` is set for a model that is not causal.
        ModelError: if the model cannot be a backbone.
    """
    if is_causal(model.config):
        return CausalBackbone(model, layers, attention_mode)
    if attention_mode != "none":
        raise ConfigError(
            f"attention_mode is {attention_mode}, but {_name(model)!r} attends in both directions; set it to none"
        )
    embeddings = getattr(model.base_model, "embeddings", None)
    if hasattr(embeddings, "interpolate_pos_encoding"):
        return VisionBackbone(model, layers)
    takes_tokens = "inputs_embeds" in signature(model.base_model.forward).parameters
    if takes_tokens and not model.config.is_encoder_decoder:
        return EncoderBackbone(model, layers)
    raise ModelError(
        f"{_name(model)!r} is a {model.config.model_type} model, which cannot be a backbone"
    )


def _name(model: PreTrainedModel) -> str:
    return model.name_or_path or type(model).__name__
