"""What was found out about a model on this machine, in a file of the cache for the next start."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_align.jsonl import json_text
from lit_align.models.atomic_folder import replace_file


def recall(file: Path) -> dict[str, Any]:
    """What is remembered; empty for nothing, and for a file that cannot be read."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(file: Path, content: dict[str, Any]) -> None:
    """Keep it; a disk that refuses costs the next start the work."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json_text(content))
