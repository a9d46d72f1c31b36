"""Comparisons of two summaries (Stiennon et al., 2020, https://huggingface.co/datasets/openai/summarize_from_feedback)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import number, other_fields, required
from lit_align.data.formats.preferences import Preferences
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind

COLUMNS = ("info", "summaries", "choice")


@dataclass(frozen=True)
class Summaries(Format):
    r"""Columns ``info`` (a Reddit post or an article), ``summaries`` (two, each with ``text``) and ``choice``.

    A post becomes the prompt with its subreddit and title, as in the paper's appendix B; each on a line of its own, and
    the last line is ``TL;DR:``.

    Example:
        >>> summaries = [{"text": " A cat."}, {"text": " A dog."}]
        >>> Summaries()({"info": {"post": "My cat."}, "summaries": summaries, "choice": 1})[:2]
        ('POST: My cat.\n\nTL;DR:', [' A dog.', ' A cat.'])
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """The three columns, and no better and worse summary chosen of them."""
        return row.keys() >= set(COLUMNS) and row.keys().isdisjoint({"chosen", "rejected"})

    def __call__(self, row: Row) -> Group:
        """A group of two responses, the better one first."""
        choice = number(required(row, "choice"), "'choice'")
        if choice not in (0, 1):
            raise Malformed("'choice' is neither 0 nor 1")
        texts = _texts(required(row, "summaries"))
        better = int(choice)
        pair = {
            "prompt": prompt_of_info(required(row, "info")),
            "chosen": texts[better],
            "rejected": texts[1 - better],
        }
        return Preferences()(pair)._replace(extra=other_fields(row, *COLUMNS))


def _texts(summaries: Any) -> list[Any]:
    """The texts of the two summaries."""
    if not isinstance(summaries, list) or len(summaries) != 2:
        raise Malformed("'summaries' is not a list of two")
    return [entry.get("text") if isinstance(entry, dict) else None for entry in summaries]


def prompt_of_info(info: Any) -> str:
    """What was summarised."""
    if not isinstance(info, dict) or not (info.get("post") or info.get("article")):
        raise Malformed("'info' has neither 'post' nor 'article'")
    lines = []
    if info.get("post"):
        if info.get("subreddit"):
            lines.append(f"SUBREDDIT: r/{info['subreddit']}")
        if info.get("title"):
            lines.append(f"TITLE: {info['title']}")
        lines.append(f"POST: {info['post']}")
    else:
        lines.append(f"Article: {info['article']}")
    return "\n\n".join([*lines, "TL;DR:"])


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Summaries)
