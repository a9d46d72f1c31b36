"""Sentences of the written pages are short, and figures of several seeds are in tables."""

import re

import pytest

from tests.docs.hook import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "lit_align/docs/pages").glob("*.md"))]
LONGEST = 40
NOT_PROSE = re.compile(
    r"<!-- \[\[\[cog.*?\[\[\[end\]\]\] -->|^```.*?^```|<!--.*?-->|(?<=\n\n)(?:    [^\n]*\n)+|^[^\n]* · [^\n]*$",
    re.DOTALL | re.MULTILINE,
)
TRIPLE = re.compile(
    r"\d[\d.]*, -?\d[\d.]* and -?\d[\d.]* (?:%|nats|points|gold)|\d[\d.]*, -?\d+\.\d+ and -?\d"
)


def prose(text: str) -> list[str]:
    """The sentences of a page; a name, a link or an item of a list counts as its words."""
    text = NOT_PROSE.sub("", text)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    parts = re.split(r"\n\s*\n|^\s*(?:[*-]|\d+\.) |(?<!\\)\|", text, flags=re.MULTILINE)
    return [
        " ".join(sentence.split())
        for part in parts
        for sentence in re.split(r"(?<=[.!?])\)?\s+", part)
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_sentence_of_a_page_is_long(path):
    long = [sentence for sentence in prose(path.read_text()) if len(sentence.split()) > LONGEST]
    assert long == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_figures_of_several_seeds_are_in_a_table(path):
    assert [words for words in prose(path.read_text()) if TRIPLE.search(words)] == []
