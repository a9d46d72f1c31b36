"""Check of a forward pass over packed trees against ordinary passes: some architectures are wrong without an error."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from lit_align.errors import ModelError
from lit_align.functional.trees import unroll
from lit_align.types import PackedTrees, TokenLogps

TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}
"""Largest error of a log-probability, relative to the largest logit."""
HALF_PRECISION_TOLERANCE = 3e-2

MODEL_ERRORS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Exceptions that models raise when given a mask of an unexpected shape."""


class TreeObstacles(NamedTuple):
    """Why a model does not read packed trees, or does not score with the fused head; None where it does.

    Args:
        head: what is wrong with the fused head.
        rows: what is wrong with trees, so that each response gets a row.
    """

    head: str | None
    rows: str | None


class TreeCheck:
    """A few tokens with their correct log-probabilities under ``model``, to compare a forward pass with.

    As a context it puts the model in eval mode without gradient and narrows its sliding window.

    Args:
        model: a causal language model.

    Attributes:
        trees: the packed tokens.
    """

    trees: PackedTrees

    def __init__(self, model: Any) -> None:
        self.model = model
        self._contexts = ExitStack()

    def __enter__(self) -> Self:
        contexts = self._contexts
        contexts.enter_context(torch.no_grad())
        contexts.enter_context(_eval_mode(self.model))
        contexts.enter_context(_narrow_window(self.model.config.get_text_config()))
        self.trees = _example_trees(self.model.get_input_embeddings().weight)
        logits = _run_response_by_response(self.model, self.trees).float()
        log_probs = logits.log_softmax(-1)
        target = self.trees.target[:, None]
        self._expected = log_probs.gather(1, target)[:, 0]
        relative_tolerance = TOLERANCE.get(self.model.dtype, HALF_PRECISION_TOLERANCE)
        largest_logit = logits.abs().max().item()
        self._tolerance = relative_tolerance * largest_logit
        return self

    def __exit__(self, *error: Any) -> None:
        self._contexts.__exit__(*error)

    def hidden(self) -> Tensor:
        """The correct hidden states before the head, ``[n, d]``."""
        return _run_response_by_response(backbone(self.model), self.trees)

    def find_error(self, forward: Callable[[], TokenLogps]) -> str | None:
        """The reason why ``forward`` is wrong, or None if its log-probabilities are correct."""
        try:
            error = (forward().logps - self._expected).abs().max().item()
        except torch.OutOfMemoryError:
            raise
        except MODEL_ERRORS as exception:
            first_line, *_ = str(exception).strip().splitlines() or [""]
            return f"{type(exception).__name__}: {first_line}"
        if error <= self._tolerance:
            return None
        return f"log-probabilities are off by {error:.2g}"

    def require_correct(self, forward: Callable[[], TokenLogps]) -> None:
        """Refuse a model whose log-probabilities are wrong even with one response a row.

        Raises:
            ModelError: naming the model and the error.
        """
        error = self.find_error(forward)
        if error:
            raise ModelError(
                f"{_name(self.model)} gives wrong log-probabilities even with one response a row ({error}); "
                "use another base or another attention implementation"
            )


def warn_plain_head(model: Any, reason: str) -> None:
    """Warn that all logits are computed."""
    _warn(
        f"the head of {_name(model)} is more than a linear layer ({reason}): all logits are computed, in more memory"
    )


def warn_rows(model: Any, reason: str) -> None:
    """Warn that each response is read in a row of its own."""
    _warn(
        f"{_name(model)} cannot read packed trees ({reason}): each response gets a row of its own, for more computing"
    )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)  # the caller of TreeForward.check


def _name(model: Any) -> str:
    name = model.name_or_path or type(model).__name__
    return f"{name!r} (model type {model.config.get_text_config().model_type})"


def backbone(model: Any) -> Any:
    """The layers of a causal language model without its head, also where it names no base model of its own."""
    from transformers import PreTrainedModel

    if model.base_model is not model:
        return model.base_model
    inner = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    return inner[0] if len(inner) == 1 else model


def _run_response_by_response(module: nn.Module, trees: PackedTrees) -> Tensor:
    """The output of ``module`` where each scored token is predicted, ``[n, ...]``, with each response read alone."""
    rows = unroll(trees)
    width = rows.tree.shape[1]
    outputs = []
    for ids, tree in zip(rows.input_ids, rows.tree, strict=True):
        row_ids = ids[tree >= 0]
        output = module(input_ids=row_ids[None], use_cache=False)
        outputs.append(output[0][0])
    predicted = []
    for index in rows.predictor.tolist():
        row, column = divmod(index, width)
        predicted.append(outputs[row][column])
    return torch.stack(predicted)


def _example_trees(embeddings: Tensor) -> PackedTrees:
    """Two trees in one row: a prompt of 5 tokens with two responses of 3, and one of 4 with one of 3."""
    device = embeddings.device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(embeddings), (18,), generator=generator)
    position = torch.tensor([*range(8), *range(5, 8), *range(7)])
    tree = torch.tensor([0] * 11 + [1] * 7)
    response = torch.tensor([-1] * 5 + [0] * 3 + [1] * 3 + [-1] * 4 + [2] * 3)
    predictor = torch.tensor([4, 5, 6, 4, 8, 9, 14, 15, 16])
    is_scored = response >= 0
    return PackedTrees(
        input_ids=ids[None].to(device),
        position_ids=position[None].to(device),
        tree=tree[None].to(device),
        response=response[None].to(device),
        predictor=predictor.to(device),
        target=ids[is_scored].to(device),
        owner=response[is_scored].to(device),
        responses=3,
    )


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode; afterwards in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _narrow_window(config: Any) -> Iterator[None]:
    """A sliding window of four tokens, so that a mask without a window gives wrong numbers on a short text too."""
    window = getattr(config, "sliding_window", None)
    if window:
        config.sliding_window = min(window, 4)
    try:
        yield
    finally:
        if window:
            config.sliding_window = window
