"""A plugin can end neither the process nor time; a user's interrupt is no fault of a plugin."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lit_align.errors import ConfigError, PluginError
from lit_align.plugin_calls import call_plugin, keep_time_limit, set_plugin_timeout
from tests.stages.runs import arguments, write_pairs

ROOT = Path(__file__).parents[1]


def call(function):
    return call_plugin("MyReward()", function)


def raise_(error):
    raise error


class Interrupt(BaseException):
    """As a library for cancelling tasks has."""


@pytest.mark.parametrize(
    "error", [SystemExit(0), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Interrupt()]
)
def test_an_exit_of_a_plugin_is_its_failure(error):
    with pytest.raises(PluginError, match=r"MyReward\(\) ended the run by ") as failure:
        call(lambda: raise_(error))
    assert failure.value.__cause__ is error


def test_exceptions_pass():
    with pytest.raises(KeyError):
        call(lambda: raise_(KeyError("x")))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_users_interrupt_passes_and_handlers_are_restored(number):
    def stop(*_):
        raise SystemExit(143)

    before = signal.signal(number, stop)
    try:
        with pytest.raises(SystemExit, match="143"):
            call(lambda: os.kill(os.getpid(), number))
        assert signal.getsignal(number) is stop
        assert call(lambda: 5) == 5
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


@pytest.fixture
def limit():
    set_plugin_timeout(0.3)
    yield
    set_plugin_timeout(None)


def loop():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


@pytest.mark.parametrize("endless", [loop, lambda: time.sleep(60)])
def test_an_endless_call_ends(endless, limit):
    start = time.monotonic()
    with pytest.raises(PluginError, match=r"MyReward\(\) took longer than plugin_timeout, 0.3 s"):
        call(endless)
    assert time.monotonic() - start < 20
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_call_within_a_call_has_the_outer_limit(limit):
    def outer():
        for _ in range(100):
            call_plugin("inner", time.sleep, 0.1)

    with pytest.raises(PluginError, match="MyReward"):
        call(outer)


def test_code_that_uses_the_alarm_leaves_the_limit(limit):
    def uses_the_alarm():
        with keep_time_limit():
            signal.alarm(5)
            signal.alarm(0)
        time.sleep(20)

    start = time.monotonic()
    with pytest.raises(PluginError, match="took longer than plugin_timeout"):
        call(uses_the_alarm)
    assert time.monotonic() - start < 15


def test_a_limit_is_positive():
    with pytest.raises(ConfigError, match="plugin_timeout must be positive, got 0"):
        set_plugin_timeout(0)


PLUGIN = """
import sys, time
from dataclasses import dataclass
import torch
from lit_align.objectives.dpo import DPO
from lit_align.data.formats.preferences import Preferences

@dataclass(frozen=True)
class Exits(DPO):
    def __call__(self, *args, **kwargs):
        sys.exit(0)

@dataclass(frozen=True)
class Sleeps(DPO):
    def __call__(self, *args, **kwargs):
        time.sleep(600)

@dataclass(frozen=True)
class Leaves(Preferences):
    def __call__(self, row):
        exit(0)
"""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model.objective=bad_plugin.Exits"], "Exits(beta="),
        (["--model.objective=bad_plugin.Sleeps", "--plugin_timeout=0.5"], "Sleeps(beta="),
        (["--data.format=bad_plugin.Leaves"], "bad_plugin.py:"),
    ],
)
def test_a_run_whose_plugin_leaves_has_failed(options, sentence, tiny, tmp_path):
    (tmp_path / "bad_plugin.py").write_text(textwrap.dedent(PLUGIN))
    train = write_pairs(tmp_path / "pairs.jsonl", 4)
    run = subprocess.run(
        [sys.executable, "-m", "lit_align", *arguments(tiny, train, tmp_path / "runs", *options)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("lit-align: ")
    assert sentence in last
    assert "Traceback" not in run.stderr
