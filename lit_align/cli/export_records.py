"""What `lit-align export` knows of a run besides its weights: provenance, ledger counts and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_align.checkpoint_files import adapter_folder, find_checkpoint
from lit_align.jsonl import read_json
from lit_align.models.adapters import read_provenance
from lit_align.stages.provenance import ledger_counts

ONLY_IN_TRAINING = ("steps", "prompts", "data", "settings", "normalised_at")
"""Parts of provenance that a loaded stage does not know."""


def run_provenance(run: str, stage: Any, role: str) -> dict[str, Any]:
    """The provenance of a role's adapter, with what was recorded while it was trained.

    Args:
        run: the numbered folder of a run, or a checkpoint.
        stage: loaded from it.
        role: the adapter.
    """
    checkpoint = find_checkpoint(run)
    folder = adapter_folder(checkpoint)
    saved = read_provenance(folder / role) or read_provenance(folder)
    provenance = {**stage.provenance(), "role": role, "base": stage.base.path}
    for name in ONLY_IN_TRAINING:
        if name in saved:
            provenance[name] = saved[name]
    ledger = _run_folder(checkpoint) / "ledger.json"
    if not provenance["data"] and ledger.is_file():
        provenance["data"] = ledger_counts(read_json(ledger))
    return provenance


def run_summary(run: str) -> Mapping[str, Any] | None:
    """The run's ``summary.json``; None if it has none."""
    file = _run_folder(find_checkpoint(run)) / "summary.json"
    return dict(read_json(file)) if file.is_file() else None


def _run_folder(checkpoint: Path) -> Path:
    return checkpoint.parent.parent
