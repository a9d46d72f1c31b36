"""Run a program that nobody has read: in a process of its own, bounded in time and memory, without network."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from lit_align.errors import ConfigError

MEBIBYTE = 2**20
MAX_FILE_BYTES = 16 * MEBIBYTE
MAX_OPEN_FILES = 64
MAX_PROCESSES = 64
"""Processes and threads of a program, beyond those that its user has already, which Linux may count with them."""

WALL_PER_CPU_SECOND = 4
"""A program that waits, or that a busy machine keeps waiting, is ended after so many times its limit of computing."""

LIMITED = """\
import os, resource, sys, types
def run():
    word = sys.stdin.readline()
    verdict, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    seconds, memory, files, size, processes = map(int, sys.argv[1:6])
    limits = [
        (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, size), (resource.RLIMIT_CORE, 0),
    ]
    if hasattr(resource, "RLIMIT_NPROC"):  # does not hold for root
        most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        limits.append((resource.RLIMIT_NPROC, processes if most < 0 else min(processes, most)))
    for kind, most in limits:
        resource.setrlimit(kind, (most, most))
    with open(sys.argv[6], encoding="utf-8") as file:
        code = compile(file.read(), "response.py", "exec")
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(code, main.__dict__)
    os.write(verdict, word.encode())
run()
"""
"""Sets the limits in the new process before the program's first line, and gives the word back after its last one: a
program that exits early, with whatever status, has not come to its end.

The word is no attribute of a module, so that a program does not come upon it by chance. It is in the same process all
the same: code that is written to deceive the check can find it there, or change what is run after it."""


@dataclass(frozen=True)
class CodeSandbox:
    """Limits of a program. They bound accidents, not a program that means harm: it may write the files of its user.

    Args:
        seconds: of computing that a program may take.
        memory_mib: address space that it may use.
        with_network: whether it may reach the network; else it is run in a network namespace of its own, without one.
    """

    seconds: int = 5
    memory_mib: int = 512
    with_network: bool = False

    def check(self) -> None:
        """Refuse where the network cannot be cut off, or there are no limits.

        Raises:
            ConfigError: naming what is missing.
        """
        if sys.platform != "linux":
            raise ConfigError(
                f"programs are run with limits that {sys.platform} does not have; use Linux, or another reward"
            )
        if not self.with_network and not _cuts_network():
            raise ConfigError(
                "the network cannot be cut off here: `unshare --user --net` fails or is missing; allow user "
                "namespaces, or set with_network to true where the machine has no network to protect"
            )

    def succeeds(self, program: str) -> bool:
        """Whether a program comes to its end in time, without an error."""
        word = secrets.token_hex(16)
        with tempfile.TemporaryDirectory(prefix="lit-align-code-") as folder:
            path = Path(folder) / "response.py"
            path.write_text(program, "utf-8", errors="replace")
            with tempfile.TemporaryFile() as verdict:
                has_ended = self._run(path, word, verdict)
                verdict.seek(0)
                return has_ended and verdict.read(MAX_FILE_BYTES) == f"{word}\n".encode()

    def _run(self, path: Path, word: str, verdict: IO[bytes]) -> bool:
        """Whether the program ends in time with status 0; it writes the word to ``verdict`` after its last line."""
        memory, processes = self.memory_mib * MEBIBYTE, _num_threads() + MAX_PROCESSES
        limits = (self.seconds, memory, MAX_OPEN_FILES, MAX_FILE_BYTES, processes)
        command = [sys.executable, "-I", "-S", "-c", LIMITED, *map(str, limits), str(path)]
        if not self.with_network:
            command = [*_unshare(), *command]
        folder = str(path.parent)
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=verdict,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.communicate(f"{word}\n".encode(), self.seconds * WALL_PER_CPU_SECOND)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end_session(process)
        return process.returncode == 0


def _unshare() -> list[str]:
    """The command that gives a program a user, a network and a process tree of its own."""
    return ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]


@cache
def _cuts_network() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_unshare(), "true"], capture_output=True, check=False).returncode == 0


def _num_threads() -> int:
    """How many threads this user has, in all processes.

    They count for the limit of a program's processes where it has no user namespace of its own, and on Linux before
    5.14 wherever it is.
    """
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if process.stat().st_uid == os.getuid():
                count += len(os.listdir(process / "task"))
    return count


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End a program with all that it has started in its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
