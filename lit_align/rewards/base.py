"""The interface of a reward: it sees groups of responses and returns one score for each response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_align.errors import DataError, ModelError
from lit_align.literals import parse_literal
from lit_align.plugin_calls import call_plugin
from lit_align.plugin_contracts import scores_fault
from lit_align.plugin_wrapping import Wrapping
from lit_align.types import Group, Scores, Text

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


class Reward(Wrapping, ABC):
    """A score for each response to a prompt, higher for a better one: a frozen dataclass whose fields are its settings.

    It scores text, so it need not share a tokenizer with the model that generated the text. A reward that asks others
    names them in `wrapped`.
    """

    @abstractmethod
    def __call__(self, groups: Sequence[Group]) -> Scores:
        """Score every response of every group, in order.

        A group's other columns are in ``extra``; where the policy has sampled the responses, ``response_ids`` are their
        tokens. A response that cannot be scored is false in `Scores.scored`: it leaves its group, see there.
        """


def checked_scores(
    reward: Reward,
    groups: Sequence[Group],
    may_abstain: bool = False,
    reads_tokens: bool = False,
) -> Scores:
    """The scores of ``reward`` for ``groups``: one finite number for each response.

    Args:
        reward: to ask.
        groups: with their responses.
        may_abstain: whether the caller leaves out responses that are not scored, whose total is 0 here.
        reads_tokens: whether the caller reads the scores of tokens; without them the totals are not all of the reward.

    Raises:
        ModelError: if it returns no score for each response, or one that is not finite, or leaves one unscored or
            scores tokens where that is not possible.
        PluginError: if the reward ends the process or takes too long.
    """
    scores = call_plugin(reward, reward, groups)
    responses = [(group, response) for group in groups for response in group.responses]
    fault = scores_fault(reward, scores, len(responses))
    if fault:
        raise ModelError(fault)
    if scores.tokens is not None and not reads_tokens:
        raise ModelError(
            f"{reward} scores each token, and here a response needs one score; only RL learns from scores of tokens: "
            "use a reward that scores responses"
        )
    if scores.scored is not None:
        if not may_abstain:
            _require_scored(reward, scores.scored, responses)
        is_scored = scores.scored.to(scores.total.device)
        scores = scores._replace(total=scores.total.where(is_scored, 0.0))
    is_finite = scores.total.isfinite()
    if not bool(is_finite.all()):
        index = int((~is_finite).nonzero()[0, 0])
        group, response = responses[index]
        raise ModelError(
            f"{reward} gave {scores.total[index].item()} to {response!r}, a response to {group.source}; scores "
            "are finite numbers"
        )
    return scores


def _require_scored(
    reward: Reward, scored: Tensor, responses: Sequence[tuple[Group, Text]]
) -> None:
    if not bool(scored.all()):
        group, response = responses[int((~scored).nonzero()[0, 0])]
        raise ModelError(
            f"{reward} did not score {response!r}, a response to {group.source}, and every response needs a score "
            "here; RL and FromReward leave such a response out"
        )


def as_response(group: Group, text: str) -> Text:
    """Generated text in the form of the prompt: an assistant message, or plain text with its blanks kept."""
    if isinstance(group.prompt, str):
        return text
    return [{"role": "assistant", "content": text.strip()}]


def response_tokens(
    group: Group, index: int, tokenizer: PreTrainedTokenizerBase | None
) -> Sequence[Hashable]:
    """Tokens of a response with the one that ends it: as sampled, or else by a tokenizer; its words without either.

    Args:
        group: with the response.
        index: of the response.
        tokenizer: that a reward was attached to; None if it was not.

    Example:
        >>> response_tokens(Group("", ["An owl.", "No."], response_ids=[[5, 6, 2], None]), 0, None)
        [5, 6, 2]
        >>> response_tokens(Group("", ["An owl."]), 0, None)
        ['An', 'owl.']
    """
    ids = group.response_ids[index] if group.response_ids else None
    if ids is not None:
        return ids
    text = response_text(group.responses[index])
    if tokenizer is None:
        return text.split()
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def response_text(response: Text) -> str:
    """The text of a response: plain text, or the content of its assistant messages.

    Example:
        >>> response_text([{"role": "assistant", "content": "Four."}])
        'Four.'
    """
    if isinstance(response, str):
        return response
    return "\n".join(message["content"] for message in response if message["role"] == "assistant")


def column_text(group: Group, column: str) -> str:
    """What a row has in a column that a prompt shows: text, a number, or the assistant's messages; empty for nothing.

    Raises:
        DataError: if it is something else.

    Example:
        >>> turns = [{"role": "assistant", "content": "Four."}]
        >>> row = Group("", [], extra={"a": turns, "b": 0, "c": None})
        >>> [column_text(row, name) for name in "abcd"]
        ['Four.', '0', '', '']
    """
    value = group.extra.get(column)
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    if _has_assistant_turn(value):
        return response_text(value)
    raise DataError(
        f"the column {column!r} of {group.source} is {value!r}; it is a text, a number, or messages of which the "
        "assistant's are read; name another column, or give it text"
    )


def column_list(group: Group, column: str) -> list[Any] | None:
    """The list that a row has in a column, also as JSON or Python text, as in CSV; None if it has no list there.

    Example:
        >>> row = Group("", [], extra={"a": ["x", 1], "b": '["x", 1]', "c": "['x', 1]", "d": "[x"})
        >>> [column_list(row, name) for name in "abcde"]
        [['x', 1], ['x', 1], ['x', 1], None, None]
    """
    value = group.extra.get(column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):
            value = parse_literal(value)
    return value if isinstance(value, list) else None


def answer_after(marker: str, text: str) -> str:
    """What follows the last marker in a reference answer; all of it where the marker is missing or empty.

    Example:
        >>> answer_after("####", "3 + 4 = 7 #### 7"), answer_after("", "7")
        ('7', '7')
    """
    return (text.rpartition(marker)[2] if marker else text).strip()


def _has_assistant_turn(value: object) -> bool:
    """Whether a value is a list of messages, of which the assistant has written some."""
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return False
    if not all(isinstance(turn.get("content"), str) for turn in value):
        return False
    return any(turn.get("role") == "assistant" for turn in value)
