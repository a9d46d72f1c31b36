"""How many nouns a response has, by a word list and endings: a reward that anyone can count, to study learning with."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch

from lit_align import Register, hookimpl
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text

ENDINGS = ("tion", "sion", "ness", "ment", "ity", "ship", "ism", "ance", "ence", "hood")
OTHERWISE = frozenset({
    "advance", "augment", "commence", "complement", "enhance", "experiment", "glance", "hence", "implement",
    "influence", "lament", "mention", "supplement", "thence", "whence",
})  # fmt: skip
"""Words with such an ending that are verbs as often, or no nouns at all."""
IRREGULAR = {
    "children": "child", "feet": "foot", "geese": "goose", "men": "man", "mice": "mouse", "teeth": "tooth",
    "women": "woman",
}  # fmt: skip


@dataclass(frozen=True)
class Nouns(Reward):
    """The number of words that are nouns; it looks at words alone, and counts one that is repeated each time.

    Singhal et al., 2024, https://arxiv.org/abs/2405.01511, study learning with such a reward.

    Example:
        Dog and bones; kindness, by its ending, and cities.

        >>> Nouns()([Group("", ["The dog buried two bones.", "They found kindness in both cities.", "Run!"])]).total
        tensor([2., 2., 0.])
    """

    def __call__(self, groups: Sequence[Group]) -> Scores:
        texts = [response_text(response) for group in groups for response in group.responses]
        return Scores(
            torch.tensor(
                [float(sum(map(is_noun, re.findall(r"[^\W\d_]+", text)))) for text in texts]
            )
        )


@functools.lru_cache(2**16)
def is_noun(word: str) -> bool:
    """Whether a word, singular or plural, is in the list or ends as nouns do.

    Example:
        >>> [word for word in ("Wolves", "run", "questions", "mention", "boss", "city") if is_noun(word)]
        ['Wolves', 'questions', 'boss', 'city']
    """
    return any(one in _listed() or _derived(one) for one in _singulars(word.lower()))


def _singulars(word: str) -> Iterator[str]:
    """What a word may be the plural of, itself included."""
    yield word
    if word in IRREGULAR:
        yield IRREGULAR[word]
    if word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
    for plural, singular in {"ies": "y", "ves": "f", "es": ""}.items():
        if word.endswith(plural):
            yield word.removesuffix(plural) + singular
    if word.endswith("ves"):
        yield word.removesuffix("ves") + "fe"


def _derived(word: str) -> bool:
    return word not in OTHERWISE and any(
        len(word) > len(end) + 2 and word.endswith(end) for end in ENDINGS
    )


@functools.cache
def _listed() -> frozenset[str]:
    return frozenset(files(__package__).joinpath("nouns.txt").read_text("utf-8").split())


@hookimpl
def register_rewards(register: Register) -> None:
    register(Nouns)
