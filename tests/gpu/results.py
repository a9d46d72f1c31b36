"""Files of results: one for each call while it runs, and one for each card in ``results/``."""

from __future__ import annotations

import json
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.gpu.targets import rows

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "lightning", "trl")
SAME = ("card", "tiny", "packages")
"""What the calls of one file must have in common."""


def machine(tiny: bool) -> dict:
    """The card, its memory, and the versions that compute."""
    import torch

    card, memory = "CPU", None
    if not tiny:
        properties = torch.cuda.get_device_properties(0)
        card, memory = properties.name, properties.total_memory
    return {
        "card": card,
        "memory_bytes": memory,
        "tiny": tiny,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def record(files: list[Path], folder: Path = RESULTS) -> Path:
    """Join the results of both calls into ``CARD-DATE.json``.

    Args:
        files: one of each call.
        folder: for the new file.

    Raises:
        SystemExit: if the files are of different cards or versions, or of the CPU.
    """
    parts = [json.loads(file.read_text()) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part["machine"] is None:
            raise SystemExit(f"no section in {file} has ended; its log says why")
    first = parts[0]["machine"]
    for file, part in zip(files, parts, strict=True):
        for key in SAME:
            if part["machine"][key] != first[key]:
                raise SystemExit(
                    f"{file} has {key} {part['machine'][key]}, and {files[0]} has {first[key]}; run both calls on one "
                    "machine"
                )
    if first["tiny"]:
        raise SystemExit(
            f"{files[0]} is of --tiny models on a CPU, which measures nothing; run it on a GPU"
        )
    sections = {}
    for part in parts:
        sections.update(part["sections"])
    card = re.sub(r"[^A-Za-z0-9]+", "-", first["card"]).strip("-")
    path = folder / f"{card}-{first['date']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": first, "sections": sections}, indent=1) + "\n")
    return path


def table(folder: Path = RESULTS) -> str:
    """The rows of each file in the folder, as Markdown; a sentence without any."""
    blocks = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        card, date = result["machine"]["card"], result["machine"]["date"]
        lines = [f"| {card}, {date} | measured | target | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows(result["sections"])]
        blocks.append("\n".join(lines))
    if not blocks:
        return "Speed and memory on a GPU are not measured yet; `tests/gpu` does it in two calls of four minutes."
    return "\n\n".join(blocks)
