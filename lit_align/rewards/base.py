"""What a reward sees and what it must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_align.errors import ModelError
from lit_align.types import Group, Scores, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet


class Reward(ABC):
    """A score for each response to a prompt, higher for a better one: a frozen dataclass whose fields are its settings.

    It judges text, so that it need not share a tokenizer with the model that wrote it.
    """

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:  # noqa: B027 - most need nothing
        """Take what it needs of the model that is in memory; called once, before the first score.

        Args:
            roles: the base and the roles on it.
            tokenizer: the base's, with its chat template.
        """

    @abstractmethod
    def __call__(self, groups: Sequence[Group]) -> Scores:
        """Score every response of every group, in order; a group's other columns are in ``extra``."""


def checked_scores(reward: Reward, groups: Sequence[Group]) -> Scores:
    """What ``reward`` says of ``groups``, if that is one finite number for each response.

    Raises:
        ModelError: naming the response and what it was given.
    """
    scores, owners = reward(groups), [group for group in groups for _ in group.responses]
    if scores.total.shape != (len(owners),):
        raise ModelError(
            f"{reward} gave {list(scores.total.shape)} scores for {len(owners)} responses; each has one"
        )
    if not bool(scores.total.isfinite().all()):
        bad = int((~scores.total.isfinite()).nonzero()[0, 0])
        response = [response for group in groups for response in group.responses][bad]
        raise ModelError(
            f"{reward} gave {scores.total[bad].item()} to {response!r}, a response to {owners[bad].source}; scores "
            "are finite numbers"
        )
    return scores


def as_response(group: Group, said: str) -> Text:
    """What a model said, as the prompt is: text goes on where the prompt ends, blanks and all."""
    return (
        said if isinstance(group.prompt, str) else [{"role": "assistant", "content": said.strip()}]
    )


def response_text(response: str | list[dict[str, str]]) -> str:
    """What a response says: plain text, or what its assistant turns hold.

    Example:
        >>> response_text([{"role": "assistant", "content": "Four."}])
        'Four.'
    """
    if isinstance(response, str):
        return response
    return "\n".join(message["content"] for message in response if message["role"] == "assistant")
