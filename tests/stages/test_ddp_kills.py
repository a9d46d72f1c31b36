"""One of two processes is killed: all end with a sentence, and the run goes on as if nothing had happened."""

import pytest

from tests.kills import Kill, Runs, differences, metrics, warm_up

LIMIT = "--trainer.max_steps=3"
STAGES = {
    "PPO": (2, 1, ("--save_every=1",)),
    "rounds": (2, 0, ("--save_every=1", "--data.rounds=2", "--data.round_size=8")),
}
"""The step and the process that is killed, and settings of the run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all runs; this process has imported what they need."""
    folder = tmp_path_factory.mktemp("kills")
    warm_up(folder)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_process_ends_the_run_which_goes_on_bit_for_bit(stage, folder):
    step, rank, settings = STAGES[stage]
    runs = Runs(folder / stage, stage, settings, processes=2, forked=True)
    limits = runs.limits(LIMIT)
    undisturbed = folder / stage / "undisturbed"
    assert runs.run(undisturbed, limits=limits) == 0, runs.output()
    assert sum(bool(row["loss"]) for row in metrics(undisturbed / "0")) >= 3
    killed = folder / stage / "killed"
    kill = Kill(step, "on_train_batch_start", rank=rank)
    assert runs.run(killed, *kill.options, limits=limits) == -9
    told = [line for line in runs.output().splitlines() if "another process of the run" in line]
    assert len(told) == 1, runs.output()
    checkpoint = killed / "0/checkpoints/last.ckpt"
    assert f"--ckpt_path {checkpoint}" in told[0]
    assert "Traceback" not in runs.output()
    assert runs.run(killed, checkpoint=checkpoint, limits=limits) == 0, runs.output()
    assert differences(killed / "1", undisturbed / "0") == []
