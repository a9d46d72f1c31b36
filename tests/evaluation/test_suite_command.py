"""``lit-align evaluate suite`` on a real run: its table, files and cache, what a kill leaves, mistakes."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lit_align.__main__ import main
from lit_align.evaluation import evaluated_model
from tests.forked import start_command

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "tiny" / "evaluate" / "suite.yaml"
ROWS = {"TruthfulQAChoices": 5, "KnownUnknown": 5, "Safety": 4}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(ROOT)


def evaluate(folder: Path, *more: str) -> dict:
    """Run the command; what it wrote."""
    main(["evaluate", "suite", f"--run={folder}", *more])
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    names = {path.name for path in newest.iterdir()}
    assert names == {"config.yaml", "suite.json", "suite.html", "items.jsonl"}
    return json.loads((newest / "suite.json").read_text())


def items_of(folder: Path, task: str, run: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    return [row for row in rows if (row["task"], row["run"]) == (task, run)]


def logps_by_peft(run: Path, questions: list[str], answers: list[list[str]]) -> list[list[float]]:
    """By plain transformers and PEFT, one text at a time, in float64."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["base"]["path"]
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), run / "adapter"
    ).double()
    tokenizer = AutoTokenizer.from_pretrained(base)
    begin = (CONFIG.parent / "questions.txt").read_text().rstrip()
    result = []
    for question, texts in zip(questions, answers, strict=True):
        prompt = f"{begin}\n\nQ: {question}\nA:"
        length = len(tokenizer(prompt).input_ids)
        sums = []
        for text in texts:
            ids = torch.tensor([tokenizer(f"{prompt} {text}").input_ids])
            with torch.no_grad():
                logps = model(ids).logits[0, :-1].log_softmax(-1)
            sums.append(float(logps.gather(1, ids[0, 1:, None])[length - 1 :].sum()))
        result.append(sums)
    return result


def test_the_table_its_files_and_what_is_not_done_again(sft, tmp_path, capsys, monkeypatch):
    runs = ("base", f"sft={sft}", f"again={sft}")
    found = evaluate(tmp_path / "runs", "-c", str(CONFIG), "--runs", *runs)
    table = capsys.readouterr().out
    assert "abstention F1 ↑" in table
    figures = found["figures"]
    for task, count in ROWS.items():
        assert len(items_of(tmp_path / "runs/0", task, "sft")) == count
    for task in figures.values():
        for cells in task.values():
            value, interval = cells["sft"]["value"], cells["sft"]["interval"]
            assert cells["again"]["value"] == value
            assert value is None or interval[0] <= value <= interval[1]
            assert "difference" not in cells["base"]
    # MC1 and MC2 are those of another computation
    rows = [json.loads(line) for line in (CONFIG.parent / "choices.jsonl").read_text().splitlines()]
    questions = [row["question"] for row in rows]
    mc1, mc2 = [], []
    for name, values in (("mc1", mc1), ("mc2", mc2)):
        targets = [row[f"{name}_targets"] for row in rows]
        logps = logps_by_peft(sft, questions, [each["choices"] for each in targets])
        for sums, each in zip(logps, targets, strict=True):
            labels = np.array(each["labels"])
            share = np.exp(sums - np.logaddexp.reduce(sums))[labels == 1].sum()
            values.append(labels[np.argmax(sums)] if name == "mc1" else share)
    choices = figures["TruthfulQAChoices"]
    assert choices["MC1"]["sft"]["value"] == np.mean(mc1)
    assert choices["MC2"]["sft"]["value"] == pytest.approx(np.mean(mc2), rel=1e-4)
    difference = choices["MC2"]["sft"]["value"] - choices["MC2"]["base"]["value"]
    assert choices["MC2"]["sft"]["difference"]["value"] == pytest.approx(difference)
    page = (tmp_path / "runs/0/suite.html").read_text()
    assert f"<li>sft: {sft}</li>" in page
    # a second time no model is loaded, and nothing differs; with another setting it is asked again
    monkeypatch.setattr(evaluated_model, "load", lambda run: pytest.fail("a model was loaded"))
    assert evaluate(tmp_path / "runs", "-c", str(CONFIG), "--runs", *runs) == found
    with pytest.raises(pytest.fail.Exception):
        evaluate(tmp_path / "runs", "-c", str(CONFIG), "--runs", *runs, "--save_every=3")


def test_a_suite_that_was_killed_goes_on(sft, tmp_path, monkeypatch):
    """Killed without notice after its first parts: the figures are those of a suite that nobody killed."""
    args = ["-c", str(CONFIG), "--runs", f"sft={sft}", "--save_every=1"]
    cache = tmp_path / "cache" / "suite"
    process = start_command(["evaluate", "suite", f"--run={tmp_path / 'killed'}", *args], ROOT)
    while len(list(cache.glob("*/*.json"))) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.json")}
    found = evaluate(tmp_path / "resumed", *args)
    for path, written in parts.items():
        assert path.stat().st_mtime_ns == written  # not done again
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path / "other"))
    assert evaluate(tmp_path / "whole", *args) == found
    whole, resumed = (tmp_path / name / "0" / "items.jsonl" for name in ("whole", "resumed"))
    assert whole.read_text() == resumed.read_text()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--runs", "nowhere"],
            "there is no checkpoint nowhere; give a .ckpt file or the numbered",
        ),
        (["--runs", "base"], "runs has base, and no run that starts from the base itself"),
        (
            ["--runs", "base", "--save_every=0"],
            "save_every is 0; it is at least 1, and 16 is usual",
        ),
    ],
)
def test_a_mistake_gets_one_sentence(more, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "runs", "-c", str(CONFIG), *more)
    assert sentence in capsys.readouterr().err


OTHER = "Toxicity, init_args: {scorer: {class_path: Length, init_args: {max_words: 1}}, "
"""In place of the task of a plugin, which tests do not see."""


def test_the_whole_configuration_is_read(tmp_path, capsys):
    """Its tasks are parsed and their settings checked; then the run that it names is missing."""
    text = (ROOT / "configs" / "evaluate" / "suite.yaml").read_text()
    (tmp_path / "suite.yaml").write_text(text.replace("ProfaneContinuations, init_args: {", OTHER))
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "runs", "-c", str(tmp_path / "suite.yaml"), "--runs", "nowhere")
    assert "there is no checkpoint nowhere" in capsys.readouterr().err
