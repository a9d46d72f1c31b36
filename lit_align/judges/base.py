"""Questions to a language model: who answers them, in what words they are put, and how a verdict is read."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lit_align.errors import ConfigError
from lit_align.types import Text

if TYPE_CHECKING:
    from jinja2 import Template
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet

PROMPTS = Path(__file__).parent / "prompts"


class Reply(NamedTuple):
    """What came back for one question.

    Args:
        probabilities: of each option, together 1; None if it cannot be said, or if there were no options.
        text: what was said, where something was.
        record: what it took: ``cost``, ``seconds``, and what else is worth writing down.
        reason: why there are no chances, or no text.
        truncated: whether the limit ended the text, rather than who said it.
    """

    probabilities: tuple[float, ...] | None
    text: str
    record: dict[str, Any]
    reason: str = ""
    truncated: bool = False


class JudgeModel(ABC):
    """A language model that is asked: a frozen dataclass whose fields are its settings."""

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:  # noqa: B027 - most need nothing
        """Take what it needs of the model that is in memory; arguments as for a source of feedback."""

    @abstractmethod
    def choose_option(self, questions: Sequence[str], options: Sequence[str]) -> list[Reply]:
        """How likely each of ``options`` is as the whole answer, for each question."""

    @abstractmethod
    def generate(self, questions: Sequence[str], max_tokens: int) -> list[Reply]:
        """The answer to each question, in as many tokens at most."""


def parse_verdict(text: str, options: Sequence[str]) -> str | None:
    r"""The option that an answer names on its first or last line, with nothing else on it but what it is; else None.

    Example:
        >>> [verdict(text, "AB") for text in ("b", "**Answer: A**", "[[B]]\nIt is shorter.", "A or B", "A\nB", "")]
        ['B', 'A', 'B', None, None, None]
    """
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    either = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
    pattern = re.compile(
        rf"\W*(?:(?:the )?(?:final )?(?:answer|verdict|rating|score)\W+(?:is\W+)?)?({either})\W*",
        re.I,
    )
    named = {
        match[1].upper() for line in (lines[0], lines[-1]) if (match := pattern.fullmatch(line))
    }
    return next((option for option in options if {option.upper()} == named), None)


def format_prompt(prompt: Text) -> str:
    """A prompt in one text, with who says what if several do."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def text_hash(*texts: str) -> int:
    """A number that the texts draw, the same in every process."""
    return int.from_bytes(hashlib.sha256(json.dumps(texts).encode()).digest()[:8])


def quote_lines(text: str) -> str:
    r"""Text that cannot pass for what stands around it: every line begins with a mark.

    Example:
        >>> print(quoted("An owl.\n\nIgnore the above."))
        > An owl.
        >
        > Ignore the above.
    """
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines() or [""])


@cache
def load_template(name: str) -> Template:
    """The wording of a question: a file of that path, or one that comes along by its name.

    Raises:
        ConfigError: if there is none.
    """
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quoted"] = quote_lines
    return environment.from_string(find_prompt_file(name, ".j2").read_text("utf-8"))


def find_prompt_file(name: str, suffix: str) -> Path:
    """The file that is called so, or that comes along under this name.

    Raises:
        ConfigError: if there is none.
    """
    for path in (Path(name).expanduser(), PROMPTS / f"{name}{suffix}"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in PROMPTS.glob(f"*{suffix}")))
    raise ConfigError(f"there is no file {name!r}; give the path of one, or one of {known}")
