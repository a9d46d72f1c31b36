"""What a data module reads from the stage that trains on its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase
    from lit_align.data.formats import Format


class BestOfSettings(Protocol):
    """Settings of best-of-N sampling.

    Attributes:
        n: answers to each prompt.
    """

    n: int


class TextModule(Protocol):
    """A stage that trains on text; `LanguageModelStage` is one.

    Attributes:
        tokenizer: of the base model.
        attributes: which ratings are trained on; any if empty.
        mismatched: whether each prompt also needs a response to another prompt (KTO's KL term).
        block_sparse: whether attention is block-sparse, so that trees are packed into one row.
        needs_whole_steps: whether a step that fits into one micro-batch must not be cut.
        best_of: sampling of several answers to each prompt in predict, or None.
        num_answered: prompts that an interrupted predict has answered.
    """

    num_answered: int

    @property
    def best_of(self) -> BestOfSettings | None:
        """Settings of best-of-N sampling, or None."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the base model."""

    @property
    def attributes(self) -> Sequence[str]:
        """Which ratings are trained on."""

    @property
    def mismatched(self) -> bool:
        """Whether mismatched responses are needed."""

    @property
    def block_sparse(self) -> bool:
        """Whether attention is block-sparse."""

    @property
    def needs_whole_steps(self) -> bool:
        """Whether steps are not cut without need."""

    def formats(self) -> list[Format]:
        """The formats to choose from where the YAML names none."""
