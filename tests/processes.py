"""Runs on several processes: forks of this one, which has imported everything, that find each other as ddp does."""

import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only

MAX_SECONDS = 400  # for all processes of a run

CLONE_NEWNET = 0x40000000  # of setns(2)
MACHINE = {"tokens/s", "memory_gib"}  # metrics that may differ

_environment: dict[str, str] = {}  # of this process, if it is one of several


class Host(NamedTuple):
    """A machine of its own as far as its network goes: a namespace that has one interface.

    Args:
        namespace: its name.
        interface: of the network to the other hosts.
        address: there.
    """

    namespace: str
    interface: str
    address: str


def run_processes(
    world: int, work: Callable[[], object], output: Path, hosts: Sequence[Host] = ()
) -> list[int]:
    """Do ``work`` in ``world`` processes; the exit status of each.

    Args:
        world: how many; a single one is no process group.
        work: what each process does.
        output: file of what they print.
        hosts: one for each process, as its first; without any, all are on this machine.
    """
    torch.set_num_threads(1)  # a fork would wait for the threads of this process, which it has not
    port = _free_port()
    sys.stdout.flush()
    children = []
    for rank in range(world):
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if hosts:
            variables |= {"MASTER_ADDR": hosts[0].address, "NODE_RANK": str(rank)}
            variables |= {"GLOO_SOCKET_IFNAME": hosts[rank].interface}
        elif world > 1:
            variables |= {"WORLD_SIZE": str(world), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
        namespace = hosts[rank].namespace if hosts else None
        children.append(_fork(variables if world > 1 else {}, namespace, work, output))
    end = time.monotonic() + MAX_SECONDS
    status: dict[int, int] = {}
    while len(status) < world:
        for child in set(children) - status.keys():
            ended, value = os.waitpid(child, os.WNOHANG)
            if ended:
                status[child] = os.waitstatus_to_exitcode(value)
        if time.monotonic() > end:
            for child in set(children) - status.keys():
                os.kill(child, signal.SIGKILL)
            raise AssertionError(f"a run hangs: {output.read_text()[-3000:]}")
        time.sleep(0.02)
    return [status[child] for child in children]


def make_trainer(folder: Path, **settings) -> Trainer:
    """A quiet trainer of this process, which may be one of several."""
    os.environ |= _environment  # a trainer that is done removes a part of it
    world = int(_environment.get("WORLD_SIZE", 1))
    usual = {
        "accelerator": "cpu",
        "devices": world,
        "strategy": "ddp" if world > 1 else "auto",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": str(folder),
    }
    return Trainer(**{**usual, **settings})


class Trace(Callback):
    """All that is logged, step by step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *args):
        self.steps.append(_numbers(trainer.logged_metrics))

    def on_validation_end(self, trainer, *args):
        self.steps.append(_numbers(trainer.logged_metrics))


def assert_learned_the_same(run: Path, alone: Path, world: int) -> None:
    """Each of ``world`` processes ended with the weights of a single one, and the first logged its trace.

    Args:
        run: folder with a file for each rank: what a `Trace` has seen, and the weights.
        alone: that of a single process.
        world: how many processes there were.
    """
    expected, weights = torch.load(alone / "0.pt")
    for rank in range(world):
        steps, own = torch.load(run / f"{rank}.pt")
        assert own.keys() == weights.keys()
        for key, value in weights.items():
            torch.testing.assert_close(own[key], value, rtol=1e-5, atol=1e-5, msg=key)
        if rank == 0:
            assert len(steps) == len(expected)
            for step, metrics in zip(expected, steps, strict=True):
                assert metrics == pytest.approx(step, rel=1e-5, abs=1e-5, nan_ok=True)


def _numbers(metrics):
    return {name: float(value) for name, value in metrics.items() if name not in MACHINE}


def _fork(
    variables: dict[str, str], namespace: str | None, work: Callable[[], object], output: Path
) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - not pytest's
        if namespace is not None:
            _enter(namespace)
        _environment.update(variables)
        os.environ |= _environment
        os.environ.pop("LIT_ALIGN_RUN", None)  # of an earlier run
        rank_zero_only.rank = int(variables.get("LOCAL_RANK", 0))
        work()
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def _enter(namespace: str) -> None:
    """Let this process have the network of a namespace."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"no way into {namespace}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
