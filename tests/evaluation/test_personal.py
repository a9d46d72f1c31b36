"""Held-out votes of each person: pooled, personal and oracle, with intervals over persons."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from lit_align.__main__ import main as command
from lit_align.annotators import annotator_key
from lit_align.cli.main import main
from lit_align.cli.personal import _print
from lit_align.errors import DataError
from lit_align.evaluation.personal import PersonalVerdicts, personal_report, personal_verdicts
from lit_align.rewards import Scores
from lit_align.rewards.length import Length
from lit_align.types import Group, Pair
from tests.stages.runs import folder_of
from tests.stages.test_personal_reward_model import personal_arguments, write_votes


def test_a_person_counts_as_one_and_differences_are_paired():
    """Ada gave 1 vote and Bob 4: means of 1 and 1/4, of 0 and 1/2; of two people, t reaches beyond what can be."""
    verdicts = PersonalVerdicts(
        np.array(["ada", "bob", "bob", "bob", "bob"]),
        {"personal": np.array([1.0, 1, 0, 0, 0]), "pooled": np.array([0.0, 1, 1, 0, 0])},
    )
    report = personal_report(verdicts, {annotator_key("bob"): 7})
    assert report["mean"]["personal"]["mean"] == pytest.approx((1 + 1 / 4) / 2)
    assert report["mean"]["pooled"]["mean"] == pytest.approx((0 + 1 / 2) / 2)
    difference = report["difference"]["personal - pooled"]
    assert difference["mean"] == pytest.approx((1 - 1 / 4) / 2)
    assert difference["interval"] == [-1, 1]
    by_key = {person["annotator"]: person for person in report["persons"]}
    assert by_key[annotator_key("bob")]["trained_on"] == 7
    assert by_key[annotator_key("ada")]["trained_on"] == 0
    assert "ada" not in json.dumps(report).replace(annotator_key("ada"), "")


def test_a_person_under_a_name_and_under_its_hash_is_one():
    """Ada's three votes, one of them under her hash, are right in 1/3, Bob's one is: the mean of two people is 2/3."""
    names = np.array(["ada", annotator_key("ada"), "bob", "ada"])
    verdicts = PersonalVerdicts(names, {"personal": np.array([1.0, 0, 1, 0])})
    report = personal_report(verdicts, {annotator_key("ada"): 5})
    votes = {person["annotator"]: person["votes"] for person in report["persons"]}
    assert votes == {annotator_key("ada"): 3, annotator_key("bob"): 1}
    assert len(report["persons"]) == 2
    assert report["mean"]["personal"]["mean"] == pytest.approx((1 / 3 + 1) / 2)


def test_the_interval_over_few_persons_is_that_of_students_t():
    """Four people with shares of 0.4 to 0.7: mean 0.55, standard error sqrt(1/240), t with 3 degrees 3.1824."""
    names = np.repeat(["ada", "bob", "cid", "dot"], 10)
    right = [np.arange(10) < count for count in (4, 5, 6, 7)]
    report = personal_report(PersonalVerdicts(names, {"personal": np.concatenate(right) * 1.0}), {})
    reach = 3.1824 / 240**0.5
    assert report["mean"]["personal"]["interval"] == pytest.approx(
        [0.55 - reach, 0.55 + reach], abs=0.02
    )


@pytest.mark.parametrize("names", [["ada"] * 4, ["ada", "ada", "bob", "bob"]])
def test_no_interval_without_spread(names, capsys):
    """One person, whose votes may differ, says nothing of others; and two who are both predicted say as little."""
    correct = {"personal": np.ones(4), "pooled": np.array([1.0, 0, 1, 0])}
    report = personal_report(PersonalVerdicts(np.array(names), correct), {})
    assert report["mean"]["personal"] == {"mean": 1.0, "interval": None}
    assert report["difference"]["personal - pooled"] == {"mean": 0.5, "interval": None}
    by_key = {annotator_key(name): name for name in names}
    _print(Console(), report, by_key)
    assert "+50.0 points, no interval" in capsys.readouterr().out


def test_votes_of_nobody_cannot_be_anyones():
    groups = [Group("a", ["b", "c"], (Pair(0, 1),))]
    with pytest.raises(DataError, match="no row says whose votes it has"):
        personal_verdicts(Length(max_words=1), None, groups, 1)


class OfBoth:
    """Personal scores are the negative number of words, pooled ones all equal."""

    def __call__(self, groups):
        words = [float(len(r.split())) for group in groups for r in group.responses]
        total = -np.array(words)
        return Scores(torch.tensor(total).float(), {"trained/pooled": torch.zeros(len(words))})


def test_each_models_verdicts_are_of_the_pair_and_the_oracles_of_the_column():
    rows = [
        Group("a", ["x y", "z"], (Pair(1, 0),), annotator="ada", extra={"true": [0.0, 1.0]}),
        Group("a", ["x y", "z"], (Pair(0, 1),), annotator="bob", extra={"true": [0.0, 1.0]}),
        Group("a", ["x", "y"], (Pair(0, 1),)),
    ]
    verdicts = personal_verdicts(OfBoth(), None, rows, 2, "true")
    assert verdicts.annotator.tolist() == ["ada", "bob"]
    assert verdicts.correct["personal"].tolist() == [1, 0]
    assert verdicts.correct["pooled"].tolist() == [0.5, 0.5]
    assert verdicts.correct["oracle"].tolist() == [1, 0]
    with pytest.raises(DataError, match="has not one true score for each response"):
        personal_verdicts(OfBoth(), None, [rows[0]._replace(extra={"true": [1.0]})], 2, "true")


def test_the_command_prints_names_and_writes_hashes(tiny, tmp_path, capsys):
    votes = write_votes(tmp_path / "votes.jsonl")
    main(personal_arguments(tiny, votes, tmp_path / "run", "--trainer.max_steps=2"))
    capsys.readouterr()
    personal = str(folder_of(tmp_path / "run"))
    command(
        [
            "evaluate",
            "personal",
            f"--personal={personal}",
            f"--data={votes}",
            "--columns={annotator: worker}",
            f"--run={tmp_path / 'evaluated'}",
        ]
    )
    printed = capsys.readouterr().out
    assert "ada" in printed
    assert "personal - mean head" in printed
    assert "pooled" not in printed
    assert "2 persons are too few for the interval" in printed
    metrics = json.loads((tmp_path / "evaluated/0/personal.json").read_text())
    assert metrics["votes"] == 18
    assert [person["trained_on"] for person in metrics["persons"]] == [9, 9]
    assert {person["annotator"] for person in metrics["persons"]} == {
        annotator_key("ada"),
        annotator_key("bob"),
    }


def test_a_model_of_everyone_is_refused_as_personal(tiny, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(
            ["evaluate", "personal", "--personal=nowhere", "--data=x.jsonl", f"--run={tmp_path}"]
        )
    assert "there is no reward model in 'nowhere'" in capsys.readouterr().err
