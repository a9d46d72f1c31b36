"""Temperatures with a closed form, and a judge that is softened by them."""

import json
import math
from dataclasses import dataclass

import lit_align_calibration
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lit_align_calibration import Calibrated, calibrate, fit_temperature

from lit_align.errors import DataError
from lit_align.feedback.judge import Judge
from lit_align.judges import JudgeModel, Reply
from lit_align.testing import check_command, check_feedback, check_judge
from lit_align.types import Group


@dataclass(frozen=True)
class Sure(JudgeModel):
    """Gives A the same probability each time, and the others what is left."""

    probability: float = 0.9

    def choose_option(self, questions, options):
        others = (1 - self.probability) / (len(options) - 1)
        shares = tuple(self.probability if option == "A" else others for option in options)
        return [Reply(shares, "", {}) for _ in questions]

    def generate(self, questions, max_tokens):
        return [Reply(None, "words", {}) for _ in questions]


@settings(deadline=None)
@given(st.floats(0.55, 0.99), st.integers(1, 9))
def test_the_temperature_makes_a_constant_judge_as_sure_as_it_is_right(probability, wrong):
    right = 10
    temperature = fit_temperature([probability] * right + [1 - probability] * wrong)
    logit = math.log(probability / (1 - probability))
    assert temperature == pytest.approx(logit / math.log(right / wrong), rel=1e-6)
    [reply] = Calibrated(Sure(probability), temperature).choose_option(["?"], ["A", "B"])
    assert reply.probabilities[0] == pytest.approx(right / (right + wrong))


def test_where_no_temperature_is_best_it_says_why():
    with pytest.raises(DataError, match="never wrong"):
        fit_temperature([0.9, 0.8])
    with pytest.raises(DataError, match="as sure where it is wrong"):
        fit_temperature([0.9, 0.1])


def test_it_softens_what_a_feedback_source_reads_and_leaves_texts_alone():
    group = Group("Name a bird.", ["An owl.", "A stone."])
    feedback = Judge(Calibrated(Sure(0.9), 2.0), swap=False)
    check_feedback(feedback)
    check_judge(Calibrated(Sure(0.9), 2.0), refused=[lambda: Calibrated(Sure(), 0.0)])
    [result] = feedback([group], "pairs")
    assert result.group.pairs[0].probability == pytest.approx(0.75)  # 3 to 1 is the root of 9 to 1
    assert Calibrated(Sure(), 2.0).generate(["?"], 3)[0].text == "words"


def test_the_command_reads_what_judge_writes(tmp_path, capsys):
    labelled, known = tmp_path / "labelled.jsonl", tmp_path / "known.jsonl"
    with labelled.open("w") as judged, known.open("w") as told:
        for k in range(4):
            pair = [0, 1, 0.9] if k else [1, 0, 0.9]  # wrong about the first
            judged.write(
                json.dumps({"prompt": f"{k}?", "responses": ["a", "b"], "pairs": [pair]}) + "\n"
            )
            told.write(json.dumps({"prompt": f"{k}?", "chosen": "a", "rejected": "b"}) + "\n")
    calibrate([str(labelled), str(known)])
    assert capsys.readouterr().out == "temperature 2, from 4 comparisons\n"
    missing = str(tmp_path / "missing.jsonl")
    refused = [[], [str(known)], [missing, str(known)], [str(labelled), str(known), "more"]]
    files = [str(labelled), str(known)]
    printed = check_command(lit_align_calibration.register_commands, "calibrate", files, refused)
    assert printed == "temperature 2, from 4 comparisons\n"


@pytest.mark.parametrize("line", ["{", "3", '{"prompt": "?"}'])
def test_a_line_that_cannot_be_read_is_named(tmp_path, line):
    file = tmp_path / "labelled.jsonl"
    good = json.dumps({"prompt": "?", "chosen": "a", "rejected": "b"})
    file.write_text(f"{good}\n\n{line}\n")
    with pytest.raises(DataError, match=r"labelled\.jsonl:3 is no comparison"):
        calibrate([str(file), str(file)])
