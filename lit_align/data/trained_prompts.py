"""Which prompts a reward model was trained on, as hashes beside its adapter: it knows the answers to these better."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lit_align.chat.plain_text import as_chat
from lit_align.types import Group, Text

PROMPTS_FILE = "trained_prompts.txt"
SMALL_SHARE = 0.01
"""Share of prompts up to which nothing is said: short prompts such as greetings are in every set."""


def prompt_key(prompt: Text) -> str:
    """A hash of a prompt, the same for plain text and for the chat that it becomes, whatever the blanks around it.

    Example:
        >>> prompt_key("Name a bird.") == prompt_key([{"role": "user", "content": " Name a bird. "}])
        True
        >>> prompt_key("Name a bird.") == prompt_key("Name a fish.")
        False
    """
    group = as_chat(Group(prompt, []))
    turns = prompt if group is None else group.prompt
    if isinstance(turns, str):
        content = [["user", turns.strip()]]
    else:
        content = [[turn["role"], str(turn["content"]).strip()] for turn in turns]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def prompt_keys(prompts: Iterable[Text]) -> list[str]:
    """The hashes of prompts, each once, sorted."""
    return sorted({prompt_key(prompt) for prompt in prompts})


def write_prompt_keys(folder: Path, keys: Sequence[str]) -> None:
    """Write hashes beside an adapter, one a line."""
    (folder / PROMPTS_FILE).write_text("".join(f"{key}\n" for key in keys), "utf-8")


def read_prompt_keys(folder: Path) -> frozenset[str]:
    """The hashes beside an adapter; none beside an adapter that was written without."""
    file = folder / PROMPTS_FILE
    return frozenset(file.read_text("utf-8").split()) if file.is_file() else frozenset()


def seen_prompts(prompts: Iterable[Text], trained: frozenset[str]) -> list[bool]:
    """Which of the prompts are among those that were trained on."""
    return [prompt_key(prompt) in trained for prompt in prompts]


def overlap_notice(seen: Sequence[bool]) -> str:
    """A sentence about prompts that a reward model was trained on; empty where they are few.

    Args:
        seen: from `seen_prompts`.

    Example:
        >>> print(overlap_notice([True, True, False, False]))
        the reward model was trained on responses to 2 of these 4 prompts (50%): it remembers which were preferred, so
        its scores there tell less about new responses; train on prompts that it has not seen
        >>> overlap_notice([False, False])
        ''
    """
    if sum(seen) <= SMALL_SHARE * len(seen):
        return ""
    return (
        f"{overlap_count(seen)}: it remembers which were preferred, so its scores there tell less about new "
        "responses; train on prompts that it has not seen"
    )


def overlap_count(seen: Sequence[bool]) -> str:
    """How many of the prompts a reward model was trained on, in words.

    Args:
        seen: from `seen_prompts`.

    Example:
        >>> overlap_count([True, False, False, False])
        'the reward model was trained on responses to 1 of these 4 prompts (25%)'
    """
    count = sum(seen)
    return (
        f"the reward model was trained on responses to {count:,} of these {len(seen):,} prompts "
        f"({count / max(len(seen), 1):.0%})"
    )
