"""Reference log-probabilities on disk: computed once, whatever run or epoch asks for them next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from lit_align.types import Tree


class ReferenceCache:
    """Log-probabilities of responses under one reference model, keyed by their tokens.

    The file is named after everything the numbers depend on besides the tokens: base, adapter, precision, tokenizer and
    template. Lines are only ever appended, one a tree; a line that is broken, because a run was killed or another one
    wrote in the middle of it, is ignored and its tree computed again. Each process of a run writes its own file and
    reads them all.

    Args:
        folder: where caches lie.
        fingerprint: of the reference model and the tokenizer.
        rank: of this process.
    """

    def __init__(self, folder: Path, fingerprint: str, rank: int = 0) -> None:
        self.path = folder / f"{fingerprint}.{rank}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, list[float]] = {}
        for file in sorted(folder.glob(f"{fingerprint}.*.jsonl")):
            for line in file.read_text(errors="replace").splitlines():
                with suppress(ValueError, TypeError, KeyError):
                    row = json.loads(line)
                    self._known[row["tokens"]] = row["logps"]
        if self.path.exists() and not self.path.read_text().endswith("\n"):
            with self.path.open("a") as half:
                half.write("\n")

    def __len__(self) -> int:
        return len(self._known)

    def get_or_compute(self, trees: Sequence[Tree], compute: Callable[[], Tensor]) -> Tensor:
        """Log-probability of each response of ``trees``, ``[responses]``; calls ``compute`` unless all are known."""
        keys = [_key(tree) for tree in trees]
        if any(key not in self._known for key in keys):
            values = compute().tolist()
            with self.path.open("a") as file:
                for key, tree in zip(keys, trees, strict=True):
                    self._known[key], values = (
                        values[: len(tree.responses)],
                        values[len(tree.responses) :],
                    )
                    file.write(json.dumps({"tokens": key, "logps": self._known[key]}) + "\n")
        return torch.tensor([logp for key in keys for logp in self._known[key]])


def _key(tree: Tree) -> str:
    """Hash of what a tree's log-probabilities depend on: its ids, and which of them are scored."""
    return hashlib.sha256(
        json.dumps([tree.prompt, tree.responses, tree.scored]).encode()
    ).hexdigest()
