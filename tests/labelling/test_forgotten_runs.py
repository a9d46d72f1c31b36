"""What is deleted with an annotator and what is not: runs, heads, other settings, tokenised rows; a second call."""

from pathlib import Path

import pytest
import torch

from lit_align.__main__ import main as command
from lit_align.annotators import annotator_key
from lit_align.data.prepare import PREPARED_CACHE
from lit_align.data.prepared_files import TREES
from lit_align.data.tree_store import TreeWriter, to_batch
from lit_align.labelling.votes import read_votes
from lit_align.models.personal_head import ANNOTATORS_FILE, Annotators, load_shifts, save_shifts
from lit_align.types import Group, Tree
from tests.labelling.test_forgetting import store_of

FOR_ADA = "data: {only_annotator: ada}"
WEIGHTED = "model: {reward: [{annotator: ada}, {annotator: bob}]}"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Caches and the salt of this test alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "l.db", ["ada", "bob"])


def write_run(folder, settings):
    """A folder as a training run leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(settings)
    (folder / "status.json").write_text("{}")
    return folder


def write_heads(folder):
    folder.mkdir(parents=True)
    keys = tuple(sorted(map(annotator_key, ("ada", "bob"))))
    save_shifts(folder, torch.zeros(2, 1, 3), Annotators(keys, (4, 4)))


def keys_in(folder):
    return load_shifts(folder)[1].keys


def forget(store, runs, name="ada"):
    command(["label", "forget", str(store), name, "--runs", *map(str, runs)])


def test_forgetting_again_reaches_other_runs(store, tmp_path, capsys):
    for name in ("first", "second"):
        write_run(tmp_path / name / "ada/0", FOR_ADA)
    forget(store, [tmp_path / "first"])
    forget(store, [tmp_path / "second"])
    assert "0 answers of ada" in capsys.readouterr().out
    assert not (tmp_path / "second/ada").exists()  # the folder of the name is empty
    assert (tmp_path / "second").is_dir()
    with pytest.raises(SystemExit):
        forget(store, [tmp_path / "second"])
    assert "has no annotator 'ada', and no run" in capsys.readouterr().err


def test_settings_within_a_run_go_with_it_and_broken_ones_stop_nothing(store, tmp_path, capsys):
    runs = tmp_path / "runs"
    run = write_run(runs / "ada/0", FOR_ADA)
    (run / "wandb/files").mkdir(parents=True)
    (run / "wandb/files/config.yaml").write_text(FOR_ADA)
    for name, text in (("broken", "a: ["), ("broken ada", "only_annotator: [ada")):
        (runs / name).mkdir()
        (runs / name / "config.yaml").write_text(text)
    forget(store, [runs, runs / "ada"])
    told = capsys.readouterr().out
    assert not run.exists()
    assert f"{runs / 'broken ada/config.yaml'} names ada" in told
    assert str(runs / "broken/config.yaml") not in told
    assert "wandb" not in told


def test_what_no_training_run_wrote_is_left_and_named(store, tmp_path, monkeypatch, capsys):
    """Settings by hand, an evaluation whose gold reward has her head, and checkpoints beside a head without a run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(FOR_ADA)
    (tmp_path / "other.ckpt").write_text("of another project")
    evaluation = write_run(tmp_path / "runs/frontier/0", "gold: {annotator: ada}")
    (evaluation / "status.json").unlink()
    write_heads(tmp_path / "runs/copy/adapter")
    forget(store, ["."])
    told = capsys.readouterr().out
    assert "config.yaml names ada and is of no training run" in told
    assert "runs/frontier/0/config.yaml names ada" in told
    assert (tmp_path / "other.ckpt").exists()
    assert evaluation.exists()
    assert keys_in(tmp_path / "runs/copy/adapter") == (annotator_key("bob"),)


def test_the_run_of_a_head_is_not_above_the_folder_that_is_given(store, tmp_path):
    above = write_run(tmp_path / "7", "seed: 0")
    (above / "last.ckpt").write_text("of another run")
    write_heads(above / "runs/copy/adapter")
    forget(store, [above / "runs"])
    assert (above / "last.ckpt").exists()
    assert keys_in(above / "runs/copy/adapter") == (annotator_key("bob"),)


def test_a_run_for_several_people_is_refused_before_anything_is_deleted(store, tmp_path, capsys):
    runs = tmp_path / "runs"
    own, both = write_run(runs / "ada/0", FOR_ADA), write_run(runs / "both/0", WEIGHTED)
    with pytest.raises(SystemExit):
        forget(store, [runs])
    assert f"{both} is for several people, ada, bob" in capsys.readouterr().err
    assert own.exists()
    assert both.exists()
    assert {vote.annotator for vote in read_votes(store).history} == {"ada", "bob"}


def test_an_interrupted_deletion_is_finished_by_the_next(store, tmp_path):
    """The head, by which its run would be found again, goes after the checkpoints; the votes go last."""
    runs = tmp_path / "runs"
    run = write_run(runs / "all/0", "seed: 0")
    write_heads(run / "adapter")
    (run / "last.ckpt").mkdir()  # cannot be unlinked
    with pytest.raises(IsADirectoryError):
        forget(store, [runs])
    assert len(keys_in(run / "adapter")) == 2
    assert "ada" in {vote.annotator for vote in read_votes(store).history}
    (run / "last.ckpt").rmdir()
    forget(store, [runs])
    assert keys_in(run / "adapter") == (annotator_key("bob"),)
    assert list((run / "adapter").iterdir()) == [run / "adapter" / ANNOTATORS_FILE]


def test_tokenised_rows_of_the_person_are_deleted(store, tmp_path, capsys):
    cache = Path(PREPARED_CACHE).expanduser()
    assert cache.is_relative_to(tmp_path)
    groups = {
        "hers": Group("a", ["b"], annotator="ada"),
        "hashed": Group("a", ["b"], annotator=annotator_key("ada")),
        "his": Group('"ada": "ada"', ["ada"], annotator="bob", extra={"ada": 1}),
    }
    for name, group in groups.items():
        (cache / name).mkdir(parents=True)
        writer = TreeWriter(cache / name / TREES)
        writer.write(to_batch([Tree([1], [[2]], [[True]], group)]), [b"0"])
        writer.close()
    (tmp_path / "runs").mkdir()
    forget(store, [tmp_path / "runs"])
    assert [folder.name for folder in cache.iterdir()] == ["his"]
    assert f"{cache / 'hers'} held tokenised rows of ada" in capsys.readouterr().out
