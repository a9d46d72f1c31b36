"""The sizes of a base model without its weights: from its config, or from the size in its name where that is far."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lit_align.errors import ConfigError, ModelError
from lit_align.models.load import Base, load_config, load_tokenizer

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedConfig

BILLION = 10**9
TIMEOUT = 5.0  # seconds until the hub counts as out of reach

SIZE = re.compile(
    r"(?:^|[-_./])(?:(?P<experts>\d+)x)?(?P<number>\d+(?:\.\d+)?)(?P<unit>[bm])(?![a-z])", re.I
)
"""The number of parameters in a name: 8B, 135M, 8x7B. That of active parameters, as in A3B, is another number."""


class Shape(NamedTuple):
    """A usual shape of a decoder with gated feed-forward layers.

    Args:
        billions: of its parameters.
        layers: how many there are.
        hidden: numbers of a token's hidden state.
        intermediate: numbers of a token between the feed-forward projections.
        heads: of the queries.
    """

    billions: float
    layers: int
    hidden: int
    intermediate: int
    heads: int


SHAPES = (
    Shape(0.6, 28, 1024, 3072, 16),
    Shape(1.7, 28, 2048, 6144, 16),
    Shape(4.0, 36, 2560, 9728, 32),
    Shape(8.2, 36, 4096, 12288, 32),
    Shape(14.8, 40, 5120, 17408, 40),
    Shape(32.8, 64, 5120, 25600, 64),
    Shape(70.6, 80, 8192, 28672, 64),
)
"""Those in the configs of Qwen3 (https://huggingface.co/Qwen) and of Llama 3 70B, in the order of their size."""

KEY_VALUE_HEADS = 8
VOCABULARY = 151_936
POSITIONS = 32_768


class BaseSizes(NamedTuple):
    """What is known of a base.

    Args:
        config: its configuration, or one of the same size.
        text: where that is from; empty if it is the base's own.
        lacks_template: whether it certainly has no chat template.
    """

    config: PreTrainedConfig
    text: str = ""
    lacks_template: bool = False


def read_base(path: str, billions: float | None) -> BaseSizes:
    """The configuration of a base; where the hub is out of reach, a usual one of the size that its name says.

    Args:
        path: as in ``model.base.path``.
        billions: of parameters; None if the option is not set.

    Raises:
        ModelError: if there is no such model.
        ConfigError: if its config is out of reach and nothing says how large it is.
    """
    if billions is not None:
        return BaseSizes(
            usual_config(billions), f"{path}: {billions:g}B parameters, as --size says"
        )
    place, reason = _within_reach(path)
    if place:
        base = Base(place)
        config = load_config(base)
        return BaseSizes(config, lacks_template=load_tokenizer(base).chat_template is None)
    size = size_in_name(path)
    if size is None:
        raise ConfigError(
            f"the config of {path!r} cannot be reached ({reason}), and its name has no size; give --size, the "
            "billions of parameters that it has"
        )
    return BaseSizes(
        usual_config(size),
        f"{path}: its config cannot be reached ({reason}); planned for the {size:g}B of its name, --size overrides it",
    )


def size_in_name(path: str) -> float | None:
    """Billions of parameters that a model's name says; None if it says none.

    Example:
        >>> size_in_name("Qwen/Qwen3-30B-A3B"), size_in_name("org/SmolLM2-135M-Instruct"), size_in_name("org/phi-4")
        (30.0, 0.135, None)
        >>> size_in_name("mistralai/Mixtral-8x7B-v0.1")
        56.0
    """
    match = SIZE.search(path)
    if match is None:
        return None
    number = float(match["number"]) * int(match["experts"] or 1)
    return number if match["unit"].lower() == "b" else number / 1000


def usual_config(billions: float) -> PreTrainedConfig:
    """The configuration of a model of so many parameters: the next larger usual shape, with fewer layers.

    Raises:
        ConfigError: if the number is not positive.
    """
    from transformers import LlamaConfig

    if billions <= 0:
        raise ConfigError(f"--size is {billions:g}; it is a number of billions, such as 8 or 0.6")
    larger = [shape for shape in SHAPES if shape.billions >= billions]
    shape = larger[0] if larger else SHAPES[-1]
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=max(1, round(shape.layers * billions / shape.billions)),
        num_attention_heads=shape.heads,
        num_key_value_heads=KEY_VALUE_HEADS,
        head_dim=128,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=billions < SHAPES[2].billions,
    )


def _within_reach(path: str) -> tuple[str, str]:
    """Where the config of a base can be read without waiting; else nothing, and the reason."""
    is_local = path.startswith(("package:", "/", ".", "~")) or path.endswith(".gguf")
    if is_local or Path(path).exists():
        return path, ""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        cached = try_to_load_from_cache(path, "config.json")
        if isinstance(cached, str):
            return str(Path(cached).parent), ""
        get_hf_file_metadata(hf_hub_url(path, "config.json"), timeout=TIMEOUT)
    except GatedRepoError:
        return "", "it is gated, and no token with access is set"
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(f"no model at {path!r}; give a hub id, a folder or a GGUF file") from error
    except Exception:  # of several HTTP libraries
        return "", "there is no connection to the hub"
    return path, ""
