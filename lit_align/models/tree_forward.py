"""Log-probabilities of packed trees under one loaded causal language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn

from lit_align.functional.logps import LogitTransform, token_logps
from lit_align.functional.trees import FLEX_BLOCK_SIZE, last_tokens, lengthen, unroll
from lit_align.models.masks import masks, packing_obstacle
from lit_align.models.probe import probe
from lit_align.types import PackedTrees, TokenLogps

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TreeForward:
    """How one loaded causal language model reads packed trees.

    In layout ``trees`` the model reads the rows as they are packed. Models that cannot (recurrent or convolutional
    layers, chunked attention, positions counted by column) read each response in a row of its own, layout ``rows``: the
    same numbers for more computing. With head ``fused`` only scored tokens meet the language-model head, in chunks;
    models whose head is more than a linear layer and `LogitTransform` compute all their logits, head ``plain``.

    Args:
        model: a causal language model, adapters and all; of a PEFT model what ``get_base_model()`` gives.

    Attributes:
        layout: how the model reads trees.
        head: where log-probabilities come from.
    """

    layout: Literal["trees", "rows"]
    head: Literal["fused", "plain"]

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = cast("Any", model)
        self.layout = "trees" if packing_obstacle(model) is None else "rows"
        head = self.model.get_output_embeddings()
        # Adapters and 4-bit weights come as other classes: what they compute is not their weight.
        self.head = "fused" if type(head) is nn.Linear else "plain"

    def __call__(
        self, trees: PackedTrees, statistics: bool = False, temperature: float = 1.0
    ) -> TokenLogps:
        """Score ``trees``; every field is ``[n]``, in the order of their scored tokens.

        Args:
            trees: on the model's device.
            statistics: also report entropy, mean logit and top-1 accuracy, detached.
            temperature: logits are divided by it.
        """
        if self.head == "fused":
            return self.score(self.hidden(trees), trees.target, statistics, temperature)
        logits = self._run(self.model, trees).float() / temperature
        logps = logits.log_softmax(-1)
        picked = TokenLogps(logps.gather(1, trees.target[:, None])[:, 0])
        if not statistics:
            return picked
        known = logps.detach()
        entropy, top1 = -(known.exp() * known).sum(-1), known.argmax(-1) == trees.target
        collision = (2 * known).logsumexp(-1)
        return picked._replace(
            entropy=entropy, mean_logit=logits.detach().mean(-1), top1=top1, collision=collision
        )

    def check(self) -> None:
        """Settle ``layout`` and ``head`` by comparing with ordinary forward passes on a few tokens.

        Some architectures read packed trees wrong without an error. A model that does is unrolled, one whose head is
        more than a linear layer gets the plain head; each is said once. Modes, gradients and random state stay as
        they are.

        Raises:
            ModelError: if even unrolled rows come out wrong.
        """
        probe(self)

    def hidden(self, trees: PackedTrees) -> Tensor:
        """What the head reads to predict each scored token, ``[n, d]``."""
        return self._run(self.model.base_model, trees)

    def last_hidden(self, trees: PackedTrees) -> Tensor:
        """What a head of scores reads: the last layer at the last token of each response, ``[responses, d]``."""
        return self.hidden(last_tokens(trees))

    def score(
        self, hidden: Tensor, target: Tensor, statistics: bool = False, temperature: float = 1.0
    ) -> TokenLogps:
        """Log-probability of each target, ``[n]``, by the fused head, from what the head reads, ``[n, d]``."""
        head, finish = self.model.get_output_embeddings(), self.finish.at(temperature)
        return token_logps(
            hidden, head.weight, head.bias, target, finish=finish, statistics=statistics
        )

    @property
    def finish(self) -> LogitTransform:
        """What the model does to its logits after the head, as its configuration spells it."""
        scale, config = 1.0, self.model.config.get_text_config()
        if divisor := getattr(config, "logits_scaling", None):  # Granite
            scale /= divisor
        if (
            isinstance(factor := getattr(config, "logit_scale", None), float | int) and factor
        ):  # Cohere
            scale *= factor
        return LogitTransform(
            scale, getattr(config, "final_logit_softcapping", None) or None
        )  # Gemma

    def _run(self, module: nn.Module, trees: PackedTrees) -> Tensor:
        """The first output of ``module`` where each scored token is predicted, ``[n, ...]``."""
        if self.layout == "rows":
            trees = unroll(trees)
            mask = trees.tree >= 0
            mask[:, 0] = (
                True  # a response without tokens leaves its row empty, and attention over nothing is NaN
            )
            # Positions are columns, as models assume; those that count them otherwise take no position_ids.
            out = module(input_ids=trees.input_ids, attention_mask=mask.long(), use_cache=False)
        else:
            if self.model.config.get_text_config()._attn_implementation == "flex_attention":
                trees = lengthen(trees, FLEX_BLOCK_SIZE)
            mask = masks(self.model, trees)
            out = module(
                input_ids=trees.input_ids,
                attention_mask=mask,
                position_ids=trees.position_ids,
                use_cache=False,
            )
        states: Tensor = out[0]
        return states.flatten(0, 1)[trees.predictor]
