"""What trained adapters start from: the settings of a run, or a saved adapter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from lit_align.errors import ModelError
from lit_align.models.adapters import read_adapter
from lit_align.models.inventory import ALL_LINEAR, adapted_layers
from lit_align.models.layers import Layer
from lit_align.models.lora_targets import set_targets, sort_targets

if TYPE_CHECKING:
    from peft import LoraConfig

    from lit_align.models.lora import Lora


def initial_adapter(
    base: str,
    revision: str | None,
    layers: Sequence[Layer],
    lora: Lora,
    folder: str | Path | None,
) -> tuple[LoraConfig, dict[str, Tensor] | None]:
    """PEFT's settings of the trained adapters, and the weights they start from, if any.

    Args:
        base: path of the base.
        revision: of the base on the hub.
        layers: of the base.
        lora: the run's settings.
        folder: of a saved adapter, which keeps its own settings apart from dropout.

    Raises:
        ModelError: if the settings name layers that cannot be adapted, or the saved adapter cannot be started from.
    """
    from peft import LoraConfig

    weights = None
    if folder is None:
        config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, task_type="CAUSAL_LM")
        is_pattern = isinstance(lora.targets, str) and lora.targets != ALL_LINEAR
        pattern = str(lora.targets) if is_pattern else None
        set_targets(config, layers, adapted_layers(layers, lora), pattern)
    else:
        config, weights = read_adapter(folder, base, revision)
        if (config.r, config.lora_alpha) != (lora.r, lora.alpha):
            warnings.warn(
                f"the adapter in {str(folder)!r} has r={config.r} and alpha={config.lora_alpha}; "
                f"lora.r={lora.r} and lora.alpha={lora.alpha} are not used",
                stacklevel=4,
            )
        sort_targets(config, layers)
        if config.target_parameters and lora.dropout:
            parameter = sorted(config.target_parameters)[0]
            raise ModelError(
                f"lora.dropout {lora.dropout} cannot be applied to the adapter in {str(folder)!r}, which is on weights "
                f"of experts or routers ({parameter!r}); set it to 0"
            )
    config.base_model_name_or_path = base
    config.lora_dropout = lora.dropout
    config.inference_mode = False
    return config, weights
