"""A trained policy as a judge: its run's objective pays what the run itself logged."""

import json
from pathlib import Path

import pytest
import torch

import lit_align
from lit_align.cli.main import main
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ModelError
from lit_align.evaluation.reward_bench import build_report, comparisons, judge_with_reward
from lit_align.rewards.implicit import Implicit
from lit_align.testing import check_reward
from lit_align.types import Group
from tests.stages.runs import arguments, folder_of, write_chats, write_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


def trained(tiny, data, runs, *more, stage="Preference") -> str:
    main(arguments(tiny, data, runs, *more, stage=stage))
    return str(folder_of(runs))


@pytest.fixture(scope="module")
def run(tiny, data, tmp_path_factory):
    """An epoch of DPO, with the same rows to validate on."""
    runs = tmp_path_factory.mktemp("runs")
    return trained(
        tiny,
        data,
        runs,
        f"--data.validation={data}",
        "--trainer.max_epochs=1",
        "--model.optimizer.lr=0.02",
    )


@pytest.fixture(scope="module")
def groups(data):
    return comparisons([str(data)], None, 0.0, lambda ledger: None)


def test_before_training_every_score_is_exactly_zero(tiny, data, groups, tmp_path):
    still = trained(tiny, data, tmp_path, "--trainer.max_steps=1", "--model.optimizer.lr=0.0")
    found, cut = judge_with_reward(Implicit(still), groups, batch_size=8)
    assert not found.chosen.any()
    assert not found.rejected.any()
    everything = build_report(found)["all"]
    assert (everything["accuracy"], everything["ties"], cut) == (0.5, 22, 0)
    assert judge_with_reward(Implicit(still, reference=False), groups, batch_size=8)[0].chosen.all()


def test_scores_are_those_of_padded_rows_one_by_one(run, groups):
    """Beta times log π/ρ, each model reading each response in a row of its own, without packing."""
    stage = lit_align.load(run)
    expected, alone = [], []
    for group in groups:
        tree = ChatTokenizer(stage.tokenizer, max_length=4096).encode(group).tree
        for ids, scored in zip(tree.responses, tree.scored, strict=True):
            row, of = torch.tensor([tree.prompt + ids]), {}
            for role in ("policy", "reference"):
                with torch.no_grad(), stage.adapters.activate(role, training=False) as model:
                    logps = model(row).logits.log_softmax(-1)[0]
                first = len(tree.prompt)
                of[role] = sum(
                    logps[first + i - 1, ids[i]] for i, learned in enumerate(scored) if learned
                ).item()
            expected.append(0.1 * (of["policy"] - of["reference"]))
            alone.append(0.1 * of["policy"])
    assert max(map(abs, expected)) > 0.01
    assert Implicit(run)(groups).total.tolist() == pytest.approx(expected, abs=1e-5)
    assert Implicit(run, reference=False)(groups).total.tolist() == pytest.approx(alone, rel=1e-5)


def test_it_pays_what_the_run_logged(run, groups):
    """The figures of its validation, on the same rows, after the same step."""
    logged = json.loads((Path(run) / "summary.json").read_text())["metrics"]
    found, _ = judge_with_reward(Implicit(run), groups, batch_size=5)
    assert build_report(found)["all"]["accuracy"] == pytest.approx(
        logged["eval_rewards/accuracies"]
    )
    assert found.chosen.mean() == pytest.approx(logged["eval_rewards/chosen"], abs=1e-5)
    assert found.rejected.mean() == pytest.approx(logged["eval_rewards/rejected"], abs=1e-5)


def test_it_keeps_the_promises_of_a_reward(run):
    check_reward(Implicit(run))
    check_reward(Implicit(run, token_budget=1))


def test_an_objective_that_reads_tokens_and_has_no_reference(tiny, data, groups, tmp_path):
    """SimPO pays beta times the mean log-probability, so the reference does not matter."""
    of = trained(tiny, data, tmp_path, "--model.objective=SimPO", "--trainer.max_steps=1")
    assert torch.equal(Implicit(of)(groups).total, Implicit(of, reference=False)(groups).total)


def test_what_is_too_long_loses_its_end_and_is_counted(run):
    group = Group("ab", ["cdefgh", "cdefgx", "c"], continues=True)
    scores = Implicit(run, max_length=7)(
        [group]
    )  # 2 + 5 of 6 letters and the token that ends it; "c" fits
    assert scores.parts["tokens_cut"].tolist() == [2, 2, 0]
    assert scores.total[0] == pytest.approx(float(scores.total[1]), rel=1e-5)
    assert abs(scores.total[0] - scores.total[2]) > 1e-3
    # a prompt that leaves no room loses its beginning: 1 + 6, 1 + 6 and 1 + 1
    assert Implicit(run, max_length=2)([group]).parts["tokens_cut"].tolist() == [7, 7, 2]


def test_a_response_that_says_nothing_is_its_end(run):
    """What a model says may be empty, and has a score."""
    assert Implicit(run)([Group("ab", ["", "c"])]).total.isfinite().all()


def test_the_run_s_cache_of_the_reference_is_left_alone(tiny, data, groups, tmp_path):
    kept = tmp_path / "cache"
    of = trained(
        tiny, data, tmp_path / "runs", f"--model.cache_reference={kept}", "--trainer.max_steps=1"
    )
    before = {path: path.stat().st_size for path in kept.rglob("*")}
    Implicit(of)([Group("something", ["else"])])
    assert before
    assert {path: path.stat().st_size for path in kept.rglob("*")} == before


def test_a_run_that_rewards_nothing_is_refused(tiny, tmp_path):
    chats = write_chats(tmp_path / "chats.jsonl")
    init_adapter = trained(tiny, chats, tmp_path / "runs", "--trainer.max_steps=1", stage="SFT")
    with pytest.raises(
        ModelError, match="is a run of CrossEntropy, which implies no reward; give one of an"
    ):
        Implicit(init_adapter)([Group("a", ["b"])])
    with pytest.raises(ModelError, match="there is no checkpoint"):
        Implicit(str(tmp_path / "nothing"))([Group("a", ["b"])])
