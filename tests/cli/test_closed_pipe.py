"""A reader that has seen enough, such as head, ends a command as it ends other programs: without a word."""

import subprocess
import sys

import pytest

from tests.test_installed_plugin import environment_variables


def status_and_errors(code: str) -> tuple[int, str]:
    """Those of a command whose output is closed before it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_variables(),
    )
    process.stdout.close()
    errors = process.stderr.read()
    return process.wait(), errors


@pytest.mark.parametrize(
    "words", [["--help"], ["plugins"], ["init"], ["inspect", "-c", "tiny/dpo"]]
)
def test_nothing_is_said_where_nobody_reads(words):
    code = f"from lit_align.__main__ import main; main({words})"
    status, errors = status_and_errors(code)
    assert status == 141
    assert "lit-align:" not in errors
    assert "Traceback" not in errors
    assert "Broken" not in errors


def test_the_broken_pipe_of_something_else_is_told():
    code = (
        "import lit_align.cli.plugins as plugins\n"
        "from lit_align.__main__ import main\n"
        "def run(words): raise BrokenPipeError(32, 'a server went away')\n"
        "plugins.run = run\n"
        "main(['plugins'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment_variables(),
    )
    assert done.returncode == 1
    assert "a server went away" in done.stderr


def test_output_that_is_closed_from_the_start_is_no_failure():
    """As under a launcher that gives a program no output."""
    done = subprocess.run(
        f"{sys.executable} -m lit_align --version >&-",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env=environment_variables(),
    )
    assert (done.returncode, done.stderr) == (0, "")
