"""Names of columns that change what is learned, whichever format a row has."""

from __future__ import annotations

SYSTEM = frozenset({"system", "systemprompt", "systemmessage", "systeminstruction"})
"""Columns with a system text."""

TOOLS = frozenset({"tools", "functions"})
"""Columns with the functions that the assistant may call."""

TEMPLATE_ARGUMENTS = frozenset({"chattemplatekwargs"})
"""Columns with arguments of the chat template."""

QUESTIONS = frozenset(
    {
        "prompt",
        "userprompt",
        "question",
        "query",
        "instruction",
        "instructions",
        "input",
        "inputs",
        "usermessage",
        "problem",
        "context",
        "history",
        "post",
        "document",
        "documents",
        "passage",
        "passages",
        "messages",
        "conversations",
    }
)
"""Columns that may be a prompt, or a part of one."""

ANSWERS = frozenset(
    {
        "answer",
        "completion",
        "generated_solution",
        "generation",
        "output",
        "response",
        "solution",
        "targets",
        "text",
    }
)
"""Columns with the response of a row that has one."""

THOUGHTS = frozenset({"thinking", "thought", "thoughts", "reasoning", "reasoningcontent", "cot"})
WEIGHTS = frozenset(
    {"weight", "sampleweight", "lossweight", "train", "trainable", "training", "lossmask"}
)
STRUCTURE = frozenset({"role", "parentid", "messagetreeid", "toolcalls", "functioncall"})
MEDIA = frozenset({"image", "images", "audio", "audios", "video", "videos"})
MEDIA_PARTS = MEDIA | {"imageurl", "inputaudio", "file"}
"""Keys of a part of a turn that hold something other than text."""

STRUCTURED = frozenset(
    {
        "answers",
        "annotations",
        "candidates",
        "completions",
        "conversation",
        "data",
        "fields",
        "generations",
        "history",
        "info",
        "pairs",
        "ranking",
        "ranks",
        "rating",
        "ratings",
        "responses",
        "scores",
        "summaries",
        "summary",
    }
)
"""Columns that hold a list or an object wherever they are known, so that text in them is one that was written out."""

LEARNED = SYSTEM | TOOLS | TEMPLATE_ARGUMENTS | QUESTIONS | THOUGHTS | WEIGHTS | STRUCTURE | MEDIA
"""All columns that change what is learned."""


PROMPT_WORDS = (
    "prompt",
    "question",
    "query",
    "instruction",
    "input",
    "problem",
    "context",
    "history",
    "conversation",
    "dialog",
    "trajectory",
    "transcript",
    "message",
    "post",
    "user",
    "human",
    "task",
    "system",
)
"""Parts of names of columns that may hold a prompt."""


def may_be_prompt(name: str, value: object) -> bool:
    """Whether a column may hold the prompt of a row: turns under any name, or texts of several words by its name.

    Example:
        >>> may_be_prompt("user_request", "Name a bird."), may_be_prompt("prompt_id", "a1")
        (True, False)
    """
    plain = plain_name(name)
    if plain in QUESTIONS | SYSTEM:
        return holds_something(value)
    if isinstance(value, list):
        return bool(value) and all(isinstance(turn, dict) for turn in value)
    has_words = isinstance(value, str) and len(value.split()) > 1
    return has_words and any(part in plain for part in PROMPT_WORDS)


def plain_name(column: str) -> str:
    """The column's name without letter case, blanks, hyphens and underscores.

    Example:
        >>> plain_name("System-Prompt") == plain_name("system_prompt")
        True
    """
    return "".join(char for char in str(column).lower() if char not in "_- ")


def holds_something(value: object) -> bool:
    """Whether a cell has a value: it is not null, and not an empty text, list or object."""
    if value is None:
        return False
    return not isinstance(value, str | list | tuple | dict) or bool(value)
