"""A disk that refuses to be written, with the system's own limit on the size of files: one sentence, no traceback."""

import json
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from lit_align.cli.disk import explain_disk
from lit_align.cli.main import main
from lit_align.cli.run_folder import forget_run_folder
from lit_align.disk_errors import disk_error
from lit_align.errors import TrainingError
from tests.stages.runs import arguments, folder_of, without_report, write_pairs

DRILLS = Path(__file__).parents[1] / "proofs" / "drills.json"
TOO_LARGE = "File too large"


@contextmanager
def largest_file(num_bytes):
    """Let the system refuse larger files in this process, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("num_bytes", "sentence"),
    [
        (100, "{run}/0: File too large; change that, and run it again"),  # config.yaml
        (15_000, "the checkpoint {last} could not be written: File too large; nothing was saved"),
        (50_000, "the checkpoint {last} could not be written: File too large; nothing was saved"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(num_bytes, sentence, tiny, tmp_path, capsys):
    """The smallest file is the settings', then the adapter's, then the checkpoint."""
    train = write_pairs(tmp_path / "pairs.jsonl", rows=4)
    run = tmp_path / "run"
    with largest_file(num_bytes), pytest.raises(SystemExit) as exit:
        main(arguments(tiny, train, run, "--trainer.max_steps=1"))
    assert exit.value.code == 1
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-align:")
    ]
    assert sentence.format(run=run, last=run / "0/checkpoints/last.ckpt") in line
    assert not [*run.rglob("*.tmp"), *run.rglob(".*.tmp")]


def test_the_adapter_of_a_run_that_has_saved_its_state(tiny, tmp_path, capsys):
    """The state at the end is saved before the adapter, so the sentence names it."""
    train = write_pairs(tmp_path / "pairs.jsonl", rows=4)
    more = ("--trainer.callbacks+=tests.stages.callbacks.LimitedReport", "--trainer.max_steps=1")
    with largest_file(resource.RLIM_INFINITY), pytest.raises(SystemExit):
        main(without_report(arguments(tiny, train, tmp_path / "run", *more)))
    last = folder_of(tmp_path / "run") / "checkpoints" / "last.ckpt"
    assert (
        f"{TOO_LARGE}; change that, and resume with --ckpt_path {last}" in capsys.readouterr().err
    )


def test_only_what_the_disk_refuses_is_explained():
    forget_run_folder()  # of another test
    full = OSError(28, "No space left on device")
    assert explain_disk(full) == "the disk: No space left on device; change that, and run it again"
    missing = FileNotFoundError(2, "No such file or directory", "a.jsonl")
    assert explain_disk(missing).startswith("a.jsonl: No such file or directory; change that")
    for error in (OSError("no number"), ConnectionResetError(104, "reset"), KeyError(28)):
        assert explain_disk(error) is None


def test_an_error_of_ours_is_not_hidden_by_one_that_follows_from_it():
    """As where a run's log cannot be closed after its checkpoint could not be written."""
    error = OSError(28, "No space left on device")
    error.__context__ = TrainingError("the checkpoint could not be written")
    assert explain_disk(error) == "the checkpoint could not be written"


def test_no_committed_drill_lost_anything():
    """Runs on small disks of their own, with a clock that jumps, and on broken checkpoints."""
    drills = json.loads(DRILLS.read_text())
    soak = drills.pop("soak")
    assert len(drills) == 6
    for outcomes in drills.values():
        assert all(outcome["problems"] == [] for outcome in outcomes)
    assert soak["descriptors"][0] == soak["descriptors"][1]
    assert soak["bytes a step"] < 50_000


@pytest.mark.parametrize("is_hidden", [True, False])
def test_an_error_that_hides_its_context_does_not_come_from_it(is_hidden):
    full = OSError(28, "No space left on device")
    error = ValueError("no number")
    error.__context__, error.__suppress_context__ = full, is_hidden
    assert disk_error(error) == (None if is_hidden else "No space left on device")
    error.__cause__ = full
    assert disk_error(error) == "No space left on device"
