"""Values that were written as text: JSON, or a Python literal as pandas and ``str`` write it."""

from __future__ import annotations

import ast
import re
from typing import Any

from lit_align.jsonl import TOO_DEEP, is_too_deep, parse_json

ARRAY_BREAK = re.compile(r"\}\s*\n\s*\{")  # numpy prints an array of objects without commas
MAX_LITERAL = 1_000_000  # characters; Python's parser needs some hundred bytes for each


def parse_literal(text: str) -> Any:
    """The value that a text stands for, in JSON or in Python.

    Only literals of Python are read, of at most a million characters; nothing is executed.

    Args:
        text: to parse.

    Raises:
        ValueError: if it is neither, or nested too deeply.

    Example:
        >>> parse_literal('[{"strict": true}]') == parse_literal("[{'strict': True}]")
        True
    """
    try:
        return parse_json(text)
    except ValueError as error:
        if str(error) == TOO_DEEP:
            raise
    if len(text) > MAX_LITERAL:
        raise ValueError("neither JSON nor a short Python literal")
    try:
        value = ast.literal_eval(ARRAY_BREAK.sub("}, {", text.strip()))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError("neither JSON nor a Python literal") from error
    if is_too_deep(value):
        raise ValueError(TOO_DEEP)
    return value
