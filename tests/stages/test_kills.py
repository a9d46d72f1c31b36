"""Kills, one after the other: a small part of ``python -m tests.proofs.kills``."""

import itertools
import json
from pathlib import Path

import pytest

from tests.kills import STAGES, Kill, Runs, compare_states, differences, metrics, warm_up

FIGURES = Path(__file__).parents[1] / "proofs" / "kills.json"
SAMPLE = [stage for stage in STAGES if stage not in ("DPO", "rounds")]  # these are killed elsewhere


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all runs; this process has imported what they need."""
    folder = tmp_path_factory.mktemp("kills")
    warm_up(folder)
    return folder


def test_a_run_that_is_killed_again_and_again_does_what_an_undisturbed_one_does(folder):
    """Twice around the end of an epoch, in a validation, and by Ctrl-C."""
    runs = Runs(folder, "DPO", ("--save_every=1",))
    kills = [Kill(3), Kill(4), Kill(6, "on_validation_batch_start"), Kill(7, signal="SIGINT")]
    undisturbed = runs.chain("undisturbed", [])
    assert sum(bool(row["loss"]) for row in metrics(undisturbed)) == 9
    assert differences(runs.chain("killed", kills), undisturbed) == []


@pytest.mark.parametrize(("stage", "start"), zip(SAMPLE, itertools.cycle((4, 3, 6))))
def test_a_run_resumes_within_and_between_its_epochs(stage, start, folder):
    """From a copied state, so that no run need be killed."""
    runs = Runs(folder / f"states of {stage}", stage)
    compared = compare_states(runs, [start], "--trainer.max_steps=6", num_steps=6)
    assert (compared["pairs"], compared["problems"]) == (max(5 - start, 0), [])


def test_no_stage_of_the_committed_figures_differs():
    """28 pairs of states of each stage, the state after the last step, and real signals."""
    figures = json.loads(FIGURES.read_text())
    assert figures.keys() == STAGES.keys()
    assert "two processes" in figures["SFT"]
    for stage in figures.values():
        assert stage["every state"]["pairs"] == 28
        assert all(experiment["problems"] == [] for experiment in stage.values())
