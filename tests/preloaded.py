"""Imported in the process that commands are forks of: what every training imports, or makes when it first needs it."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_align.compat.light_imports import import_lightning

import_lightning()

import lit_align.cli.plugins  # noqa: E402
import lit_align.labelling.command  # noqa: E402, F401
from tests.kills import warm_up  # noqa: E402


@contextmanager
def silence() -> Iterator[None]:
    """Nothing that is written to standard output or standard error is seen."""
    kept = [os.dup(1), os.dup(2)]
    with open(os.devnull, "w") as nowhere:
        for standard in (1, 2):
            os.dup2(nowhere.fileno(), standard)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for standard, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, standard)
            os.close(copy)


with silence(), tempfile.TemporaryDirectory() as folder:
    warm_up(Path(folder))
