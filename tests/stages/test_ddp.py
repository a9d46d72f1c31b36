"""Two processes learn what one does."""

import json

import pytest

from lit_align.cli.main import main
from tests.stages.runs import arguments, start, trace, write_chats, write_pairs


@pytest.mark.parametrize(("stage", "write"), [("Preference", write_pairs), ("SFT", write_chats)])
def test_two_processes_give_the_trace_of_one(stage, write, tiny, tmp_path):
    train = write(tmp_path / "rows.jsonl")
    same = ("--trainer.max_epochs=2", "--model.lora.dropout=0.0")
    process = start(
        arguments(
            tiny,
            train,
            tmp_path / "two",
            *same,
            "--trainer.devices=2",
            "--trainer.strategy=ddp",
            "--samples={every: 6, prompts: 2, max_new_tokens: 4}",
            stage=stage,
        )
    )
    main(arguments(tiny, train, tmp_path / "one", *same, stage=stage))
    output = process.communicate(timeout=180)[0]
    assert process.returncode == 0, output
    one, two = trace(tmp_path / "one"), trace(tmp_path / "two")
    assert one.keys() == two.keys()
    assert len(one) == 12
    for step, loss in one.items():
        assert float(two[step]) == pytest.approx(float(loss), rel=1e-5), step
    samples = (tmp_path / "two" / "0" / "sample_answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in samples] == [0, 0, 6, 6, 12, 12]  # of one process
