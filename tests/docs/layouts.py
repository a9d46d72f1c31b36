"""The page of data layouts: every format with its columns, its kinds of labels, and a row."""

from __future__ import annotations

import inspect
import json

from docstring_parser import parse

from lit_align.data.formats import unsupported
from lit_align.plugins import load_plugins
from tests.data.formats import more_public_rows, public_rows

LAYOUTS = public_rows.LAYOUTS | more_public_rows.LAYOUTS


def page() -> str:
    """As Markdown: the formats, each with the rows that its tests read; then what is refused."""
    rows_of: dict[str, list[str]] = {}
    for name, (source, row, kind, *_) in LAYOUTS.items():
        first = row[0] if isinstance(row, list) else row
        text = json.dumps(first, ensure_ascii=False, indent=1)
        link = f"[{name}]({source})" if source.startswith("http") else name
        for format_name in _recognised(first, kind):
            rows_of.setdefault(format_name, []).append(
                f"{link}, read as {kind}:\n\n```json\n{text}\n```\n"
            )
    parts = [
        "# Every layout of a row\n",
        "The rows are those that tests read; their words are ours.\n",
    ]
    for name, cls in load_plugins().formats.items():
        parsed = parse(inspect.getdoc(cls) or "")
        words = " ".join(filter(None, (parsed.short_description, parsed.long_description)))
        labels = ", ".join(sorted(cls.label_kinds))
        parts.append(f"## {name}\n\n{words.replace('``', '`')} Read as: {labels}.\n")
        examples = "\n".join(example.description or "" for example in parsed.examples)
        parts += rows_of.get(name, [f"```python\n{examples.strip()}\n```\n"] if examples else [])
    parts.append("## What is refused\n")
    for known in unsupported.SETS:
        parts.append(f"- [{known.name}]({known.source}): {known.reason}.")
    return "\n".join(parts) + "\n"


def _recognised(row: dict, kind: str) -> list[str]:
    """The first format that recognises a row and gives this kind of label."""
    for name, cls in load_plugins().formats.items():
        if kind in cls.label_kinds and cls().recognises(row):
            return [name]
    return []
