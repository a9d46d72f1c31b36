"""What the evaluations of runs share."""

from pathlib import Path

import pytest

from lit_align.__main__ import main
from tests.stages.runs import arguments, write_chats


@pytest.fixture(scope="session")
def sft(tiny, tmp_path_factory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("sft")
    more = ("--trainer.max_steps=2", "--model.optimizer.lr=0.05")
    main(
        arguments(tiny, write_chats(folder / "chats.jsonl", 6), folder / "sft", *more, stage="SFT")
    )
    return folder / "sft" / "0"
