"""Number of nouns in a response, by a word list and endings: a reward that is easy to check, for experiments."""

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
NOT_NOUNS = frozenset({
    "advance", "augment", "commence", "complement", "enhance", "experiment", "glance", "hence", "implement",
    "influence", "lament", "mention", "supplement", "thence", "whence",
})  # fmt: skip
"""Words with such an ending that are as often verbs, or are not nouns."""
IRREGULAR = {
    "children": "child", "feet": "foot", "geese": "goose", "men": "man", "mice": "mouse", "teeth": "tooth",
    "women": "woman",
}  # fmt: skip


@dataclass(frozen=True)
class Nouns(Reward):
    """Number of nouns in a response, repetitions included; each word is judged without its context.

    Singhal et al., 2024, https://arxiv.org/abs/2405.01511, use such a reward in experiments.

    Example:
        Dog and bones; kindness, by its ending, and cities.

        >>> Nouns()([Group("", ["The dog buried two bones.", "They found kindness in both cities.", "Run!"])]).total
        tensor([2., 2., 0.])
    """

    def __call__(self, groups: Sequence[Group]) -> Scores:
        counts = []
        for group in groups:
            for response in group.responses:
                words = re.findall(r"[^\W\d_]+", response_text(response))
                counts.append(float(sum(map(is_noun, words))))
        return Scores(torch.tensor(counts))


@functools.lru_cache(2**16)
def is_noun(word: str) -> bool:
    """Whether a word, singular or plural, is in the word list or has the ending of a noun.

    Example:
        >>> [word for word in ("Wolves", "run", "questions", "mention", "boss", "city") if is_noun(word)]
        ['Wolves', 'questions', 'boss', 'city']
    """
    singulars = _singulars(word.lower())
    return any(noun in _word_list() or _has_noun_ending(noun) for noun in singulars)


def _singulars(word: str) -> Iterator[str]:
    """Words that a word may be the plural of, itself included."""
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


def _has_noun_ending(word: str) -> bool:
    if word in NOT_NOUNS:
        return False
    return any(word.endswith(ending) and len(word) > len(ending) + 2 for ending in ENDINGS)


@functools.cache
def _word_list() -> frozenset[str]:
    return frozenset(files(__package__).joinpath("nouns.txt").read_text("utf-8").split())


@hookimpl
def register_rewards(register: Register) -> None:
    register(Nouns)
