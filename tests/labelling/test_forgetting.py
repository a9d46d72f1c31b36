"""Labels of each annotator apart, and an annotator who is forgotten: votes, heads, policies and checkpoints."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lit_align.__main__ import main as command
from lit_align.annotators import annotator_key
from lit_align.cli.main import main
from lit_align.data.formats.groups import as_row
from lit_align.labelling.feedback import Human
from lit_align.labelling.store import Store
from lit_align.labelling.votes import read_votes
from lit_align.models.personal_head import load_shifts
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.types import Group
from tests.labelling.serving import make_groups
from tests.labelling.test_human import store_with_votes
from tests.stages.runs import folder_of
from tests.stages.test_personal_reward_model import personal_arguments
from tests.stages.test_reward_model import texts

ANSWERS = {
    "ada": [-3, 1, 0, None, -1, 2, -1, 1],
    "bob": [3, -1, 2, 2, 1, -2, 1, None],
    "cid": [2, None, 0, 1, 1, 1, -1, 1],
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Caches and the salt of this test alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def store_of(path, names):
    answers = {name: ANSWERS[name] for name in names}
    return store_with_votes(path, "compare", make_groups(8), answers)


def export(store, file, *more):
    command(["label", "export", str(store), str(file), "--format", "annotators", *more])
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_ones_labels_are_those_of_their_votes_alone(tmp_path):
    store = store_of(tmp_path / "l.db", ["ada", "bob"])
    rows = export(store, tmp_path / "labels.jsonl")
    assert {row["annotator"] for row in rows} == {annotator_key("ada"), annotator_key("bob")}
    named = export(store, tmp_path / "named.jsonl", "--names", "clear")
    by_name = {}
    for row in named:
        by_name.setdefault(row["annotator"], []).append(row)
    # a tie and a skip give no label; the sign says which was shown first, the size by how much
    assert [row["pairs"][0][3] for row in by_name["ada"]] == [3, 1, 1, 2, 1, 1]
    assert [row["pairs"][0][3] for row in by_name["bob"]] == [3, 1, 2, 2, 1, 2, 1]
    assert all(row["pairs"][0][2] == 1.0 for row in named)


def test_labels_are_of_those_who_voted_and_not_of_whom_the_task_names(tmp_path):
    """The tasks' rows say who labelled them earlier, in a column of the same name."""
    groups = [
        group._replace(extra={"annotator": "worker-7", "level": 2}) for group in make_groups(8)
    ]
    answers = {name: ANSWERS[name] for name in ("ada", "bob")}
    store = store_with_votes(tmp_path / "l.db", "compare", groups, answers)
    rows = export(store, tmp_path / "each.jsonl", "--names", "clear")
    assert [row["annotator"] for row in rows] == ["ada"] * 6 + ["bob"] * 7
    command(["label", "export", store, str(tmp_path / "all.jsonl")])
    for file in tmp_path.glob("*.jsonl"):
        assert "worker-7" not in file.read_text()
        assert '"level": 2' in file.read_text()


def test_a_row_is_of_who_labelled_the_group():
    group = Group("a", ["b"], annotator="ada", extra={"annotator": "worker-7"})
    assert as_row(group)["annotator"] == "ada"
    assert as_row(group._replace(annotator=""))["annotator"] == "worker-7"


def test_labels_of_each_one_are_not_aggregated(tmp_path, capsys):
    store = store_of(tmp_path / "l.db", ["ada", "bob"])
    with pytest.raises(SystemExit):
        export(store, tmp_path / "labels.jsonl", "--aggregation=majority")
    assert "annotators keeps them apart" in capsys.readouterr().err
    assert not (tmp_path / "labels.jsonl").exists()


def test_votes_are_exported_by_hashes_on_demand(tmp_path):
    store = store_of(tmp_path / "l.db", ["ada"])
    for names, wanted in (("hashed", annotator_key("ada")), ("clear", "ada")):
        file = tmp_path / f"{names}.csv"
        command(["label", "export", str(store), str(file), "--format=csv", f"--names={names}"])
        assert wanted in file.read_text()
        assert ('"ada"' in file.read_text() or ",ada," in file.read_text()) == (names == "clear")


def test_who_is_forgotten_leaves_no_trace_in_the_store(tmp_path):
    path = store_of(tmp_path / "l.db", ["ada", "bob"])
    (tmp_path / "runs").mkdir()
    command(["label", "forget", str(path), "ada", "--runs", str(tmp_path / "runs")])
    data = read_votes(path)
    assert {vote.annotator for vote in data.history} == {"bob"}
    for file in tmp_path.glob("l.db*"):
        assert b"ada" not in file.read_bytes()
    store = Store(path)
    counts = store.db.execute("SELECT taken FROM tasks ORDER BY id").fetchall()
    assert [taken for (taken,) in counts] == [1] * 7 + [0]
    with pytest.raises(Exception, match="a vote is never deleted"):
        store.db.execute("DELETE FROM votes")
    assert store.invite_once("ada")  # may begin again


def test_a_name_that_is_not_there_is_refused(tmp_path, capsys):
    path = store_of(tmp_path / "l.db", ["ada"])
    for arguments, words in (
        (["eve", "--runs", str(tmp_path)], "has no annotator 'eve'"),
        (["ada", "--runs", str(tmp_path / "none")], "which is no folder"),
    ):
        with pytest.raises(SystemExit):
            command(["label", "forget", str(path), *arguments])
        assert words in capsys.readouterr().err
    assert len(read_votes(path).votes) == 7


def test_runs_lose_the_head_and_a_new_fit_is_as_if_there_had_been_no_votes(tiny, tmp_path, capsys):
    """Three people vote, one is forgotten: the new export and the new model are those of a store with two."""
    path = store_of(tmp_path / "three.db", ["ada", "bob", "cid"])
    runs = tmp_path / "runs"
    labels = tmp_path / "labels.jsonl"
    export(path, labels)
    train(tiny, labels, runs / "all")
    policy = runs / "ada/0"
    policy.mkdir(parents=True)
    settings = "data: {class_path: Comparisons, init_args: {only_annotator: ada, columns: {annotator: bob}}}"
    (policy / "config.yaml").write_text(settings)
    (policy / "status.json").write_text("{}")
    pooled = RewardModelScore(str(folder_of(runs / "all") / "adapter"))(texts(3)).total

    command(["label", "forget", str(path), "ada", "--runs", str(runs)])
    told = capsys.readouterr().out
    assert "8 answers of ada are deleted" in told
    assert f"{policy} was trained for ada alone" in told
    assert f"lit-align fit -c {runs / 'all/0/config.yaml'}" in told
    assert not policy.exists()
    assert not list(runs.rglob("*.ckpt"))
    for file in runs.rglob("annotator_heads.safetensors"):
        _, annotators = load_shifts(file.parent)
        assert annotators.keys == tuple(sorted(map(annotator_key, ("bob", "cid"))))
        assert annotator_key("ada").encode() not in file.read_bytes()
    adapter = str(folder_of(runs / "all") / "adapter")
    with pytest.warns(UserWarning, match="has no head"):
        reward = RewardModelScore(adapter, annotator="ada")
    assert torch.equal(reward(texts(3)).total, pooled)

    export(path, tmp_path / "again.jsonl")
    export(store_of(tmp_path / "two.db", ["bob", "cid"]), tmp_path / "never.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "never.jsonl").read_text()
    shutil.copy(tmp_path / "again.jsonl", labels)
    train(tiny, labels, runs / "again")
    train(tiny, tmp_path / "never.jsonl", runs / "never")
    again, never = (folder_of(runs / name) / "adapter" for name in ("again", "never"))
    for file in ("adapter_model", "head", "annotator_heads"):
        one, other = (load_file(at / f"{file}.safetensors") for at in (again, never))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def train(tiny, labels, run):
    arguments = personal_arguments(tiny, labels, run, "--trainer.max_steps=2")
    main([word for word in arguments if "worker" not in word])


def test_the_votes_of_one_person_are_a_source_of_feedback(tmp_path):
    """Ada and Bob disagree on the first pair, and Ada has no vote on the fourth."""
    store, groups = store_of(tmp_path / "l.db", ["ada", "bob"]), make_groups(8)
    choices = {}
    for name in ("ada", "bob", annotator_key("ada")):
        results = Human(store, annotator=name)(groups, "pairs")
        choices[name] = [result.group and result.group.pairs[0] for result in results]
    assert choices["ada"][0].better != choices["bob"][0].better
    assert choices["ada"][0].probability == choices["bob"][0].probability == 1
    assert choices["ada"][3] is None
    assert choices["bob"][3] is not None
    assert choices[annotator_key("ada")] == choices["ada"]
