"""Values that were written as text: JSON, or a Python literal as pandas and ``str`` write it."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

ARRAY_BREAK = re.compile(r"\}\s*\n\s*\{")  # numpy prints an array of objects without commas
MAX_LITERAL = 1_000_000  # characters; Python's parser needs some hundred bytes for each


def parse_literal(text: str) -> Any:
    """The value that a text stands for, in JSON or in Python.

    Only literals of Python are read, of at most a million characters; nothing is executed.

    Args:
        text: to parse.

    Raises:
        ValueError: if it is neither.

    Example:
        >>> parse_literal('[{"strict": true}]') == parse_literal("[{'strict': True}]")
        True
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > MAX_LITERAL:
        raise ValueError("neither JSON nor a short Python literal")
    try:
        return ast.literal_eval(ARRAY_BREAK.sub("}, {", text.strip()))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError("neither JSON nor a Python literal") from error
