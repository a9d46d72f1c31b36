"""Which steps of a response are learned: those into which it is divided when it is scored."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.formats.stepwise import Stepwise
from lit_align.data.prepare import prepare
from lit_align.data.read_groups import DataSource
from lit_align.data.solution_steps import StepSettings, learned_steps, split_steps, steps_to_score
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import SetAside
from lit_align.types import LabelKind, SolutionStep
from tests import tiny as make

TEXTS = st.lists(st.text("ab \n", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=4)


@given(TEXTS, st.sampled_from(["\n", "\n\n", " b"]))
@settings(max_examples=100)
def test_learned_steps_are_those_that_the_text_is_divided_into(texts, separator):
    steps = [SolutionStep(text, 1.0) for text in texts]
    divided = split_steps(separator.join(texts), separator)
    try:
        learned = learned_steps(steps, StepSettings(separator))
    except SetAside:
        assert [text.strip() for text in divided] != [text.strip() for text in texts]
    else:
        assert [step.text for step in learned] == divided


def prepared(tmp_path, *rows, **steps):
    """Trees and ledger of rows with steps."""
    file, ledgers = tmp_path / "rows.jsonl", []
    lines = [json.dumps({"prompt": "2?", "completions": a, "labels": b}) for a, b in rows]
    file.write_text("\n".join(lines) + "\n")
    source = DataSource([str(file)], LabelKind.STEPS, Stepwise(), on_ledger=ledgers.append)
    chat = ChatTokenizer(make.tokenizer(), max_length=99, steps=StepSettings(**steps))
    trees, _ = prepare(source, chat, None)
    return trees, ledgers[0]


def test_a_row_whose_steps_contain_the_separator_is_set_aside(tmp_path):
    rows = [(["a\nb", "c"], [True, False]), (["a", "\nb"], [True, False])]
    trees, ledger = prepared(tmp_path, *rows)
    assert [tree.group.source.rpartition(":")[2] for tree in trees] == ["2"]
    assert ledger.fates["set aside"] == 1
    both, _ = prepared(tmp_path, *rows, separator=";")
    assert len(both) == 2


def test_a_response_whose_last_step_has_no_label_is_not_called_empty(tmp_path):
    rows = [(["a", "b"], [True, None]), (["a", "b"], [None, True])]
    trees, ledger = prepared(tmp_path, *rows, learned="last")
    assert len(trees) == 1
    assert (ledger.fates["set aside"], ledger.fates.get("malformed", 0)) == (1, 0)
    with pytest.raises(SetAside, match="learned_steps is last"):
        learned_steps([SolutionStep("a", 1.0), SolutionStep("b")], StepSettings(learned="last"))


@given(st.text("ab; \n", max_size=12), st.sampled_from(["\n", "\n\n", ";", " b", "ab"]))
@settings(max_examples=200)
def test_what_a_sampled_text_is_divided_into_is_never_set_aside(text, separator):
    for goes_on in (False, True):
        steps = steps_to_score(text, separator, goes_on)
        assert learned_steps(steps, StepSettings(separator)) == steps
