"""The page on proofs has a claim for every file of figures, and its sentences say what those files say."""

import inspect
import json
import re

import pytest

from tests.docs import claims
from tests.docs.hook import ROOT
from tests.proofs import abstention, frontier_smollm2

PAGE = (ROOT / "lit_align/docs/pages/proofs.md").read_text()


def figures(name: str):
    """A file of figures."""
    return json.loads((claims.PROOFS / f"{name}.json").read_text())


def test_every_file_of_figures_has_a_claim_with_its_script():
    files = [*claims.PROOFS.glob("*.json"), *claims.PROOFS.glob("*.txt")]
    measured = {file for _, file in claims.SOURCE.findall(PAGE)}
    assert {file.name for file in files} - measured == {
        "demo.json"
    }  # its table is in the quickstart
    assert "`demo.json`" in PAGE


def test_every_plot_is_beside_its_claim():
    sections = PAGE.split("\n### ")
    for plot in claims.PROOFS.glob("*.png"):
        (section,) = [text for text in sections if f"(images/{plot.name})" in text]
        assert f"`{plot.stem}.json`" in section


def test_the_site_adds_day_and_machine():
    """Git, where there is one, knows the day; a machine that is not named is that of all others."""
    text = claims.with_days(claims.source("rounds.json"))
    assert re.search(r"rounds`( on 20\d\d-\d\d-\d\d)?, two CPU cores, no GPU; figures in", text)
    text = claims.with_days(claims.source("vs_trl.json"))
    assert "2 cores, AMD EPYC" in text


@pytest.mark.parametrize("name", claims.TABLES)
def test_a_table_has_its_cells(name):
    head, line, *rows = [row for row in claims.claim(name).splitlines() if row.startswith("|")]
    assert rows
    for row in (line, *rows):
        assert len(re.findall(r"(?<!\\)\|", row)) == head.count("|")


def test_sentences_have_the_figures_of_their_files():
    transcript = (claims.PROOFS / "first_hour.txt").read_text()
    minutes = float(re.search(r"From nothing to here: ([\d.]+) minutes", transcript)[1])
    assert 6 < minutes < 7
    assert "less than seven minutes" in PAGE
    assert f"a step is {figures('otdd')['times faster']:.0f} times faster" in PAGE
    assert f"PPO needs {figures('ppo_memory')['ratio']:.1f} times less memory" in PAGE
    starts = [run["before"] for run in figures("samplers").values()]
    words = f"{min(starts):.2f} nats from π* ({max(starts):.2f} with the KL penalty in the loss)"
    assert words in PAGE
    gains = {"SFT": [], "self-distillation": []}
    for run in figures("self_taught")["runs"]:
        for arm, (before, *points) in run["arms"].items():
            for point in points:
                gain = point["demonstrations"] - before["demonstrations"]
                gains[arm].append(gain / point["KL"])
    own = gains["self-distillation"]
    assert f"self-distillation gains {min(own):.0f} to {max(own):.0f} nats" in PAGE
    assert f"SFT at most {max(gains['SFT']):.1f}" in PAGE
    gated = [part["arms"]["gated"] for part in figures("cross_modal")["tasks"].values()]
    assert sum(arm["seeds"] for arm in gated) == 12
    assert not any(arm["kept"] for arm in gated)
    answers = figures("on_policy")["runs"].values()
    assert max(run["CPU seconds"] for run in answers) < 300  # "under five CPU-minutes"


def test_sentences_about_bounded_ratios_hold_in_their_columns():
    """At the higher rate and four updates: none converges, and who ends nearer than REINFORCE in the mean."""
    columns = figures("off_policy")["summary"]["0.2"]
    nearer = {}
    for regime in ("4 updates, fresh", "4 updates, stale"):
        ends = {name: run["end"] for name, run in columns[regime].items()}
        assert min(ends.values()) > 0.05
        nearer[regime] = {name for name, end in ends.items() if end < ends["REINFORCE"]}
    always = {"PPO", "VESPO", "GMPO"}
    assert nearer["4 updates, fresh"] == always | {"DPPO"}
    assert nearer["4 updates, stale"] == always | {"CISPO", "SAPO"}
    assert "DPPO does so on fresh samples only, CISPO and SAPO on stale ones only" in PAGE


def test_sentences_about_steps_alone_hold_by_seed():
    runs = {run["seed"]: run for run in figures("steps")["runs"]}
    until = {seed: run["samples until half are right"] for seed, run in runs.items()}
    assert [seed for seed in until if until[seed]["steps"] is None] == [2]
    assert all(until[seed]["steps"] == until[seed]["steps and outcome"] for seed in (1, 3))
    assert "as fast as both in seeds 1 and 3" in PAGE
    assert "In seed 2 they never have half of the answers right" in PAGE
    for run in runs.values():
        ends = run["right at the end"]
        assert abs(ends["outcome"] - ends["steps and outcome"]) < 0.025
        assert ends["steps"] < ends["outcome"]


def test_sentences_have_the_constants_of_their_scripts():
    batch = frontier_smollm2.BATCH * frontier_smollm2.REINFORCE["num_generations"]
    assert f"by means of {batch} responses an iteration" in PAGE
    source = inspect.getsource(abstention.reinforce)
    assert "The KL penalty, 0.1 a nat," in PAGE
    assert "KLControl(0.1)" in source
    assert "soft after 16 iterations" in PAGE
    assert "max_steps=16" in source


def test_sentences_about_runs_near_the_base_name_the_run_that_goes_far():
    runs = figures("on_policy")["runs"]
    assert [name for name, run in runs.items() if run["held out"]["kl"] > 8] == ["RLOO, KL free"]
    assert [name for name, run in runs.items() if run["warnings"]] == ["RLOO, KL free"]
    assert 'The run "RLOO, KL free"' in PAGE
