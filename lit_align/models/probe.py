"""Does a model read packed trees right? Some architectures do not, and raise no error: ask before training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_align.errors import ModelError
from lit_align.functional.trees import unroll
from lit_align.models.masks import packing_obstacle
from lit_align.types import PackedTrees, TokenLogps

if TYPE_CHECKING:
    from lit_align.models.tree_forward import TreeForward

TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}
"""How far log-probabilities may be off, as a part of the largest logit; 3e-2 in half precision."""

REFUSALS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What models raise, deep inside, when given a mask of a shape that they do not know."""


@torch.no_grad()
def probe(forward: TreeForward) -> None:
    """Compare ``forward`` with ordinary passes over the same few tokens, and settle its layout and head.

    Raises:
        ModelError: if log-probabilities are wrong even with one response a row.
    """
    model = forward.model
    config = model.config.get_text_config()
    name = f"{model.name_or_path or type(model).__name__!r} (model type {config.model_type})"
    with _as_for_scoring(model), _narrow_window(config):
        trees = _sample(model.get_input_embeddings().weight)
        logits = _one_by_one(model, trees).float()
        right = logits.log_softmax(-1).gather(1, trees.target[:, None])[:, 0]
        tolerance = TOLERANCE.get(model.dtype, 3e-2) * logits.abs().max().item()

        def fault(scored: Callable[[], TokenLogps]) -> str | None:
            try:
                error = (scored().logps - right).abs().max().item()
            except torch.OutOfMemoryError:
                raise
            except REFUSALS as refusal:
                return (
                    f"{type(refusal).__name__}: {next(iter(str(refusal).strip().splitlines()), '')}"
                )
            return None if error <= tolerance else f"log-probabilities are off by {error:.2g}"

        if forward.head == "plain":
            reason: str | None = f"it is of class {type(model.get_output_embeddings()).__name__}"
        else:
            reason = fault(
                lambda: forward.score(_one_by_one(model.base_model, trees), trees.target)
            )
        if reason is not None:
            forward.head = "plain"
            _say(
                f"the head of {name} is more than a linear layer ({reason}): all logits get computed, in more memory"
            )
        reason = (
            packing_obstacle(model) if forward.layout == "rows" else fault(lambda: forward(trees))
        )
        if reason is not None:
            forward.layout = "rows"
            if wrong := fault(lambda: forward(trees)):
                raise ModelError(
                    f"{name} gives wrong log-probabilities even with one response a row ({wrong}); "
                    "use another base or another attention implementation"
                )
            _say(
                f"{name} cannot read packed trees ({reason}): each response gets a row of its own, for more computing"
            )


def _say(what: str) -> None:
    warnings.warn(what, stacklevel=4)  # whoever called Forward.probe


def _one_by_one(module: nn.Module, trees: PackedTrees) -> Tensor:
    """What ``module`` puts out where each scored token is predicted, ``[n, ...]``: each response read alone."""
    rows = unroll(trees)
    width = rows.tree.shape[1]
    read = [
        module(input_ids=ids[tree >= 0][None], use_cache=False)[0][0]
        for ids, tree in zip(rows.input_ids, rows.tree, strict=True)
    ]
    return torch.stack([read[at // width][at % width] for at in rows.predictor.tolist()])


def _sample(embeddings: Tensor) -> PackedTrees:
    """Two trees in one row: a prompt of 5 tokens with two responses of 3, and one of 4 with one of 3."""
    ids = torch.randint(len(embeddings), (18,), generator=torch.Generator().manual_seed(0))
    position = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6])
    tree = torch.tensor([0] * 11 + [1] * 7)
    response = torch.tensor([-1] * 5 + [0] * 3 + [1] * 3 + [-1] * 4 + [2] * 3)
    predictor = torch.tensor([4, 5, 6, 4, 8, 9, 14, 15, 16])
    scored = response >= 0
    on = embeddings.device
    return PackedTrees(
        input_ids=ids[None].to(on),
        position_ids=position[None].to(on),
        tree=tree[None].to(on),
        response=response[None].to(on),
        predictor=predictor.to(on),
        target=ids[scored].to(on),
        owner=response[scored].to(on),
        responses=3,
    )


@contextmanager
def _as_for_scoring(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode, and afterwards in the one it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _narrow_window(config: Any) -> Iterator[None]:
    """A sliding window of four tokens: a mask without one is found out on a short text, however wide the window is."""
    window = getattr(config, "sliding_window", None)
    if window:
        config.sliding_window = min(window, 4)
    try:
        yield
    finally:
        if window:
            config.sliding_window = window
