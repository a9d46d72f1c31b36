"""Versions and hardware for a bug report: true, without anything personal, and quick."""

import getpass
import platform
import re
import socket
import subprocess
import sys
from importlib.metadata import version

import psutil
import pytest
import torch

from lit_align import __version__
from lit_align.__main__ import main
from lit_align.cli import env


def lines_of(text):
    """What stands beside each label."""
    return dict(line.split(maxsplit=1) for line in text.splitlines() if not line.startswith("not "))


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program of that name on the path, since there is no driver here; it prints what is given."""

    def install(output, code=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def test_what_it_says_is_true(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    main(["env"])
    lines = lines_of(capsys.readouterr().out)
    assert lines["lit_align"].split()[0] == __version__
    assert lines["python"].split()[0] == platform.python_version()
    assert platform.release() in lines["system"]
    for package in ("lightning", "transformers", "peft", "bitsandbytes"):
        assert lines[package] == version(package)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
    assert lines["torch"] == f"{version('torch')}, built for {build}"
    assert f"rich {version('rich')}" in lines["others"]
    assert float(lines["memory"].split()[0]) == pytest.approx(
        psutil.virtual_memory().total / 2**30, abs=0.05
    )
    assert "OMP_NUM_THREADS=3" in lines["variables"].split(", ")


def test_nothing_personal_and_no_torch(tmp_path):
    """No program is on the path, so that no driver answers; importing torch would take seconds."""
    home = tmp_path / "jane.doe"
    home.mkdir()
    (tmp_path / "empty").mkdir()
    code = (
        "import sys; from lit_align.__main__ import main; main(['env']); "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    secrets = {
        "HF_TOKEN": "hf_secret",
        "OPENAI_API_KEY": "sk-secret",
        "USER": "jane.doe",
        "LIT_ALIGN_CACHE": "/home/jane.doe/cache",
    }
    environment = {
        "HOME": str(home),
        "PATH": str(tmp_path / "empty"),
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **secrets},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 10
    for word in ("secret", "jane.doe", str(tmp_path), sys.prefix):
        assert word not in done.stdout
    lines = lines_of(done.stdout)
    about_the_machine = " ".join([lines.pop("system"), lines.pop("processor")]).lower()
    for name in (socket.gethostname(), getpass.getuser()):
        if name.lower() not in about_the_machine:  # a machine may be called debian
            assert not re.search(rf"\b{re.escape(name)}\b", " ".join(lines.values()))


def test_each_gpu_is_listed(nvidia_smi):
    """Fields in the order in which they are asked for."""
    card = "NVIDIA GeForce RTX 4090, 24564, 812, 550.54.14, 8.9"
    nvidia_smi(f"{card}\n{card}")
    text = env.describe_gpus()
    assert (
        text.count("NVIDIA GeForce RTX 4090, 24564 MiB, 812 MiB in use, compute capability 8.9")
        == 2
    )
    assert "driver 550.54.14" in text
    if torch.version.cuda is None:
        assert text.endswith("torch cannot use them, since it is not built for CUDA")


def test_a_part_that_cannot_be_read_stops_no_other(nvidia_smi, capsys):
    nvidia_smi("something, else")
    main(["env"])
    out = capsys.readouterr().out
    assert "GPU          unknown (ValueError)\n" in out
    assert "\nplugins " in out
    nvidia_smi("NVIDIA-SMI has failed", code=9)
    assert env.describe_gpus() == "no driver of NVIDIA answers"
