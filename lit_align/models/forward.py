"""How one loaded causal language model reads packed trees, and whether it reads them right."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lit_align.batches import PackedTrees, TokenLogps
from lit_align.errors import ModelError
from lit_align.functional.logps import Finish, token_logps
from lit_align.functional.trees import lengthen, unroll, visible

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

FLEX_BLOCK = 128
"""FlexAttention's kernels work on squares of this many queries and keys."""

FULL, SLIDING = PACKABLE = "full_attention", "sliding_attention"
"""Layer types whose reading of a token depends on nothing but what the mask lets it see, and its position."""

FORMS = ("sdpa", "eager", "flex_attention")
"""Attention implementations that take a mask for each pair of tokens."""

REFUSED = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What models raise, deep inside, when given a mask of a shape that they do not know."""


class Forward:
    """Log-probabilities of the scored tokens of packed trees under one model.

    In layout ``trees`` the model reads the rows as they are packed. Models that cannot (recurrent or convolutional
    layers, chunked attention, positions counted by column) read each response in a row of its own, layout ``rows``: the
    same numbers for more computing. With head ``fused`` only scored tokens meet the language-model head, in chunks; models
    whose head is more than a linear layer and `Finish` compute all their logits, head ``plain``.

    Args:
        model: a causal language model, adapters and all; of a PEFT model what ``get_base_model()`` gives.

    Attributes:
        layout: how the model reads trees.
        head: where log-probabilities come from.
    """

    layout: Literal["trees", "rows"]
    head: Literal["fused", "plain"]

    def __init__(self, model: PreTrainedModel) -> None:
        self.model: Any = model
        self.config: Any = model.config.get_text_config()
        self.layout = "trees" if self._unpackable() is None else "rows"
        # Adapters and 4-bit weights come as other classes: what they compute is not their weight.
        self.head = "fused" if type(self.model.get_output_embeddings()) is nn.Linear else "plain"

    def __call__(self, trees: PackedTrees, statistics: bool = False) -> TokenLogps:
        """Score ``trees``; every field is ``[n]``, in the order of their scored tokens.

        Args:
            trees: on the model's device.
            statistics: also report entropy, mean logit and top-1 accuracy, detached.
        """
        if self.head == "fused":
            return self._fused(self.hidden(trees), trees, statistics)
        logits, predictor = self._run(self.model, trees)
        logps = logits[predictor].float().log_softmax(-1)
        picked = TokenLogps(logps.gather(1, trees.target[:, None])[:, 0])
        if not statistics:
            return picked
        known = logps.detach()
        return picked._replace(
            entropy=-(known.exp() * known).sum(-1),
            mean_logit=logits.detach()[predictor].float().mean(-1),
            top1=known.argmax(-1) == trees.target,
        )

    def hidden(self, trees: PackedTrees) -> Tensor:
        """What the head reads to predict each scored token, ``[n, d]``."""
        states, predictor = self._run(self.model.base_model, trees)
        return states[predictor]

    @property
    def finish(self) -> Finish:
        """What the model does to its logits after the head, as its configuration spells it."""
        scale, config = 1.0, self.config
        if divisor := getattr(config, "logits_scaling", None):  # Granite
            scale /= divisor
        if isinstance(factor := getattr(config, "logit_scale", None), float | int) and factor:  # Cohere
            scale *= factor
        return Finish(scale, getattr(config, "final_logit_softcapping", None) or None)  # Gemma

    def _fused(self, hidden: Tensor, trees: PackedTrees, statistics: bool) -> TokenLogps:
        head = self.model.get_output_embeddings()
        return token_logps(hidden, head.weight, head.bias, trees.target, finish=self.finish, statistics=statistics)

    def _run(self, module: nn.Module, trees: PackedTrees) -> tuple[Tensor, Tensor]:
        """The first output of ``module``, ``[rows * length, ...]``, and where in it each scored token is predicted."""
        if self.layout == "rows":
            trees = unroll(trees)
            mask = trees.tree >= 0
            mask[:, 0] = True  # a response without tokens leaves its row empty, and attention over nothing is NaN
            out = module(input_ids=trees.input_ids, attention_mask=mask.long(), use_cache=False)[
                0
            ]  # positions are columns
        else:
            if self.config._attn_implementation == "flex_attention":
                trees = lengthen(trees, FLEX_BLOCK)
            out = module(
                input_ids=trees.input_ids,
                attention_mask=self._masks(trees),
                position_ids=trees.position_ids,
                use_cache=False,
            )[0]
        return out.flatten(0, 1), trees.predictor

    # ------------------------------------------------------------------ masks

    def _unpackable(self) -> str | None:
        """Why the model cannot read trees, as far as its configuration tells; None if nothing speaks against it."""
        if foreign := sorted(set(getattr(self.config, "layer_types", None) or ()).difference(PACKABLE)):
            return f"its layers include {', '.join(foreign)}"
        if (attention := self.config._attn_implementation) not in FORMS:
            return f"its attention, {attention!r}, takes no mask for each pair of tokens"
        return None

    def _masks(self, trees: PackedTrees) -> Tensor | BlockMask | dict[str, Tensor | BlockMask]:
        """The mask of each layer type; one mask where all layers are alike."""
        window = getattr(self.config, "sliding_window", None) or None
        kinds = set(getattr(self.config, "layer_types", None) or ())
        if not kinds and window is not None:
            # Such models window every layer or none; only those that do import what builds the mask.
            source = sys.modules[type(self.model.base_model).__module__]
            kinds = {SLIDING if hasattr(source, "create_sliding_window_causal_mask") else FULL}
        masks = {kind: self._mask(trees, window if kind == SLIDING else None) for kind in kinds or {FULL}}
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _mask(self, trees: PackedTrees, window: int | None) -> Tensor | BlockMask:
        """What ``visible`` says, in the form that the attention implementation takes."""
        attention = self.config._attn_implementation
        if attention == "flex_attention":
            return _block_mask(trees, window)
        seen = visible(trees, window)[:, None]
        if attention == "sdpa":
            return seen
        # Eager attention adds its mask to the scores: a boolean one would be added too, silently.
        dtype = self.model.get_input_embeddings().weight.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)

    # ------------------------------------------------------------------ probe

    @torch.no_grad()
    def probe(self) -> None:
        """Compare with ordinary forward passes on a few tokens; settle ``layout`` and ``head`` by what comes out.

        Some architectures read packed trees wrong without an error. A model that does is unrolled, one whose head is
        more than a linear layer gets the plain head; each is said once. Modes, gradients and random state stay as
        they are.

        Raises:
            ModelError: if even unrolled rows come out wrong.
        """
        name = f"{self.model.name_or_path or type(self.model).__name__!r} (model type {self.config.model_type})"
        with _as_for_scoring(self.model), _narrow_window(self.config):
            trees = self._sample()
            logits = self._ordinary(self.model, trees).float()
            plain = logits.log_softmax(-1).gather(1, trees.target[:, None])[:, 0]
            exact = self.model.dtype in (torch.float32, torch.float64)
            tolerance = (1e-3 if exact else 3e-2) * logits.abs().max().item()

            def fault(scored: Callable[[], TokenLogps]) -> str | None:
                try:
                    error = (scored().logps - plain).abs().max().item()
                except torch.OutOfMemoryError:
                    raise
                except REFUSED as refusal:
                    return f"{type(refusal).__name__}: {str(refusal).strip().splitlines()[0] if str(refusal) else ''}"
                return None if error <= tolerance else f"log-probabilities are off by {error:.2g}"

            if self.head == "fused" and (
                wrong := fault(lambda: self._fused(self._ordinary(self.model.base_model, trees), trees, False))
            ):
                self.head = "plain"
                warnings.warn(
                    f"the head of {name} is more than a linear layer ({wrong}): all logits are computed, which takes memory",
                    stacklevel=2,
                )
            reason = self._unpackable() if self.layout == "rows" else fault(lambda: self(trees))
            if reason is None:
                return
            self.layout = "rows"
            if wrong := fault(lambda: self(trees)):
                raise ModelError(
                    f"{name} gives wrong log-probabilities even with one response a row ({wrong}); "
                    "use another base or another attention implementation"
                )
            warnings.warn(
                f"{name} cannot read packed trees ({reason}): each response gets a row of its own, which takes time",
                stacklevel=2,
            )

    def _ordinary(self, module: nn.Module, trees: PackedTrees) -> Tensor:
        """What ``module`` says where each scored token is predicted, each response read alone, ``[n, ...]``."""
        rows = unroll(trees)
        width = rows.tree.shape[1]
        read = [
            module(input_ids=ids[tree >= 0][None], use_cache=False)[0][0]
            for ids, tree in zip(rows.input_ids, rows.tree, strict=True)
        ]
        return torch.stack([read[at // width][at % width] for at in rows.predictor.tolist()])

    def _sample(self) -> PackedTrees:
        """Two trees in one row: a prompt of 5 tokens with two responses of 3, and one of 4 with one of 3."""
        weight: Tensor = self.model.get_input_embeddings().weight
        ids = torch.randint(len(weight), (18,), generator=torch.Generator().manual_seed(0))
        position = [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6]
        tree = [0] * 11 + [1] * 7
        response = [-1] * 5 + [0] * 3 + [1] * 3 + [-1] * 4 + [2] * 3
        scored = [at for at, owner in enumerate(response) if owner >= 0]

        def there(values: Any) -> Tensor:
            return torch.as_tensor(values).to(weight.device)

        return PackedTrees(
            *(there(field)[None] for field in (ids, position, tree, response)),
            predictor=there([4, 5, 6, 4, 8, 9, 14, 15, 16]),
            target=there(ids[scored]),
            owner=there([response[at] for at in scored]),
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
    """A sliding window of a few tokens: a wrong mask shows on a short text, whatever the window."""
    window = getattr(config, "sliding_window", None)
    if window:
        config.sliding_window = min(window, 4)
    try:
        yield
    finally:
        if window:
            config.sliding_window = window


def _block_mask(trees: PackedTrees, window: int | None) -> BlockMask:
    """What ``visible`` says, for FlexAttention, which asks pair by pair and skips blocks where nothing is seen."""
    from torch.nn.attention.flex_attention import create_block_mask

    _, position, tree, response = trees[:4]

    def seen(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        earlier, same_tree = query >= key, tree[row, query] == tree[row, key]
        on_the_way = (response[row, key] < 0) | (response[row, query] == response[row, key])
        allowed = earlier & same_tree & on_the_way
        return allowed if window is None else allowed & (position[row, query] - position[row, key] < window)

    rows, length = tree.shape
    return create_block_mask(
        seen, rows, None, length, length, device=tree.device, BLOCK_SIZE=FLEX_BLOCK, _compile=tree.is_cuda
    )
