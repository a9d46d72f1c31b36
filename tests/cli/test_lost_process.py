"""A process that is gone is told apart from processes that never met, and from mistakes within torch.distributed."""

import os
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from lit_align.cli.lost_process import explain_meeting, lost_connection
from tests.processes import run_processes


@pytest.fixture
def listener(monkeypatch):
    """Another program, which listens where the processes are to meet."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(listener.getsockname()[1]))
        yield listener


def start_group(rank):
    with pytest.raises(RuntimeError) as caught:
        dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=1))
    return caught.value


def test_a_port_in_use_is_no_lost_process(listener):
    port = listener.getsockname()[1]
    error = start_group(rank=0)
    assert not lost_connection(error)
    sentence = explain_meeting(error)
    assert f"cannot meet at port {port} of this machine (MASTER_PORT)" in sentence
    assert "set MASTER_PORT to a free port" in sentence


def test_processes_that_do_not_come_have_not_met(listener):
    port = listener.getsockname()[1]
    listener.close()
    error = start_group(rank=1)
    assert not lost_connection(error)
    sentence = explain_meeting(error)
    assert f"have not met at 127.0.0.1, port {port} (" in sentence
    assert "trainer.num_nodes" in sentence


def test_only_a_failed_exchange_is_a_lost_process(tmp_path):
    output = tmp_path / "output.txt"
    assert run_processes(2, exchange, output) == [0, 0], output.read_text()


def exchange():
    """The second leaves, and the first waits for it in an exchange."""
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    dist.barrier()
    assert not lost_connection(misuse())
    assert not lost_connection(torch.OutOfMemoryError("CUDA out of memory"))
    if rank == 0:
        with pytest.raises(RuntimeError) as caught:
            dist.all_reduce(torch.zeros(1))
        assert lost_connection(caught.value)
        assert explain_meeting(caught.value) is None


def misuse():
    """A mistake, which torch.distributed refuses."""
    from torch.distributed.device_mesh import init_device_mesh

    with pytest.raises(RuntimeError) as caught:
        init_device_mesh("cpu", (7,))
    return caught.value
