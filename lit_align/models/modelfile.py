"""The Modelfile with which Ollama serves a merged model: weights, template and stops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_align.chat.turn_pieces import TurnPieces, turn_pieces
from lit_align.errors import ModelError

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


def modelfile(
    weights: str, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]
) -> tuple[str, str | None]:
    """The text of the Modelfile, and why it has no template if it has none.

    Args:
        weights: path of the GGUF file, relative to the Modelfile.
        tokenizer: with the chat template.
        stops: tokens that end an answer, as text.
    """
    lines = [f"FROM ./{weights}"]
    reason = None
    if not tokenizer.chat_template:
        lines.append('TEMPLATE """{{ .Prompt }}"""')  # a model of plain text
    else:
        try:
            pieces = turn_pieces(tokenizer)
            lines.append(f'TEMPLATE """{go_template(pieces, tokenizer.bos_token)}"""')
        except ModelError as error:
            reason = str(error)
            lines.append(f"# No TEMPLATE: {reason}.".replace("\n", " "))
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    return "\n".join(lines) + "\n", reason


def go_template(pieces: TurnPieces, bos: str | None = None) -> str:
    r"""The pieces as a template in Go's language; each text is a quoted string, so that no white space is lost.

    Args:
        pieces: of the chat template.
        bos: left out at the beginning, because Ollama's tokenizer adds it.

    Example:
        >>> print(go_template(TurnPieces("", "", {"user": ("U: ", "\n")}, "A: ")))
        {{ range .Messages }}{{ if eq .Role "user" }}{{ "U: " }}{{ .Content }}{{ "\n" }}{{ end }}{{ end }}{{ "A: " }}

    Raises:
        ModelError: if a text of the template would end the Modelfile's quotes.
    """
    parts = [_text(pieces.start.removeprefix(bos or ""))]
    if pieces.default_system:
        default = pieces.default_system
        if not pieces.start:
            default = default.removeprefix(bos or "")
        parts.append(f"{{{{ if not .System }}}}{_text(default)}{{{{ end }}}}" if default else "")
    parts.append("{{ range .Messages }}")
    keyword = "if"
    for role, (before, after) in pieces.around.items():
        parts.append(f'{{{{ {keyword} eq .Role "{role}" }}}}')
        parts.append(f"{_text(before)}{{{{ .Content }}}}{_text(after)}")
        keyword = "else if"
    parts.append("{{ end }}{{ end }}")
    parts.append(_text(pieces.generation))
    template = "".join(parts)
    if '"""' in template:
        raise ModelError('the chat template cannot be written into a Modelfile: it holds """')
    return template


def _text(text: str) -> str:
    return f"{{{{ {_quoted(text)} }}}}" if text else ""


def _quoted(text: str) -> str:
    """A string in quotes, as Go and Modelfiles read it."""
    return json.dumps(text, ensure_ascii=False)
