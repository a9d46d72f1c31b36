"""Commands in processes of their own: forks of one that has imported the package, which takes a core eight seconds."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

MAX_SECONDS = 600  # for a command that nobody stops


class Command:
    """``lit-align`` in a process of its own, used as one of `subprocess.Popen`.

    Args:
        arguments: of the command.
        folder: where it runs.
        environment: all its variables.
        output: file of what it prints.
    """

    def __init__(
        self, arguments: list[str], folder: Path, environment: dict[str, str], output: Path
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.preloaded"])
        self.output = output
        self._process = context.Process(
            target=_as_command, args=(arguments, folder, environment, output)
        )
        self._process.start()
        weakref.finalize(self, _end, self._process)  # of a test that failed

    @property
    def pid(self) -> int:
        """Of the command, not of the process that it is a fork of."""
        return int(self._process.pid or 0)

    @property
    def returncode(self) -> int | None:
        """None as long as it runs; of one that a signal ended the negative number of the signal."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float = MAX_SECONDS) -> int:
        """Its status in the end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("lit-align", timeout, self.output.read_bytes())
        return self._process.exitcode

    def communicate(self, timeout: float = MAX_SECONDS) -> tuple[str, None]:
        """All that it has printed in the end."""
        self.wait(timeout)
        return self.output.read_text(), None

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _end(process: BaseProcess) -> None:
    if process.exitcode is None:
        process.kill()


def wait_for(
    condition: Callable[[], object], command: Command | subprocess.Popen, seconds: float = 400
) -> None:
    """Wait until something holds, which must be before a command ends.

    Args:
        condition: that holds.
        command: that runs.
        seconds: to wait for it.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert command.poll() is None, command.communicate()[0]
        assert time.monotonic() < end, "the run did not get going"
        time.sleep(0.01)


def kill_once_there(command: Command, file: Path) -> None:
    """Kill a command as soon as it has written a file."""
    wait_for(file.exists, command)
    command.kill()
    assert command.wait() == -signal.SIGKILL


def start_command(arguments: list[str], folder: Path, **environment: str) -> Command:
    """The command in a process of its own.

    Args:
        arguments: of the command.
        folder: where it runs.
        environment: variables besides those of this process.
    """
    descriptor, output = tempfile.mkstemp(suffix=".txt")
    os.close(descriptor)
    command = Command(arguments, folder, {**os.environ, **environment}, Path(output))
    weakref.finalize(command, Path(output).unlink, missing_ok=True)
    return command


def run_command(arguments: list[str], folder: Path, output: Path) -> int:
    """What ``lit-align`` ends with, run in ``folder``; what it prints is in the file ``output``."""
    command = Command(arguments, folder, dict(os.environ), output)
    try:
        return command.wait()
    finally:
        command.kill()


def _as_command(
    arguments: list[str], folder: Path, environment: dict[str, str], output: Path
) -> None:
    os.environ.clear()
    os.environ |= {**environment, "OMP_NUM_THREADS": "1"}
    os.chdir(folder)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.argv = ["lit-align", *arguments]
    from lit_align.__main__ import main
    from lit_align.plugins import load_plugins

    load_plugins.cache_clear()  # its environment may leave some out
    main(arguments)
