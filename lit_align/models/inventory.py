"""The inventory of a model: which layers get an adapter, which are stored in 4 bits, and how many bytes that takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lit_align.errors import ConfigError, ModelError
from lit_align.models.layers import Layer, model_without_weights, read_layers
from lit_align.models.load import Base, compute_dtype
from lit_align.registry import closest_name

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedConfig
    from lit_align.models.lora import Lora

GIB = 2**30
FLOAT32 = 4  # bytes of a number
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a number: 4 bits, a byte of scale for 64 of them, and 4 bytes for 256 scales (QLoRA, section 3)."""
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Inventory:
    """What becomes of each layer of a model.

    Args:
        layers: all its layers.
        adapted: names of those that get an adapter.
        four_bit: names of those that are stored in 4 bits.
        numbers: of all weights, biases and norms included.
        r: rank of the adapters.
        itemsize: bytes of a number in the compute dtype.
    """

    layers: Sequence[Layer]
    adapted: frozenset[str]
    four_bit: frozenset[str]
    numbers: int
    r: int
    itemsize: int

    @classmethod
    def from_base(
        cls, config: PreTrainedConfig, base: Base, lora: Lora, device: torch.device
    ) -> Inventory:
        """The inventory of a base that is not loaded, as a device would compute with it."""
        is_nf4, dtype = base.quantization == "nf4", compute_dtype(base, device)
        return cls.from_config(config, lora, nf4=is_nf4, dtype=dtype)

    @classmethod
    def from_config(
        cls,
        config: PreTrainedConfig,
        lora: Lora,
        *,
        nf4: bool,
        dtype: torch.dtype,
        causal: bool = True,
    ) -> Inventory:
        """The inventory of a model that is not loaded.

        Args:
            config: the model's configuration.
            lora: settings of the adapters.
            nf4: whether the weights are stored in 4 bits.
            dtype: of the computation.
            causal: whether the model has its language-model head.

        Raises:
            ModelError: if ``lora`` names layers that the model lacks, or that cannot have an adapter.
        """
        model = model_without_weights(config, causal)
        layers = read_layers(model)
        adapted = [layer.name for layer in adapted_layers(layers, lora)]
        four_bit = [layer for layer in layers if nf4 and not layer.whole]
        numbers = sum(weight.numel() for weight in model.parameters())  # a shared one counts once
        names = frozenset(layer.name for layer in four_bit)
        return cls(layers, frozenset(adapted), names, numbers, lora.r, dtype.itemsize)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights as they are stored."""
        packed = sum(layer.numbers for layer in self._four_bit_layers())
        return round((self.numbers - packed) * self.itemsize + packed * NF4)

    @property
    def layer_bytes(self) -> int:
        """Bytes of the weights in numbered blocks, the decoder's layers, as they are stored."""
        numbered = [layer for layer in self.layers if re.search(r"\.\d+\.", layer.name)]
        return round(sum(self.stored_bytes(layer) for layer in numbered))

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of the largest 4-bit weight while it is dequantized for its product.

        Experts without an adapter are their own copy, which `merged_bytes` counts.
        """
        sizes = []
        for layer in self._four_bit_layers():
            if layer.in_module or layer.name in self.adapted:
                sizes.append(layer.numbers)
        return max(sizes, default=0) * self.itemsize

    @property
    def adapter_bytes(self) -> int:
        """Bytes of one adapter, in float32."""
        return FLOAT32 * sum(self._adapter_numbers(layer) for layer in self.layers)

    @property
    def merged_bytes(self) -> list[int]:
        """Bytes of a copy of each block's stacked weights, dequantized and with their adapters, in a forward pass."""
        blocks: dict[str, int] = {}
        for layer in self.layers:
            if layer.name in self.adapted | self.four_bit and not layer.in_module:
                block = re.sub(r"(.*\.\d+)\..*", r"\1", layer.name)
                blocks[block] = blocks.get(block, 0) + layer.numbers * self.itemsize
        return list(blocks.values())

    def stored_bytes(self, layer: Layer) -> float:
        """Bytes of a layer's weight as it is stored."""
        return layer.numbers * (NF4 if layer.name in self.four_bit else self.itemsize)

    def table(self) -> str:
        """A line for each kind of layer: how many, with an adapter or why not, in 4 bits or not, and GiB."""
        groups: dict[tuple[str, str, bool], list[Layer]] = {}
        for layer in self.layers:
            key = (self._heading(layer), self._fate(layer), layer.name in self.four_bit)
            groups.setdefault(key, []).append(layer)
        rows = [("layers", "number", "adapter", "weights", "GiB", "adapter GiB")]
        for (heading, fate, is_four_bit), layers in groups.items():
            names = sorted({layer.path.rpartition(".")[2] for layer in layers})
            stored = sum(self.stored_bytes(layer) for layer in layers)
            adapters = FLOAT32 * sum(self._adapter_numbers(layer) for layer in layers)
            weights = "4 bits" if is_four_bit else f"{8 * self.itemsize} bits"
            row = (f"{heading}: {' '.join(names)}", str(len(layers)), fate, weights)
            rows.append((*row, f"{stored / GIB:.2f}", f"{adapters / GIB:.2f}"))
        return "\n".join([_columns(rows), *self._whole_experts()])

    def _whole_experts(self) -> list[str]:
        """A sentence on the experts that are not in 4 bits in a model that is."""
        experts = [layer for layer in self.layers if layer.kind == "experts"]
        numbers = sum(layer.numbers for layer in experts if layer.name not in self.four_bit)
        if not self.four_bit or not numbers:
            return []
        stored, packed = numbers * self.itemsize / GIB, numbers * NF4 / GIB
        return [
            f"Experts that stay in {8 * self.itemsize} bits take {stored:.2f} GiB instead of {packed:.2f}: only linear "
            "layers and stacks of their weights are stored in 4 bits."
        ]

    def _four_bit_layers(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.name in self.four_bit]

    def _adapter_numbers(self, layer: Layer) -> int:
        return layer.adapter_numbers(self.r) if layer.name in self.adapted else 0

    def _heading(self, layer: Layer) -> str:
        names = {"linear": "linear", "router": "routers", "embedding": "embeddings"}
        return names.get(layer.kind, layer.kind)

    def _fate(self, layer: Layer) -> str:
        if layer.name in self.adapted:
            return "yes"
        settings = {"experts": "see lora.adapt_experts", "router": "see lora.adapt_routers"}
        return f"no ({layer.obstacle or settings.get(layer.kind, 'not in lora.targets')})"


def adapted_layers(layers: Sequence[Layer], lora: Lora) -> list[Layer]:
    """The layers that get an adapter: exactly those that the settings name.

    Raises:
        ModelError: if the settings name layers that the model lacks, or that cannot have an adapter.
    """
    chosen = _all_linear(layers, lora)
    if lora.targets != ALL_LINEAR:
        chosen = _named(layers, lora.targets)
    if not chosen:
        raise ModelError(
            f"lora.targets {lora.targets!r} leaves no layer to adapt; {_meant(str(lora.targets), layers)}name some of "
            f"{_offer(layers)}"
        )
    stacked = [layer.name for layer in chosen if not layer.in_module]
    if stacked and lora.dropout:
        raise ModelError(
            f"lora.dropout {lora.dropout} cannot be applied to an adapter on the weights of experts or routers "
            f"({stacked[0]!r}); set it to 0, or lora.adapt_experts and lora.adapt_routers to false"
        )
    return chosen


def _all_linear(layers: Sequence[Layer], lora: Lora) -> list[Layer]:
    kinds = {"linear": True, "experts": lora.adapt_experts, "router": lora.adapt_routers}
    return [layer for layer in layers if kinds.get(layer.kind) and not layer.obstacle]


def _named(layers: Sequence[Layer], targets: str | list[str]) -> list[Layer]:
    """Layers whose name fits a pattern, or ends with one of the names."""
    if isinstance(targets, str):
        try:
            pattern = re.compile(targets)
        except re.error as error:
            raise ConfigError(
                f"lora.targets is {targets!r}, which is no pattern: {error}; write the names of layers as a list, or "
                f"{ALL_LINEAR}"
            ) from error
        chosen = [layer for layer in layers if pattern.fullmatch(layer.path)]
    else:
        chosen = []
        for target in targets:
            matching = [layer for layer in layers if layer.is_called(target)]
            if not matching:
                raise ModelError(
                    f"lora.targets names {target!r}, which this model does not have; {_meant(target, layers)}it has "
                    f"{_offer(layers)}"
                )
            chosen += [layer for layer in matching if layer not in chosen]
    for layer in chosen:
        if layer.obstacle:
            raise ModelError(
                f"lora.targets names {layer.path!r}, which cannot have an adapter: {layer.obstacle}; leave it out"
            )
    return chosen


def _meant(target: str, layers: Sequence[Layer]) -> str:
    """A question for the name that was probably meant, before more words; empty if there is none."""
    closest = closest_name(target, [ALL_LINEAR, *_offer(layers).split()])
    return f"did you mean {closest}? Or " if closest else ""


def _offer(layers: Sequence[Layer]) -> str:
    """The short names of layers that can have an adapter."""
    names: list[str] = []
    for layer in layers:
        short = layer.path.rpartition(".")[2]
        if not layer.obstacle and layer.kind != "other" and short not in names:
            names.append(short)
    return " ".join(names)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
