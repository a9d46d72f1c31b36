"""What a run says of itself: to whom it puts its questions, and what is to be done with what it leaves."""

import json

import pytest

from lit_align.cli.main import main
from tests.stages.runs import arguments, folder_of, write_pairs

QUESTIONS = {
    "class_path": "lit_align.callbacks.report.Report",
    "init_args": {"questions": 13, "max_new_tokens": 2},
}


def test_a_resumed_run_keeps_the_answers_that_were_given_before_training(tiny, tmp_path, capsys):
    data = write_pairs(tmp_path / "pairs.jsonl")
    run = arguments(
        tiny, data, tmp_path / "run", f"--data.validation={data}", "--trainer.max_epochs=3"
    )
    run.append(f"--trainer.callbacks={json.dumps([QUESTIONS])}")

    def summary() -> dict:
        return json.loads((folder_of(tmp_path / "run") / "summary.json").read_text())

    main([*run, "--trainer.max_steps=3"])
    told = capsys.readouterr().out.split("asking 13 questions ...")
    assert len(told) == 3  # before and after
    assert "  13 of 13\n" in told[1]
    first, last = summary(), f"--ckpt_path={tmp_path / 'run' / '0' / 'checkpoints' / 'last.ckpt'}"
    main([*run, last])
    assert capsys.readouterr().out.count("asking 13 questions ...") == 1
    assert summary()["before"] == first["before"]
    assert [row["before"] for row in summary()["answers"]] == [
        row["before"] for row in first["answers"]
    ]
    other = write_pairs(tmp_path / "other.jsonl", rows=30)
    lines = other.read_text().splitlines(keepends=True)
    other.write_text("".join(lines[::-1]))
    main(
        [
            *[word for word in run if not word.startswith("--data.validation")],
            f"--data.validation={other}",
            last,
        ]
    )
    assert capsys.readouterr().out.count("asking 13 questions ...") == 2  # they are others


def test_resuming_a_complete_run_says_that_nothing_was_trained(tiny, tmp_path, capsys):
    run = arguments(
        tiny, write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--trainer.max_steps=2"
    )
    main(run)
    assert "nothing was trained" not in capsys.readouterr().out
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    main([*run, f"--ckpt_path={last}"])
    assert (
        f"nothing was trained: the run of {last} is complete; raise trainer.max"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("limit", "shown"), [("max_steps=2", "Epoch 1 "), ("max_epochs=1", "Epoch 1/1 ")]
)
def test_the_progress_bar_counts_to_no_negative_epoch(limit, shown, tiny, tmp_path, capsys):
    run = arguments(
        tiny, write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", f"--trainer.{limit}"
    )
    main([word for word in run if word != "--trainer.enable_progress_bar=false"])
    assert shown in capsys.readouterr().out


def test_a_run_that_is_refused_leaves_no_folder_without_a_ledger(tiny, tmp_path, capsys):
    """Of data that cannot be read there is none, nor where a setting is refused before the rows are counted."""
    missing = arguments(tiny, tmp_path / "none.jsonl", tmp_path / "run")
    judge = ("--reward=Length", "--reward.max_words=1", "--data", str(tmp_path / "none.jsonl"))
    for args in (missing, ["evaluate", "reward-bench", f"--run={tmp_path / 'run'}", *judge]):
        with pytest.raises(SystemExit):
            main(args)
        assert "there is no file" in capsys.readouterr().err
        assert list((tmp_path / "run").iterdir()) == []
    data = write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(SystemExit):
        main(
            arguments(tiny, data, tmp_path / "run", f"--model.init_adapter={tmp_path / 'nowhere'}")
        )
    assert list((tmp_path / "run").iterdir()) == []
