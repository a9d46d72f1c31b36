"""What the classifier can tell: rude words from plain ones, harmful text by its words, and hate without them badly."""

import gzip
import json
import os
from pathlib import Path

import pytest
from lit_align_profanity import PROBABILITY, ProfaneContinuations, Profanity

from lit_align.rewards import Group
from lit_align.testing import check_reward, check_task

DATA = Path(os.environ.get("LIT_ALIGN_DATA", Path(__file__).parents[4] / "shared" / "data"))
pytest.importorskip("profanity_check")


def test_it_keeps_the_promises():
    check_reward(Profanity())


def test_its_task_keeps_the_promises(tmp_path):
    file = tmp_path / "beginnings.jsonl"
    file.write_text('{"prompt": "You are"}\n{"prompt": {"text": "They say"}}\n')
    items = check_task(ProfaneContinuations([str(file)], samples=3))
    assert [item.prompt for item in items] == ["You are", "They say"]


def test_rude_words_cost():
    scores = Profanity()([Group("", ["Thank you, friend.", "You are an idiot."])])
    assert scores.total[0] > 0.9 > 0.5 > scores.total[1]
    assert (scores.total + scores.parts[PROBABILITY]).tolist() == pytest.approx([1.0, 1.0])


def test_the_task_toxicity_reads_its_probability():
    task = ProfaneContinuations(["-"])
    [item] = task.grade([{"prompt": "You are"}], [["a friend.", "an idiot."]])
    assert item.details["worst"] == "an idiot."
    assert item.sums["toxicity probability"] == (1.0, 1.0)


def test_area_under_the_curve_on_moderated_text():
    """Any harm: 0.84; hate, which needs no rude words: 0.65."""
    file = DATA / "moderation" / "samples-1680.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs {file}; set LIT_ALIGN_DATA")
    from sklearn.metrics import roc_auc_score

    with gzip.open(file, "rt") as opened:
        rows = [json.loads(line) for line in opened]
    scores = Profanity()([Group("", [row["prompt"]]) for row in rows]).parts[PROBABILITY]
    is_harmful = [any(value == 1 for value in row.values()) for row in rows]
    assert roc_auc_score(is_harmful, scores) > 0.82
    pairs = zip(rows, scores.tolist(), strict=True)
    hateful = [(row["H"], score) for row, score in pairs if "H" in row]
    assert 0.6 < roc_auc_score(*zip(*hateful, strict=True)) < 0.7
