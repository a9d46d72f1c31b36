"""Sentiment by lexicon and rules (Hutto & Gilbert, 2014, https://doi.org/10.1609/icwsm.v8i1.14550), as a reward."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class Vader(Reward):
    r"""The sentiment of a response, from -1 to 1; like every lexicon, easily fooled.

    .. math:: r = \frac{s}{\sqrt{s^2 + 15}}, \quad s = \text{sum of the words' valences, after the rules}

    Args:
        wanted: the sentiment with the highest reward; a response loses by its distance from it.

    Raises:
        ValueError: unless wanted is from -1 to 1.

    Example:
        >>> Vader()([Group("", ["Great, thank you!", "That is awful."])]).total > 0
        tensor([ True, False])
    """

    wanted: float = 1.0

    def __post_init__(self) -> None:
        if not -1 <= self.wanted <= 1:
            raise ValueError(f"wanted is a sentiment, from -1 to 1, got {self.wanted}")

    def __call__(self, groups: Sequence[Group]) -> Scores:
        parts: dict[str, list[float]] = {"vader/pos": [], "vader/neg": [], "vader/compound": []}
        for group in groups:
            for response in group.responses:
                polarity = _analyzer().polarity_scores(response_text(response))
                for name, values in parts.items():
                    values.append(polarity[name.removeprefix("vader/")])
        tensors = {name: torch.tensor(values) for name, values in parts.items()}
        distance = (tensors["vader/compound"] - self.wanted).abs()
        return Scores(1 - distance, tensors)


@functools.cache
def _analyzer():
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@hookimpl
def register_rewards(register: Register) -> None:
    register(Vader)
