"""Load a causal language model and its tokenizer from a hub id, a local folder or a GGUF file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lit_align.chat.template import set_template_defaults
from lit_align.compat.light_bitsandbytes import import_bitsandbytes
from lit_align.compat.packed_experts import is_whole, pack, packing_while_loading
from lit_align.errors import DataError, ModelError
from lit_align.models.atomic_folder import atomic_folder
from lit_align.models.layers import Layer, model_without_weights, read_layers
from lit_align.package_files import resolve_package_path

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import (
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

CHATML = (
    "{% if tools %}{{ '<|im_start|>system\n' }}"
    "{% if messages and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}"
    "{{ 'Functions to call, each call as JSON between <tool_call> and </tool_call>:\n' }}"
    "{% for tool in tools %}{{ tool | tojson + '\n' }}{% endfor %}"
    "{{ turn_end + '\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if not (tools and loop.first and message['role'] == 'system') %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['reasoning_content'] %}"
    "{{ '<think>\n' + message['reasoning_content'] + '\n</think>\n\n' }}"
    "{% endif %}"
    "{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>' + call['function'] | tojson + '</tool_call>' }}"
    "{% endfor %}"
    "{{ turn_end + '\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The ChatML template, with functions, calls and thoughts where there are some; `load_tokenizer` sets ``turn_end``."""


@dataclass
class Base:
    """The frozen base model that all adapters share.

    Args:
        path: hub id, local folder, GGUF file, or ``package:name/file`` for a file inside an installed Python package.
            Weights are read from safetensors or GGUF only, and no code that comes with a model is run.
        quantization: nf4 stores the weights in 4 bits (QLoRA, with double quantization); none leaves them as they are.
        dtype: of the computation; auto is bfloat16 on a GPU, which needs units for it, and float32 on a CPU.
        revision: branch, tag or commit on the hub.
        attention: attention implementation as transformers names them; null lets it choose. ``fastest`` times sdpa and
            flex_attention when training starts on a GPU; a run that is resumed on another machine may take another.
    """

    path: str
    quantization: Literal["nf4", "none"] = "nf4"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    revision: str | None = None
    attention: str | None = None


def load_model(
    base: Base,
    device: torch.device | None = None,
    causal: bool = True,
    memory: torch.device | None = None,
) -> PreTrainedModel:
    """Load the causal language model, frozen, in eval mode; its ``name_or_path`` is ``base.path``.

    Args:
        base: which model, and how.
        device: that will compute with it; the current GPU, or the CPU without one.
        causal: False also accepts other models, without their head.
        memory: where to load it; ``device`` if None.

    Raises:
        ModelError: if there is no such model, or it is not a causal language model, or it cannot be loaded this way, or
            the card does not suit it.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    import_bitsandbytes()
    if device is None:
        device = _default_device()
    check_card(base, device)
    dtype = compute_dtype(base, device)
    place = _place(base.path)
    if place.endswith(".gguf"):
        place = _converted(Path(place), base.path, dtype)
    options: dict[str, Any] = {"device_map": {"": memory or device}, "dtype": dtype}
    options["use_safetensors"] = True
    options.update(_hub_options(base))
    if base.attention not in (None, "fastest"):
        # what was trained on a GPU is also asked on a CPU
        options["attn_implementation"] = "sdpa" if _lacks_flex(base, device) else base.attention
    with _loading_errors(base.path):
        config = _config(base, place, causal)
        is_quantized = hasattr(config, "quantization_config")  # stored in fewer bits
        experts: list[str] = []
        if base.quantization == "nf4":
            layers = read_layers(model_without_weights(config, is_causal(config)))
            nf4 = _nf4_config(dtype, layers)
            experts = [layer.name for layer in layers if not (layer.whole or layer.in_module)]
            if not is_quantized:
                options["quantization_config"] = nf4
        auto_class = AutoModelForCausalLM if is_causal(config) else AutoModel
        with packing_while_loading(experts):
            model: Any = auto_class.from_pretrained(place, **options)
        if is_quantized:
            pack(model, [name for name in experts if is_whole(model, name)], nf4)
    # An adapter records this as its base, so it must not be the path of a cache.
    model.name_or_path = model.config._name_or_path = base.path
    model.loaded_as = base
    _disable_repacking(model)
    frozen: PreTrainedModel = model.requires_grad_(False)
    return frozen


def _default_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _nf4_config(dtype: torch.dtype, layers: Sequence[Layer]) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        llm_int8_skip_modules=[layer.path for layer in layers if layer.whole],
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def disable_dropout(model: PreTrainedModel) -> None:
    """Set every dropout rate to zero, also for train mode: of layers, in attributes of layers, and in the settings."""
    for module in (model.config, *model.modules()):
        names = [name for name, value in vars(module).items() if isinstance(value, float)]
        rates = [name for name in names if "drop" in name]
        if isinstance(module, torch.nn.Dropout):
            rates.append("p")
        for name in rates:
            setattr(module, name, 0.0)


def compute_dtype(base: Base, device: torch.device) -> torch.dtype:
    """The dtype that ``base.dtype`` means on ``device``."""
    is_half = base.dtype == "bfloat16" or (base.dtype == "auto" and device.type == "cuda")
    return torch.bfloat16 if is_half else torch.float32


def check_card(base: Base, device: torch.device) -> None:
    """Refuse a card that the dtype does not suit, before anything is read.

    Raises:
        ModelError: if ``dtype`` is auto and the card computes in bfloat16 only by emulation.
    """
    if device.type == "cuda":
        has_units = torch.cuda.is_bf16_supported(including_emulation=False)
        require_bfloat16(base, torch.cuda.get_device_name(device), has_units)


def check_training_device(base: Base, device: torch.device) -> None:
    """Refuse to train as `check_card` does, and with flex_attention on a CPU."""
    check_card(base, device)
    if _lacks_flex(base, device):
        raise ModelError(
            "model.base.attention is flex_attention, which has no backward pass on a CPU and, in torch 2.13, does not "
            "compile for rows of several lengths there; leave it out, or set sdpa"
        )


def _lacks_flex(base: Base, device: torch.device) -> bool:
    return device.type == "cpu" and base.attention == "flex_attention"


def require_bfloat16(base: Base, card: str, has_units: bool) -> None:
    """Refuse ``dtype: auto``, which means bfloat16 on a GPU, on a card without units for it.

    Args:
        base: the model that is computed with.
        card: its name.
        has_units: whether it has units for bfloat16.

    Raises:
        ModelError: naming the card and what to set.
    """
    if base.dtype == "auto" and not has_units:
        raise ModelError(
            f"model.base.dtype is auto, which is bfloat16 on a GPU, and {card} has no units for bfloat16; set "
            "model.base.dtype to float32 (4-bit weights stay in 4 bits), or to bfloat16 to emulate it slowly"
        )


def load_config(base: Base) -> PreTrainedConfig:
    """The configuration of the model, without its weights.

    Raises:
        ModelError: if there is no such model, or it is not a causal language model.
    """
    place = _place(base.path)
    if place.endswith(".gguf"):
        place = _converted(Path(place), base.path, None)
    with _loading_errors(base.path):
        return _config(base, place)


def load_tokenizer(
    base: Base,
    chat_template: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> PreTrainedTokenizerBase:
    """Load the tokenizer; it pads with EOS when it has no padding token of its own.

    Args:
        base: the model.
        chat_template: null for the tokenizer's own, ``chatml``, or the path of a Jinja file. Under ``chatml`` turns end
            with ``<|im_end|>``, which becomes the EOS token, or with the EOS token where the vocabulary lacks it.
        template_kwargs: arguments of the chat template, such as ``enable_thinking``. They become its defaults, so that
            they hold wherever the tokenizer goes; a row of data may have its own.

    Raises:
        ModelError: if there is no tokenizer, or it has no EOS token, or the template cannot be read or does not read
            one of the arguments.
    """
    from transformers import AutoTokenizer

    place = _place(base.path)
    if place.endswith(".gguf"):
        place = _converted(Path(place), base.path, None)
    with _loading_errors(base.path):
        tokenizer: PreTrainedTokenizerBase
        tokenizer = AutoTokenizer.from_pretrained(place, **_hub_options(base))
    if chat_template == "chatml":
        if "<|im_end|>" in tokenizer.get_vocab():
            tokenizer.eos_token = "<|im_end|>"
        tokenizer.chat_template = f"{{% set turn_end = {tokenizer.eos_token!r} %}}{CHATML}"
    elif chat_template is not None:
        try:
            tokenizer.chat_template = Path(chat_template).expanduser().read_text("utf-8")
        except OSError as error:
            raise ModelError(
                f"no chat template at {chat_template!r}; give the path of a Jinja file, or chatml, or leave it out"
            ) from error
    if tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer of {base.path!r} has no EOS token, so nothing could learn to stop; "
            "set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if template_kwargs:
        try:
            set_template_defaults(tokenizer, template_kwargs)
        except DataError as error:
            raise ModelError(f"{base.path!r}: {error}") from error
    return tokenizer


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash that changes with the vocabulary and the chat template."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    text = json.dumps([vocabulary, str(tokenizer.chat_template)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the chat template, the defaults of its arguments included."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]


def _place(path: str) -> str:
    """The file, folder or hub id that ``path`` means."""
    if path.startswith("package:"):
        path = resolve_package_path(path, ModelError)
    elif Path(path).expanduser().exists():
        path = str(Path(path).expanduser())
    if path.endswith(".gguf") or path.startswith(("/", ".", "~")):
        folder = Path(path)
        if not folder.exists():
            raise _not_found(path)
        if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
            raise ModelError(
                f"{path!r} holds an adapter, not a model; give as the base what it was trained on"
            )
    return path


def _not_found(path: str, reason: str = "") -> ModelError:
    detail = f" ({reason})" if reason else ""
    return ModelError(f"no model at {path!r}{detail}; give a hub id, a folder or a GGUF file")


def _hub_options(base: Base) -> dict[str, Any]:
    # Without trust_remote_code transformers would ask at the terminal.
    return {"revision": base.revision or "main", "trust_remote_code": False}


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether a model of this configuration continues text; encoders, which could be made to, do not."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    config_class = type(config)
    if config_class in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        return False
    return config_class in MODEL_FOR_CAUSAL_LM_MAPPING


def _config(base: Base, place: str, causal: bool = True) -> PreTrainedConfig:
    from transformers import AutoConfig

    config: PreTrainedConfig = AutoConfig.from_pretrained(place, **_hub_options(base))
    if causal and not is_causal(config):
        raise ModelError(
            f"{base.path!r} is a {config.model_type} model, not a causal language model; give one that is"
        )
    return config


@contextmanager
def _loading_errors(path: str) -> Iterator[None]:
    """Turn exceptions of transformers while it loads into one sentence."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        if isinstance(error, OSError) and "model.safetensors" not in reason:
            raise _not_found(path, reason) from error
        raise ModelError(f"cannot load {path!r}: {reason}") from error


def cache_root() -> Path:
    """The folder of what is computed once on a machine: ``LIT_ALIGN_CACHE``, or one in the user's cache."""
    return Path(os.environ.get("LIT_ALIGN_CACHE") or "~/.cache/lit_align").expanduser()


def _converted(file: Path, path: str, dtype: torch.dtype | None) -> str:
    """A cached folder with a GGUF file's model in ``dtype``, or (None) its tokenizer and configuration."""
    from filelock import FileLock

    file, stat = file.resolve(), file.stat()
    identity = f"{file}\n{stat.st_size}\n{stat.st_mtime_ns}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    cache = cache_root() / f"{file.stem}-{key}"
    target = cache / (str(dtype).removeprefix("torch.") if dtype else "tokenizer")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):  # processes that start together need not all convert
        if not target.exists():
            with _loading_errors(path), atomic_folder(target) as folder:
                _convert(file, folder, dtype)
    return str(target)


def _convert(file: Path, folder: Path, dtype: torch.dtype | None) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    if dtype is None:
        AutoConfig.from_pretrained(**source).save_pretrained(folder)
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    else:
        # Dequantized: otherwise kernels without a gradient would be fetched, to compute with the packed weights.
        quantization = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype=dtype, quantization_config=quantization
        )
        model.save_pretrained(folder)


def _disable_repacking(model: torch.nn.Module) -> None:
    """Prevent bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    Its first forward pass in eval mode replaces the weights for good by a layout whose product has no gradient:
    training goes on with wrong gradients and without an error.
    """
    from bitsandbytes.nn import Linear4bit  # type: ignore[attr-defined]

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
