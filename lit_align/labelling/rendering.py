"""Texts as HTML: what a model wrote, and the guidelines of a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from lit_align.types import Text

# a model's Markdown is rendered, and never as HTML, a link or a picture of its own
RESPONSE_MARKDOWN = MarkdownIt("js-default", {"html": False, "breaks": True}).disable(
    ["image", "link", "autolink", "code"]
)
# headings of a response must not be headings of the page
RESPONSE_MARKDOWN.add_render_rule("heading_open", lambda *_: '<p class="heading">')
RESPONSE_MARKDOWN.add_render_rule("heading_close", lambda *_: "</p>")

# the page's own heading is of the first level, and its policy lets no picture in
GUIDELINES_MARKDOWN = MarkdownIt("js-default", {"html": False}).disable(["image"])


def _lower_heading(
    _renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _environment: Any
) -> str:
    """A heading one level below that of the file."""
    token = tokens[index]
    slash = "/" if token.nesting < 0 else ""
    return f"<{slash}h{min(6, int(token.tag[1:]) + 1)}>"


GUIDELINES_MARKDOWN.add_render_rule("heading_open", _lower_heading)
GUIDELINES_MARKDOWN.add_render_rule("heading_close", _lower_heading)


def to_paragraphs(text: Text) -> list[tuple[str, Markup]]:
    """Role and safe HTML of each turn; the role is empty where there is only one."""
    if isinstance(text, str):
        return [("", Markup(RESPONSE_MARKDOWN.render(text)))]
    paragraphs = []
    for turn in text:
        role = turn["role"] if len(text) > 1 else ""
        html = RESPONSE_MARKDOWN.render(turn["content"])
        paragraphs.append((role, Markup(html)))
    return paragraphs


def to_plain_text(text: Text) -> str:
    """A text on one line, for lists: that of the last turn."""
    content = text if isinstance(text, str) else text[-1]["content"]
    return " ".join(content.split())


def guidelines_to_html(guidelines: str) -> Markup:
    """The guidelines as safe HTML, their headings one level lower."""
    return Markup(GUIDELINES_MARKDOWN.render(guidelines))
