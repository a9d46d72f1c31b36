"""Remember what the check of a model's tree reading has shown, for the next start with the same code and settings.

The check costs several forward passes. It depends on code and configuration, not on the weights: the key is made of
the versions and sources that compute, of the configuration, and of how each kind of layer is carried out.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import torch

from lit_align.functional import logps, trees
from lit_align.installed_versions import installed_version
from lit_align.models import fused, masks, tree_check, tree_forward
from lit_align.models.load import cache_root
from lit_align.models.remembered import recall, remember
from lit_align.models.tree_check import TreeObstacles
from lit_align.models.tree_forward import TreeForward

PACKAGES = (
    *("torch", "transformers", "peft", "bitsandbytes", "accelerate", "triton", "kernels"),
    *("liger-kernel", "flash-attn", "flash-linear-attention", "causal-conv1d", "mamba-ssm"),
)
"""Packages whose code a forward pass runs, if they are installed."""

OWN_MODULES = (tree_forward, tree_check, masks, trees, logps)
FUSED_FILES = sorted(Path(inspect.getfile(fused)).parent.glob("*.py"))
NAMES = ("_name_or_path", "name_or_path", "transformers_version")
"""Parts of a configuration that change nothing that is computed."""


def check_once(forward: TreeForward) -> None:
    """`TreeForward.check`, or what it has shown before for such a model on this machine.

    Args:
        forward: newly made, of a model with its adapters.

    Raises:
        ModelError: if log-probabilities are wrong even with one response a row; this is never remembered.
    """
    file = cache_root() / "tree_checks" / f"{check_key(forward.model)}.json"
    known = _obstacles_in(recall(file))
    if known is None:
        remember(file, forward.check()._asdict())
    else:
        forward.respect(known)


def check_key(model: Any) -> str:
    """A digest of all that the check of a model depends on.

    Args:
        model: a causal language model with its adapters.
    """
    device = next(model.parameters()).device
    is_cuda = device.type == "cuda"
    files = [inspect.getfile(module) for module in (*OWN_MODULES, type(model))]
    files += map(str, FUSED_FILES)
    config = {key: value for key, value in model.config.to_dict().items() if key not in NAMES}
    identity = {
        "versions": {package: installed_version(package) for package in PACKAGES},
        "sources": [_digest(file) for file in files],
        "config": config,
        "attention": model.config._attn_implementation,
        "dtype": str(model.dtype),
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        "layers": sorted(_layer_kinds(model)),
    }
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _layer_kinds(model: Any) -> set[str]:
    """Class and forward function of every kind of layer; a function that was replaced has another name."""
    kinds = set()
    for module in model.modules():
        function = module.forward
        function = getattr(function, "__func__", function)
        kinds.add(f"{_path(type(module))} {_path(function)}")
    return kinds


def _path(part: Any) -> str:
    return f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', type(part).__name__)}"


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _obstacles_in(content: dict[str, Any]) -> TreeObstacles | None:
    """What is remembered; None for nothing, or for something else."""
    try:
        obstacles = TreeObstacles(content["head"], content["rows"])
    except KeyError:
        return None
    is_text = all(reason is None or isinstance(reason, str) for reason in obstacles)
    return obstacles if is_text else None
