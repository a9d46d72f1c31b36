"""Log-probabilities under the reference model, cached on disk across epochs and runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from lit_align.types import Tree

KEY_BYTES = 32
"""Length of a `tree_key`."""


class ReferenceCache:
    """Log-probabilities of responses under one reference model, keyed by their tokens.

    The file is named after everything the numbers depend on besides the tokens: base, adapter, precision, tokenizer and
    template. Lines are only ever appended, one for each tree; a line that is broken, because a run was killed or
    another one wrote in the middle of it, is ignored and its tree computed again. Each process of a run writes its own
    file and reads them all.

    Args:
        folder: where caches are stored.
        fingerprint: of the reference model and the tokenizer.
        rank: of this process.
    """

    def __init__(self, folder: Path, fingerprint: str, rank: int = 0) -> None:
        self.path = folder / f"{fingerprint}.{rank}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._logps: dict[str, list[float]] = {}
        for file in sorted(folder.glob(f"{fingerprint}.*.jsonl")):
            for line in file.read_text(errors="replace").splitlines():
                with suppress(ValueError, TypeError, KeyError):
                    row = json.loads(line)
                    self._logps[row["tokens"]] = row["logps"]
        if self.path.exists() and not self.path.read_text().endswith("\n"):
            with self.path.open("a") as file_with_broken_line:
                file_with_broken_line.write("\n")

    def __len__(self) -> int:
        return len(self._logps)

    def get_or_compute(self, trees: Sequence[Tree], compute: Callable[[], Tensor]) -> Tensor:
        """Log-probability of each response of ``trees``, ``[responses]``; calls ``compute`` unless all are cached."""
        keys = [tree_key(tree).hex() for tree in trees]
        if any(key not in self._logps for key in keys):
            self._add(keys, trees, compute().tolist())
        logps = []
        for key in keys:
            logps.extend(self._logps[key])
        return torch.tensor(logps)

    def _add(self, keys: Sequence[str], trees: Sequence[Tree], logps: list[float]) -> None:
        start = 0
        with self.path.open("a") as file:
            for key, tree in zip(keys, trees, strict=True):
                end = start + len(tree.responses)
                self._logps[key] = logps[start:end]
                file.write(json.dumps({"tokens": key, "logps": self._logps[key]}) + "\n")
                start = end


def tree_key(tree: Tree) -> bytes:
    """Hash of what a tree's log-probabilities depend on: its ids, and which of them are scored."""
    tokens = [tree.prompt, tree.responses, tree.scored, *tree.branches]
    text = json.dumps(tokens)
    return hashlib.sha256(text.encode()).digest()
