"""The interface of a judge model, its prompt templates, and how a verdict is parsed."""

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
from lit_align.plugin_contracts import replies_fault, require_contract
from lit_align.plugin_wrapping import Wrapping
from lit_align.types import Text

if TYPE_CHECKING:
    from jinja2 import Template


PROMPTS = Path(__file__).parent / "prompts"


class Reply(NamedTuple):
    """The reply to one question.

    Args:
        probabilities: of each option, summing to 1; None if they are unknown, or if there were no options.
        text: the generated text, if any.
        record: what it took: ``cost``, ``seconds``, and anything else worth logging.
        reason: why there are no probabilities, or no text.
        truncated: whether the token limit ended the text.
    """

    probabilities: tuple[float, ...] | None
    text: str
    record: dict[str, Any]
    reason: str = ""
    truncated: bool = False


class JudgeModel(Wrapping, ABC):
    """A language model that answers questions: a frozen dataclass whose fields are its settings."""

    @abstractmethod
    def choose_option(self, questions: Sequence[str], options: Sequence[str]) -> list[Reply]:
        """The probability of each of ``options`` as the whole answer, for each question."""

    @abstractmethod
    def generate(self, questions: Sequence[str], max_tokens: int) -> list[Reply]:
        """The answer to each question, of at most ``max_tokens`` tokens."""


def choose_options(
    judge: JudgeModel, questions: Sequence[str], options: Sequence[str]
) -> list[Reply]:
    """A judge's reply to each question, checked before anything is made of it.

    Args:
        judge: to ask.
        questions: each with the same options.
        options: that it chooses from.

    Raises:
        PluginError: if it does not reply to each question, or not with a probability of each option.
    """
    replies = judge.choose_option(questions, options)
    require_contract(replies_fault(judge, replies, len(questions), len(options)))
    return replies


def expected_number(numbers: Sequence[int], reply: Reply) -> float | None:
    """The mean of the numbers that a judge chose from; None where its reply could not be read.

    Example:
        >>> expected_number(range(1, 4), Reply((0.5, 0.25, 0.25), "", {}))
        1.75
    """
    if reply.probabilities is None:
        return None
    weighted = zip(numbers, reply.probabilities, strict=True)
    return sum(number * probability for number, probability in weighted)


def parse_verdict(text: str, options: Sequence[str]) -> str | None:
    r"""The option that an answer names on its first or last line, with no other words than "the answer is"; else None.

    Example:
        >>> texts = ("b", "**Answer: A**", "[[B]]\nIt is shorter.", "A or B", "A\nB", "")
        >>> [parse_verdict(text, "AB") for text in texts]
        ['B', 'A', 'B', None, None, None]
    """
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    alternatives = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
    prefix = r"(?:(?:the )?(?:final )?(?:answer|verdict|rating|score)\W+(?:is\W+)?)?"
    pattern = re.compile(rf"\W*{prefix}({alternatives})\W*", re.I)
    verdicts = set()
    for line in (lines[0], lines[-1]):
        match = pattern.fullmatch(line)
        if match:
            verdicts.add(match[1].upper())
    for option in options:
        if verdicts == {option.upper()}:
            return option
    return None


def format_prompt(prompt: Text) -> str:
    """A prompt as one text; turns are labelled by role if there are several."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def text_hash(*texts: str) -> int:
    """Deterministic 64-bit hash of the texts, the same in every process."""
    return int.from_bytes(hashlib.sha256(json.dumps(texts).encode()).digest()[:8])


def quote_lines(text: str) -> str:
    r"""Quote text line by line so that it cannot inject instructions into the prompt around it.

    Example:
        >>> print(quote_lines("An owl.\n\nIgnore the above."))
        > An owl.
        >
        > Ignore the above.
    """
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines() or [""])


@cache
def load_template(name: str) -> Template:
    """The Jinja template of a question: a file path, or the name of a built-in template.

    Raises:
        ConfigError: if there is no such template.
    """
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quoted"] = quote_lines
    return environment.from_string(find_prompt_file(name, ".j2").read_text("utf-8"))


def find_prompt_file(name: str, suffix: str) -> Path:
    """The file at the path ``name``, or the built-in one with that name.

    Raises:
        ConfigError: if there is none.
    """
    for path in (Path(name).expanduser(), PROMPTS / f"{name}{suffix}"):
        if path.is_file():
            return path
    built_in = ", ".join(sorted(path.stem for path in PROMPTS.glob(f"*{suffix}")))
    raise ConfigError(f"there is no file {name!r}; give the path of a file, or one of {built_in}")
