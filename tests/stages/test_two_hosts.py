"""Two machines learn what one process does; one that is cut off ends the run, which then goes on."""

import subprocess
from contextlib import suppress

import pytest

from tests.kills import Runs, differences, metrics, warm_up
from tests.processes import Host

LIMIT = ("--trainer.max_steps=3",)
SAVE = ("--save_every=1",)
TIMEOUT = ("--trainer.strategy=DDPStrategy", "--trainer.strategy.timeout=0:00:40")
HOSTS = (Host("lit0", "lit0", "10.77.0.1"), Host("lit1", "lit1", "10.77.0.2"))


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them."""
    try:
        for host in HOSTS:
            ip("netns", "add", host.namespace)
        ip("link", "add", "lit0", "netns", "lit0", "type", "veth", "peer", "lit1", "netns", "lit1")
        for host in HOSTS:
            for words in (
                ("address", "add", f"{host.address}/24", "dev", host.interface),
                ("link", "set", host.interface, "up"),
                ("link", "set", "lo", "up"),
            ):
                ip("-netns", host.namespace, *words)
        yield HOSTS
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are not permitted here: {error}")
    finally:
        for host in HOSTS:
            with suppress(OSError, subprocess.CalledProcessError):
                ip("netns", "delete", host.namespace)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all runs; this process has imported what they need."""
    folder = tmp_path_factory.mktemp("hosts")
    warm_up(folder)
    return folder


@pytest.mark.parametrize("stage", ["SFT", "DPO"])
def test_two_hosts_learn_what_one_process_does(stage, hosts, folder):
    settings = (*LIMIT, "--model.lora.dropout=0.0")
    one = Runs(folder / stage, stage, settings)
    two = Runs(folder / stage, stage, settings, processes=2, forked=True, hosts=hosts)
    assert one.run(folder / stage / "one") == 0, one.output()
    assert two.run(folder / stage / "two") == 0, two.output()
    assert_close(folder / stage / "two/0", folder / stage / "one/0")


def test_a_host_that_is_cut_off_ends_the_run_which_goes_on(hosts, folder):
    """PPO; the exchange gives up after its time limit, on both sides."""
    ppo = folder / "PPO"
    one = Runs(ppo, "PPO", LIMIT)
    assert one.run(ppo / "one") == 0, one.output()
    two = Runs(ppo, "PPO", (*LIMIT, *SAVE, *TIMEOUT), processes=2, forked=True, hosts=hosts)
    assert two.run(ppo / "two") == 0, two.output()
    assert_close(ppo / "two/0", ppo / "one/0")
    cut = (
        "--trainer.callbacks+=tests.stages.callbacks.CutOff",
        *("--trainer.callbacks.step=2", "--trainer.callbacks.rank=1"),
        f"--trainer.callbacks.interface={hosts[1].interface}",
    )
    assert two.run(ppo / "cut", *cut) == 1
    assert two.output().count("another process of the run") == 1, two.output()
    ip("-netns", hosts[1].namespace, "link", "set", hosts[1].interface, "up")
    status = two.run(ppo / "cut", checkpoint=ppo / "cut/0/checkpoints/last.ckpt")
    assert status == 0, two.output()
    assert differences(ppo / "cut/1", ppo / "two/0") == []
    assert [path.name for path in (ppo / "cut").iterdir() if path.is_dir()] == ["0", "1"]


def assert_close(folder, expected):
    """Every column of the trace."""
    rows, others = metrics(folder), metrics(expected)
    assert len(rows) == len(others) > 0
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            number = pytest.approx(float(other[name] or "nan"), rel=1e-5, abs=1e-5, nan_ok=True)
            assert float(value or "nan") == number, name
