"""Heads are kept under hashes of names: under another salt nobody would find theirs, and that is said."""

import os
from functools import partial

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open

from lit_align import annotators
from lit_align.annotators import annotator_key, salt_check
from lit_align.cli.main import main
from lit_align.errors import ConfigError, ModelError
from lit_align.models.personal_head import Annotators, load_shifts
from lit_align.processes import Processes
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.personal_reward_model import (
    count_annotators,
    refuse_other_salt,
    refuse_salts,
)
from tests.processes import run_processes
from tests.stages.runs import folder_of
from tests.stages.test_exact import trees
from tests.stages.test_personal_reward_model import personal_arguments, signed, write_votes
from tests.stages.test_reward_model import texts


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("LIT_ALIGN_SALT", "of the training")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run of an epoch, its votes, and what the votes' command line is."""
    folder = tmp_path_factory.mktemp("salted")
    votes = write_votes(folder / "votes.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_ALIGN_SALT", "of the training")
        main(personal_arguments(tiny, votes, folder / "run", "--trainer.max_epochs=1"))
    return folder_of(folder / "run"), partial(personal_arguments, tiny, votes)


def test_the_file_tells_salts_apart_and_holds_none(run):
    file = run[0] / "adapter/annotator_heads.safetensors"
    _, saved = load_shifts(file.parent)
    assert saved.salt_check == salt_check("of the training") != salt_check("another")
    assert b"of the training" not in file.read_bytes()
    assert saved.without(saved.keys[0]).salt_check == saved.salt_check
    with safe_open(file, "pt") as content:
        assert content.metadata().keys() == {"keys", "votes", "salt_check"}


@pytest.mark.parametrize("is_file", [False, True])
def test_resuming_under_another_salt_is_refused(is_file, run, tmp_path, monkeypatch, capsys):
    """Set in the variable, or drawn anew in a container that lacks the file."""
    if is_file:
        monkeypatch.delenv("LIT_ALIGN_SALT")
        monkeypatch.setattr(annotators, "SALT_FILE", tmp_path / "salt")
    else:
        monkeypatch.setenv("LIT_ALIGN_SALT", "another")
    folder, arguments = run
    more = ["--trainer.max_epochs=2", f"--ckpt_path={folder / 'checkpoints/last.ckpt'}"]
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "resumed", *more))
    told = capsys.readouterr().err
    assert "hashed under another salt" in told
    assert "set LIT_ALIGN_SALT to the salt of that time, or bring back its file" in told
    assert str(annotators.SALT_FILE.expanduser()) in told


def test_an_adapter_under_another_salt_scores_hashes_and_refuses_names(run, monkeypatch):
    adapter, key = str(run[0] / "adapter"), annotator_key("ada")
    groups = [group._replace(annotator="ada") for group in texts(3)]
    hashed = [group._replace(annotator=key) for group in groups]
    own = RewardModelScore(adapter, by_annotator=True)(groups).total
    monkeypatch.setenv("LIT_ALIGN_SALT", "another")
    with pytest.raises(ModelError, match=r"another salt.*LIT_ALIGN_SALT"):
        RewardModelScore(adapter, annotator="ada")
    reward = RewardModelScore(adapter, by_annotator=True)
    with pytest.raises(ModelError, match=r"another salt.*LIT_ALIGN_SALT"):
        reward([hashed[0], groups[1]])
    assert torch.equal(reward(hashed).total, own)
    assert torch.equal(RewardModelScore(adapter, annotator=key)(groups).total, own)


def test_rows_of_hashes_depend_on_no_salt(monkeypatch):
    names = [annotator_key("ada"), annotator_key("bob"), ""]
    saved = count_annotators(signed(trees(5), names))
    assert saved.salt_check == ""
    monkeypatch.setenv("LIT_ALIGN_SALT", "another")
    rows = count_annotators(signed(trees(5), names))
    assert rows == saved
    refuse_other_salt(rows, saved)
    assert not saved.differs_in_salt(["ada"])


def test_a_checkpoint_of_before_is_refused_where_its_heads_are_of_others(monkeypatch):
    rows = signed(trees(5), ["ada", "bob"])
    of_before = count_annotators(rows)._asdict()
    del of_before["salt_check"]
    saved = Annotators.from_dict(of_before)
    refuse_other_salt(count_annotators(rows), saved)
    monkeypatch.setenv("LIT_ALIGN_SALT", "another")
    with pytest.raises(ConfigError, match="no row would find its head"):
        refuse_other_salt(count_annotators(rows), saved)


def test_two_hosts_with_a_salt_each_are_refused(tmp_path):
    output = tmp_path / "output.txt"
    assert run_processes(2, _count_under_two_salts, output) == [0, 0], output.read_text()


def _count_under_two_salts():
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    processes = Processes(rank, 2, torch.device("cpu"))
    rows = signed(trees(4), ["ada", "bob"])
    refuse_salts(count_annotators(rows), processes)
    os.environ["LIT_ALIGN_SALT"] = f"of host {rank}"
    with pytest.raises(ConfigError, match="set LIT_ALIGN_SALT to one secret on all hosts"):
        refuse_salts(count_annotators(rows), processes)
    hashed = signed(trees(4), ["annotator-0123456789abcdef"])
    refuse_salts(count_annotators(hashed), processes)
    dist.destroy_process_group()
