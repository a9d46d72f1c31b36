"""The table of error classes."""

from __future__ import annotations

import inspect

from lit_align import errors


def table() -> str:
    """Every class that lit_align raises on purpose, with the first line of its docstring."""
    rows = ["| error | |", "|---|---|"]
    for name, cls in vars(errors).items():
        if inspect.isclass(cls) and issubclass(cls, errors.LitAlignError):
            rows.append(f"| `{name}` | {(cls.__doc__ or '').strip().splitlines()[0]} |")
    return "\n".join(rows)
