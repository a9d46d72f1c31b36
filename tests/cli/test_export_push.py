"""An exported folder reaches a hub file by file; what the hub refuses is one sentence."""

import os
import subprocess
import sys

import pytest

from lit_align.cli.main import main
from tests.cli.hub import loopback_hub
from tests.stages.runs import ROOT, arguments, folder_of, write_pairs


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    at = tmp_path_factory.mktemp("push")
    pairs = write_pairs(at / "pairs.jsonl")
    main(arguments(tiny, pairs, at / "run", "--trainer.max_steps=1"))
    return folder_of(at / "run")


def export(run, folder, hub, *more, token=None):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": token or hub.token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder.parent / "home"),
    }
    return subprocess.run(
        [sys.executable, "-m", "lit_align", "export", str(run), str(folder), *more],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_files_arrive_in_a_private_repository(run, tmp_path):
    folder = tmp_path / "out"
    with loopback_hub() as hub:
        result = export(run, folder, hub, "--push=me/policy")
    assert result.returncode == 0, result.stderr[-3000:]
    assert hub.unknown == []
    assert hub.private == {"me/policy": True}
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.files == written
    assert {"README.md", "adapter_model.safetensors", "chat_template.jinja"} <= written.keys()
    assert hub.messages == ["Preference trained with lit-align"]
    assert f"me/policy holds the same at {hub.address}/me/policy" in result.stdout


def test_a_token_that_is_refused_is_said_before_anything_is_loaded(run, tmp_path):
    with loopback_hub() as hub:
        result = export(run, tmp_path / "out", hub, "--push=me/policy", token="hf_wrong")
    assert result.returncode == 2
    assert "--push me/policy: " in result.stderr
    assert "log in with `hf auth login`" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
    assert hub.private == {}


def test_a_name_that_cannot_be_one_is_refused(run, tmp_path):
    with loopback_hub() as hub:
        result = export(run, tmp_path / "out", hub, "--push=me/a/b")
    assert result.returncode == 2
    assert "--push me/a/b: Repo id must be" in result.stderr
