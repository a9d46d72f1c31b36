"""Two machines learn what one process does; one that is cut off ends the run, which then goes on."""

import subprocess
from contextlib import suppress
from functools import partial

import pytest
import torch

from lit_align.advantages.gae import GAE
from lit_align.data.datamodules import Comparisons, Demonstrations, Prompts
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.rewards.pattern import Pattern
from lit_align.stages.preference import Preference
from lit_align.stages.sft import SFT
from tests.kills import Runs, differences, warm_up
from tests.processes import Host, Trace, make_trainer, run_processes
from tests.rl.on_policy import stage as rl_stage
from tests.stages.runs import write_pairs

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


def learn(tiny, folder, nodes):
    """SFT, DPO and PPO in turn, in this process; each leaves its trace and weights."""
    base, trained = Base(str(tiny), "none", "float32"), {"lora": Lora(r=4)}
    data = {"batch_size": 3, "token_budget": 256, "max_length": 128, "prepared_cache": None}
    ppo = rl_stage(tiny, Pattern("a|e|i"), GAE(), num_generations=2, max_new_tokens=6)
    runs = {
        "sft": (SFT(CrossEntropy(), base=base, **trained), Demonstrations),
        "dpo": (Preference(DPO(), base=base, **trained), Comparisons),
        "ppo": (ppo, Prompts),
    }
    for name, (module, kind) in runs.items():
        trace, run = Trace(), folder / str(nodes) / name
        module.optimizer = partial(torch.optim.AdamW, lr=0.001)
        places = {"num_nodes": nodes, "devices": 1, "strategy": "ddp" if nodes > 1 else "auto"}
        trainer = make_trainer(run, max_steps=2, callbacks=[trace], **places)
        trainer.fit(module, kind(str(folder / "pairs.jsonl"), **data))
        weights = {key: value.detach() for key, value in module.trained_parameters().items()}
        run.mkdir(parents=True, exist_ok=True)
        torch.save((trace.steps, weights), run / f"{trainer.global_rank}.pt")


def test_two_hosts_learn_what_one_process_does(hosts, tiny, tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", rows=6)
    output = tmp_path / "output.txt"
    for nodes in (1, 2):
        work = partial(learn, tiny, tmp_path, nodes)
        status = run_processes(nodes, work, output, hosts[:nodes] if nodes > 1 else ())
        assert status == [0] * nodes, output.read_text()[-5000:]
    for name in ("sft", "dpo", "ppo"):
        expected, weights = torch.load(tmp_path / "1" / name / "0.pt")
        steps, _ = torch.load(tmp_path / "2" / name / "0.pt")
        _, others = torch.load(tmp_path / "2" / name / "1.pt")
        for step, metrics in zip(expected, steps, strict=True):
            assert metrics == pytest.approx(step, rel=1e-5, abs=1e-5, nan_ok=True), name
        for key, value in weights.items():
            torch.testing.assert_close(others[key], value, rtol=1e-5, atol=1e-5, msg=key)


def test_a_host_that_is_cut_off_ends_the_run_which_goes_on(hosts, folder):
    """PPO; the exchange gives up after its time limit, on both sides."""
    ppo = folder / "PPO"
    two = Runs(ppo, "PPO", (*LIMIT, *SAVE, *TIMEOUT), processes=2, forked=True, hosts=hosts)
    assert two.run(ppo / "two") == 0, two.output()
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
