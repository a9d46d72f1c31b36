"""Commands in processes of their own: forks of one that has imported the package, which takes a core eight seconds."""

import multiprocessing
import os
import sys
from pathlib import Path

PRELOADED = ["lit_align.cli.training", "lit_align.cli.plugins", "lit_align.labelling.command"]


def run_command(arguments: list[str], folder: Path, output: Path) -> int:
    """What ``lit-align`` ends with, run in ``folder``; what it prints is in the file ``output``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_as_command, args=(arguments, folder, output))
    process.start()
    process.join(600)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"lit-align {' '.join(arguments)} takes more than 600 seconds")
    return process.exitcode or 0


def _as_command(arguments: list[str], folder: Path, output: Path) -> None:
    os.chdir(folder)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.argv = ["lit-align", *arguments]
    from lit_align.__main__ import main

    main(arguments)
