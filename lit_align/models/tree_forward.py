"""Forward pass over packed trees: log-probabilities and hidden states under one causal language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn

from lit_align.functional.divergence import Predictions
from lit_align.functional.logps import LogitTransform, token_logps
from lit_align.functional.trees import (
    FLEX_BLOCK_SIZE,
    last_tokens,
    pad_rows,
    scored_tokens,
    unroll,
)
from lit_align.models.masks import masks_for_model, packing_obstacle
from lit_align.models.tree_check import (
    TreeCheck,
    TreeObstacles,
    backbone,
    warn_plain_head,
    warn_rows,
)
from lit_align.types import PackedTrees, TokenLogps

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel


class TreeForward:
    """Forward pass of one causal language model over packed trees.

    In layout ``trees`` the model reads the rows as they are packed. Models that cannot (recurrent or convolutional
    layers, chunked attention, positions counted by column) read each response in a row of its own, layout ``rows``: the
    same numbers for more computing. With head ``fused`` only scored tokens meet the language-model head, in chunks;
    models whose head is more than a linear layer and a `LogitTransform` compute all their logits, head ``plain``.

    Args:
        model: a causal language model with its adapters; for a PEFT model, the result of ``get_base_model()``.

    Attributes:
        layout: how the model reads trees.
        head: how log-probabilities are computed.
    """

    layout: Literal["trees", "rows"]
    head: Literal["fused", "plain"]

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = cast("Any", model)
        self.layout = "trees" if packing_obstacle(model) is None else "rows"
        head = self.model.get_output_embeddings()
        # Adapters and 4-bit weights have other classes: they compute something else than a product with their weight.
        self.head = "fused" if type(head) is nn.Linear else "plain"

    def __call__(
        self, trees: PackedTrees, statistics: bool = False, temperature: float = 1.0
    ) -> TokenLogps:
        """Log-probabilities of the scored tokens; every field is ``[n]``.

        Args:
            trees: on the model's device.
            statistics: also return entropy, mean logit, top-1 accuracy and collision probability, detached.
            temperature: logits are divided by it.
        """
        return self.score(self.predictions(trees, temperature), trees.target, statistics)

    def predictions(self, trees: PackedTrees, temperature: float = 1.0) -> Predictions:
        """What the model predicts at the scored tokens, to be scored, or compared with another model's.

        Args:
            trees: on the model's device.
            temperature: logits are divided by it.
        """
        if self.head == "plain":
            return Predictions(self._run(self.model, trees).float() / temperature)
        return self._under_head(self.hidden(trees), temperature)

    def score(
        self, predictions: Predictions, target: Tensor, statistics: bool = False
    ) -> TokenLogps:
        """Log-probability of each target, ``[n]``, under `predictions`; every field is ``[n]``.

        Args:
            predictions: of the tokens before each.
            target: ids, ``[n]``.
            statistics: also return entropy, mean logit, top-1 accuracy and collision probability, detached.
        """
        states, weight, bias, transform = predictions
        if weight is not None:
            return token_logps(
                states, weight, bias, target, transform=transform, statistics=statistics
            )
        log_probs = states.log_softmax(-1)
        token = TokenLogps(log_probs.gather(1, target[:, None])[:, 0])
        if not statistics:
            return token
        log_probs = log_probs.detach()
        return token._replace(
            entropy=-(log_probs.exp() * log_probs).sum(-1),
            mean_logit=states.detach().mean(-1),
            top1=log_probs.argmax(-1) == target,
            collision=(2 * log_probs).logsumexp(-1),
        )

    def check(self) -> TreeObstacles:
        """Choose ``layout`` and ``head`` by comparing with ordinary forward passes on a few tokens.

        Some architectures read packed trees wrong without an error. Such a model gets layout ``rows``, one whose head
        is more than a linear layer the plain head, each with a warning. Modes, gradients and random state stay as they
        are.

        Returns:
            Why it is not layout ``trees`` and the fused head, if so.

        Raises:
            ModelError: if log-probabilities are wrong even with one response a row.
        """
        with TreeCheck(self.model) as check:
            if self.head == "plain":
                head_class = type(self.model.get_output_embeddings()).__name__
                head_reason: str | None = f"it is of class {head_class}"
            else:
                hidden, target = check.hidden(), check.trees.target
                head_reason = check.find_error(lambda: self.score_hidden(hidden, target))
            if head_reason is not None:
                self.head = "plain"
            if self.layout == "rows":
                rows_reason = packing_obstacle(self.model)
            else:
                rows_reason = check.find_error(lambda: self(check.trees))
            if rows_reason is not None:
                self.layout = "rows"
                check.require_correct(lambda: self(check.trees))
        obstacles = TreeObstacles(head_reason, rows_reason)
        self.respect(obstacles)
        return obstacles

    def respect(self, obstacles: TreeObstacles) -> None:
        """Set ``layout`` and ``head`` to what a check of such a model has shown to be right, with its warnings."""
        if obstacles.head is not None:
            self.head = "plain"
            warn_plain_head(self.model, obstacles.head)
        if obstacles.rows is not None:
            self.layout = "rows"
            warn_rows(self.model, obstacles.rows)

    def hidden(self, trees: PackedTrees) -> Tensor:
        """Hidden states that predict the scored tokens, ``[n, d]``: the input of the head."""
        return self._run(backbone(self.model), trees)

    def last_hidden(self, trees: PackedTrees) -> Tensor:
        """Hidden states at the last token of each response, ``[responses, d]``: the input of a score head."""
        return self.hidden(last_tokens(trees))

    def scored_hidden(self, trees: PackedTrees) -> Tensor:
        """Hidden states at the scored tokens themselves, ``[n, d]``: what a score head reads of parts of responses."""
        return self.hidden(scored_tokens(trees))

    def score_hidden(
        self, hidden: Tensor, target: Tensor, statistics: bool = False, temperature: float = 1.0
    ) -> TokenLogps:
        """Log-probability of each target, ``[n]``, by the fused head, from hidden states, ``[n, d]``."""
        return self.score(self._under_head(hidden, temperature), target, statistics)

    def _under_head(self, hidden: Tensor, temperature: float) -> Predictions:
        head = self.model.get_output_embeddings()
        transform = self.logit_transform.at_temperature(temperature)
        return Predictions(hidden, head.weight, head.bias, transform)

    @property
    def logit_transform(self) -> LogitTransform:
        """Scale and soft cap of the logits after the head, from the model's configuration."""
        scale = 1.0
        config = self.model.config.get_text_config()
        divisor = getattr(config, "logits_scaling", None)  # Granite
        if divisor:
            scale /= divisor
        factor = getattr(config, "logit_scale", None)  # Cohere
        if isinstance(factor, float | int) and factor:
            scale *= factor
        softcap = getattr(config, "final_logit_softcapping", None) or None  # Gemma
        return LogitTransform(scale, softcap)

    def _run(self, module: nn.Module, trees: PackedTrees) -> Tensor:
        """The first output of ``module`` where each scored token is predicted, ``[n, ...]``."""
        if self.layout == "rows":
            trees = unroll(trees)
            mask = trees.tree >= 0
            # A response without tokens leaves its row empty, and attention over nothing is NaN.
            mask[:, 0] = True
            # Positions are columns, as models assume; those that count otherwise take no position_ids.
            outputs = module(input_ids=trees.input_ids, attention_mask=mask.long(), use_cache=False)
        else:
            if self.model.config.get_text_config()._attn_implementation == "flex_attention":
                trees = pad_rows(trees, FLEX_BLOCK_SIZE)
            outputs = module(
                input_ids=trees.input_ids,
                attention_mask=masks_for_model(self.model, trees),
                position_ids=trees.position_ids,
                use_cache=False,
            )
        states: Tensor = outputs[0]
        return states.flatten(0, 1)[trees.predictor]
