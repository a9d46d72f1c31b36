"""What a resumed run may change, without a run: settings, data, optimizer and schedule; broken checkpoints."""

import os
import resource
import warnings
import zipfile
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, StepLR

import lit_align
from lit_align.checkpoint_files import previous_checkpoint, read_checkpoint
from lit_align.data.datamodules import Comparisons
from lit_align.data.digest import trees_digest
from lit_align.errors import ConfigError, ModelError, TrainingError
from lit_align.models.atomic_folder import remove_abandoned
from lit_align.rewards.implicit import load_policy
from lit_align.stages.checkpoints import SafeIO
from lit_align.stages.resume import (
    apply_options,
    data_settings,
    refuse_other_data,
    refuse_other_optimizer,
    refuse_rising_schedule,
    replay_schedule,
    setting_changes,
)
from lit_align.types import Group, Pair, Tree

LR = 0.1


def adam(lr=LR, **settings):
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr, **settings)


def with_class(name, **settings):
    return {"class_path": f"torch.optim.{name}", "init_args": settings}


def test_only_what_differs_is_listed():
    saved = {"optimizer": with_class("AdamW", lr=0.1, eps=1e-8), "seed": 1, "_class_path": "a.B"}
    current = {"optimizer": with_class("AdamW", lr=0.2, eps=1e-8), "seed": 1, "_class_path": "c.D"}
    assert [*map(str, setting_changes(saved, current, "model"))] == [
        "model.optimizer.lr 0.1 -> 0.2"
    ]
    current["optimizer"] = with_class("SGD", lr=0.1)
    assert [*map(str, setting_changes(saved, current, "model"))] == ["model.optimizer AdamW -> SGD"]
    assert setting_changes(saved, saved, "model") == []


def test_a_model_may_have_moved():
    assert not setting_changes(
        {"base": {"path": "/a/tiny"}}, {"base": {"path": "/b/tiny"}}, "model"
    )


def test_settings_of_data_are_plain_and_name_no_files():
    plain = data_settings(Comparisons("a.jsonl", batch_size=4))
    assert plain["batch_size"] == 4
    assert "train" not in plain


@pytest.mark.parametrize(
    ("saved", "current", "match"),
    [
        ({"rows": 3}, {"rows": 4}, "rows 3 -> 4"),
        ({"batch_size": 3, "seed": 0}, {"batch_size": 4, "seed": 0}, "batch_size 3 -> 4"),
    ],
)
def test_other_data_are_refused(saved, current, match):
    refuse_other_data(saved, saved)
    with pytest.raises(ConfigError, match=match):
        refuse_other_data(saved, current)


def test_another_optimizer_is_refused():
    refuse_other_optimizer("torch.optim.AdamW", "torch.optim.AdamW")
    with pytest.raises(ConfigError, match="state of AdamW, and this run has SGD"):
        refuse_other_optimizer("torch.optim.adamw.AdamW", "torch.optim.sgd.SGD")


@pytest.mark.parametrize(
    ("saved", "current"),
    [
        (lambda o: CosineAnnealingLR(o, 4), lambda o: CosineAnnealingLR(o, 9)),
        (lambda o: StepLR(o, 2), lambda o: StepLR(o, 3, 0.5)),
        (lambda o: LinearLR(o, 1.0, 0.1, 5), lambda o: LinearLR(o, 1.0, 0.5, 8)),
    ],
)
def test_another_schedule_goes_on_where_it_would_be(saved, current):
    """As if the run had had this schedule and this rate from its first update."""
    undisturbed = adam(0.3)
    expected = current(undisturbed)
    resumed = adam()
    schedule = saved(resumed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            schedule.step()
            expected.step()
        restored = current(resumed)
        apply_options(resumed, [{"lr": 0.3, "weight_decay": 0.2}])
        replay_schedule(restored, current, 4)
        for _ in range(3):
            assert resumed.param_groups[0]["lr"] == undisturbed.param_groups[0]["lr"]
            restored.step()
            expected.step()
    assert resumed.param_groups[0]["weight_decay"] == 0.2


def test_a_schedule_that_is_too_short_is_refused():
    schedule = StepLR(adam(), 1)
    with pytest.raises(ConfigError, match="over before update 9"):
        replay_schedule(schedule, lambda o: OneCycleLR(o, LR, total_steps=4), 9)


def test_a_cosine_that_is_over_is_not_prolonged_by_accident():
    schedule = CosineAnnealingLR(adam(), 2)
    schedule.last_epoch = 2
    refuse_rising_schedule(schedule, [2, -1], [2, -1])
    refuse_rising_schedule(StepLR(adam(), 1), [2, -1], [4, -1])
    with pytest.raises(ConfigError, match="T_max is 2, and the run goes on after update 2"):
        refuse_rising_schedule(schedule, [2, -1], [4, -1])


rows = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=5)


@given(rows, rows)
def test_equal_digests_mean_equal_rows(some, other):
    def trees(ids):
        return [Tree([1], [row], [[True] * len(row)], Group("a", ["b"])) for row in ids]

    assert (trees_digest(trees(some)) == trees_digest(trees(other))) == (some == other)


def test_labels_and_masks_count():
    group = Group("a", ["b", "c"], pairs=(Pair(0, 1),))
    tree = Tree([1], [[2], [3]], [[True], [True]], group)
    others = [
        tree._replace(group=group._replace(pairs=(Pair(1, 0),))),
        tree._replace(scored=[[True], [False]]),
        tree._replace(mismatched=1),
        tree._replace(prompt=[1, 2], responses=[[], [3]], scored=[[], [True]]),
    ]
    digests = [trees_digest([other]) for other in [tree, *others]]
    assert len(set(digests)) == 5
    assert trees_digest([tree._replace(group=group._replace(source="x:1"))]) == digests[0]


# ------------------------------------------------------------------ checkpoint files


SAVED = {
    "hyper_parameters": {"_class_path": "lit_align.orca.stage.CrossModal"},
    "state_dict": {"weight": torch.arange(999)},
}


def save(path, step=1):
    SafeIO().save_checkpoint({**SAVED, "global_step": step}, path)


def test_the_checkpoint_before_the_last_is_named_when_the_last_is_broken(tmp_path):
    path = tmp_path / "last.ckpt"
    for step in (1, 2, 3):
        save(path, step)
    assert read_checkpoint(path)["global_step"] == 3
    assert read_checkpoint(previous_checkpoint(path))["global_step"] == 2
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        ModelError, match=r"no complete checkpoint; give the one before it, .*previous"
    ):
        read_checkpoint(path)
    previous_checkpoint(path).write_bytes(b"")
    with pytest.raises(ModelError, match="give the path of another one"):
        read_checkpoint(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "last.previous.ckpt"]


READERS = {
    "resume": lambda path: SafeIO().load_checkpoint(path, weights_only=True),
    "load": lit_align.load,
    "reward": lambda path: load_policy(str(path)),
}


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_no_broken_byte_is_read(tmp_path_factory, data):
    """Cut off anywhere, or with another byte anywhere: never a traceback, and never other weights."""
    path = tmp_path_factory.mktemp("broken") / "last.ckpt"
    save(path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans(), label="cut off"):
        path.write_bytes(content[:place])
    else:
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
    try:
        checkpoint = read_checkpoint(path)
    except ModelError:
        return
    assert len(content) == path.stat().st_size  # a byte that means nothing, such as padding
    assert torch.equal(checkpoint["state_dict"]["weight"], SAVED["state_dict"]["weight"])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no complete checkpoint"),
        (b"PK", "no complete checkpoint"),
        ([1], "no checkpoint of lit-align"),
        ({"weight": torch.zeros(1)}, "no checkpoint of lit-align"),
        ({"state_dict": {}, "hyper_parameters": {"lr": 0.1}}, "no checkpoint of lit-align"),
        ({**SAVED, "state_dict": [1]}, "no checkpoint of lit-align"),
        ({**SAVED, "callbacks": SimpleNamespace()}, "holds a Python object"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_alike_everywhere(reader, content, match, tmp_path):
    path = tmp_path / "last.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelError, match=f"last.ckpt {match}|last.ckpt is {match}"):
        READERS[reader](path)


def test_a_run_without_a_policy_implies_no_reward(tmp_path):
    path = tmp_path / "last.ckpt"
    save(path)
    with pytest.raises(
        ModelError, match=r"is a run of .*CrossModal, which trains no language model; give"
    ):
        load_policy(str(path))


def test_an_archive_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.txt", "text")
    with pytest.raises(ModelError, match="no checkpoint of lit-align"):
        read_checkpoint(path)


def test_a_checkpoint_is_read_once(tmp_path):
    path, checkpoint_io = tmp_path / "last.ckpt", SafeIO()
    save(path)
    checkpoint = checkpoint_io.read_ahead(path)
    assert checkpoint_io.load_checkpoint(str(path)) is checkpoint
    assert checkpoint_io.load_checkpoint(path) is not checkpoint  # it is not kept in memory


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path):
    path = tmp_path / "last.ckpt"
    save(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size - 1, limits[1]))
    try:
        with pytest.raises(TrainingError, match="File too large; the last complete one is still"):
            save(path, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_checkpoint(path)["global_step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_only_what_dead_processes_left_is_removed(tmp_path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    living = tmp_path / f"last.ckpt.{os.getppid()}.tmp"
    for name in (f"last.ckpt.{child}.tmp", f".last.adapter.x.{child}.tmp", living.name):
        (tmp_path / name).write_text("half")
    remove_abandoned(tmp_path, "*.tmp")
    remove_abandoned(tmp_path, ".*.tmp")
    assert [*tmp_path.iterdir()] == [living]


def test_a_folder_is_no_checkpoint_and_its_checkpoint_is_named(tmp_path):
    with pytest.raises(
        ModelError, match=r"is a folder; give a checkpoint in it, such as .*last\.ckpt"
    ):
        read_checkpoint(tmp_path)
