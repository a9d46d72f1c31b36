"""Two processes learn what one does."""

import json
from functools import partial

import pytest

from lit_align.cli.main import main
from tests.processes import run_processes
from tests.stages.runs import arguments, trace, write_chats, write_pairs


@pytest.mark.parametrize(("stage", "write"), [("Preference", write_pairs), ("SFT", write_chats)])
def test_two_processes_give_the_trace_of_one(stage, write, tiny, tmp_path):
    train = write(tmp_path / "rows.jsonl")
    same = ("--trainer.max_epochs=2", "--model.lora.dropout=0.0")
    both = (
        *("--trainer.devices=2", "--trainer.strategy=ddp"),
        "--samples={every: 6, prompts: 2, max_new_tokens: 4}",
    )
    main(arguments(tiny, train, tmp_path / "one", *same, stage=stage))
    work = partial(main, arguments(tiny, train, tmp_path / "two", *same, *both, stage=stage))
    output = tmp_path / "output.txt"
    assert run_processes(2, work, output) == [0, 0], output.read_text()
    one, two = trace(tmp_path / "one"), trace(tmp_path / "two")
    assert one.keys() == two.keys()
    assert len(one) == 12
    for step, loss in one.items():
        assert float(two[step]) == pytest.approx(float(loss), rel=1e-5), step
    samples = (tmp_path / "two" / "0" / "sample_answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in samples] == [0, 0, 6, 6, 12, 12]  # of one process
