"""A hash of a base's weights, from samples of its files: tells copies from other models before any weight is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lit_align.errors import LitAlignError, ModelError
from lit_align.package_files import resolve_package_path

SAMPLES, SAMPLE_NUMBERS = 4, 16  # places of a tensor that are read, and numbers at each
WINDOW = 64  # bytes of a GGUF file that are read at each of its places
GGUF_WINDOWS = 2048
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
SETTINGS = (
    "model_type",
    "hidden_act",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
)
"""Settings that change what a model computes and no shape of its weights."""


def base_content(path: str, revision: str | None = None) -> str | None:
    """A hash of the base's weights and of the settings that they are used with; None if they are not on this machine.

    Of each tensor its name, its shape and 64 numbers in 4 places enter, as float32: another folder, other shards, or a
    copy in float32 of bfloat16 weights have the same hash, and whatever training changed does not. A GGUF file has
    another one than the folder that it was converted from, because its weights were rounded.

    Args:
        path: hub id, local folder, GGUF file or ``package:name/file``.
        revision: branch, tag or commit on the hub.
    """
    try:
        file = Path(resolve_package_path(path, ModelError)).expanduser()
    except LitAlignError:
        return None
    if file.is_file():
        return _gguf_hash(file, file.stat().st_size, file.stat().st_mtime_ns)
    folder = file if file.is_dir() else _cached_snapshot(path, revision)
    if folder is None:
        return None
    shards = sorted(folder.glob("*.safetensors"))
    if not shards or not (folder / "config.json").is_file():
        return None
    newest = max(shard.stat().st_mtime_ns for shard in shards)
    return _folder_hash(folder, sum(shard.stat().st_size for shard in shards), newest)


def _cached_snapshot(path: str, revision: str | None) -> Path | None:
    """The folder of a hub model in the local cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(path, "config.json", revision=revision or "main")
    except HFValidationError:  # a path that does not exist
        return None
    return Path(config).parent if isinstance(config, str) else None


@cache
def _folder_hash(folder: Path, size: int, modified: int) -> str:
    """Hash of a folder's tensors and settings; ``size`` and ``modified`` tell whether the weights have changed."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    settings = {name: getattr(config, name, None) for name in SETTINGS}
    tensors = []
    for shard in sorted(folder.glob("*.safetensors")):
        tensors += list(_tensor_hashes(shard))
    text = json.dumps([settings, sorted(tensors)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _tensor_hashes(shard: Path) -> Iterator[str]:
    """Name, shape and hashed samples of each tensor in a safetensors file."""
    with shard.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(header_size))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            start, end = tensor["data_offsets"]
            data = _samples(file, 8 + header_size + start, end - start, tensor["dtype"])
            yield f"{name} {tensor['shape']} {hashlib.sha256(data).hexdigest()}"


def _samples(file: BinaryIO, start: int, size: int, dtype: str) -> bytes:
    """Numbers at evenly spread places of a tensor, floats as float32."""
    width = np.dtype(FLOATS[dtype]).itemsize if dtype in FLOATS else 1
    count = size // width
    pieces = []
    for index in range(SAMPLES):
        first = index * max(count - SAMPLE_NUMBERS, 0) // (SAMPLES - 1)
        file.seek(start + first * width)
        pieces.append(file.read(min(SAMPLE_NUMBERS, count) * width))
    data = b"".join(pieces)
    return data if dtype not in FLOATS else _as_float32(np.frombuffer(data, FLOATS[dtype]), dtype)


def _as_float32(values: npt.NDArray[Any], dtype: str) -> bytes:
    if dtype == "BF16":
        return (values.astype("<u4") << 16).tobytes()
    return values.astype("<f4").tobytes()


@cache
def _gguf_hash(file: Path, size: int, modified: int) -> str:
    """Hash of a GGUF file's size and of evenly spread pieces of it, settings and weights alike."""
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as opened:
        for index in range(GGUF_WINDOWS):
            opened.seek(index * max(size - WINDOW, 0) // (GGUF_WINDOWS - 1))
            digest.update(opened.read(WINDOW))
    return digest.hexdigest()[:32]
