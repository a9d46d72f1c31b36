"""Adapters of the model in memory as PEFT folders, under a new name whenever their weights change."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from lit_align.errors import ModelError
from lit_align.models.adapter_files import save_adapter
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.vllm import vllm_problems


class ExportedAdapter(NamedTuple):
    """An adapter on disk.

    Args:
        name: with the role, the step and a hash of the weights; no other adapter ever has it.
        path: of the PEFT folder, as the server sees it.
        folder: the same, as this process sees it.
    """

    name: str
    path: str
    folder: Path


class ExportedAdapters:
    """Writes adapters for a server to load; only the newest of each role stays on disk.

    Args:
        folder: where to; None for a temporary folder.
        server_folder: the same folder as the server sees it; None if it is the same path.
    """

    def __init__(self, folder: str | None, server_folder: str | None) -> None:
        self.is_temporary = folder is None
        path = tempfile.mkdtemp(prefix="lit-align-adapters-") if folder is None else folder
        self.folder = Path(path).expanduser().absolute()
        self.server_folder = server_folder
        # of this process alone: several may share folder and server
        self._token = f"{os.getpid():x}{secrets.token_hex(2)}"

    def write(
        self, adapters: AdapterSet, role: str, step: int, written: str = ""
    ) -> ExportedAdapter:
        """Write the adapter of a role as it is now.

        Args:
            adapters: the base and its adapters.
            role: the adapter's name.
            step: optimizer steps that it has made.
            written: name of the role's adapter that was written last; if its weights are the same, nothing is written.

        Raises:
            ModelError: if an engine could not load it.
        """
        digest = _digest(adapters, role)
        if written.endswith(digest):
            return self._describe(written)
        exported = self._describe(f"lit-align-{self._token}-{role}-step{step}-{digest}")
        save_adapter(adapters, exported.folder, role)
        problems = vllm_problems(exported.folder)
        if problems:
            self.remove(exported.name)
            raise ModelError(
                f"an engine cannot load the adapter of the {role}: {', '.join(problems)}; use InProcess"
            )
        return exported

    def remove(self, name: str) -> None:
        """Remove the folder of an adapter."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def close(self) -> None:
        """Remove the temporary folder."""
        if self.is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _describe(self, name: str) -> ExportedAdapter:
        folder = self.folder / name
        path = str(folder) if self.server_folder is None else f"{self.server_folder}/{name}"
        return ExportedAdapter(name, path, folder)


def _digest(adapters: AdapterSet, role: str) -> str:
    """A hash of an adapter's weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(adapters.adapter_weights(role).items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
