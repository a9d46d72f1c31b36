"""Columns that a reward reads as a list, from a CSV file, which has lists only as text."""

import csv
import json

import pytest

from lit_align.data.formats import built_in
from lit_align.data.read_groups import DataSource, read_groups
from lit_align.errors import ConfigError
from lit_align.rewards.abstention import Abstention
from lit_align.rewards.code_tests import CodeTests
from lit_align.rewards.rubric import Rubric
from tests.rewards.test_judged import RUBRIC, Keywords


def group_of(path, responses, **columns):
    """The row of a CSV file, with responses."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", *columns])
        writer.writeheader()
        writer.writerow({"prompt": "Who is up?", **columns})
    source = DataSource([str(path)], "prompts", formats=built_in())
    [(group, _)] = read_groups(source, source.new_ledger())
    return group._replace(responses=responses)


@pytest.mark.parametrize("column", ["rubric", "checklist"])
@pytest.mark.parametrize("write", [json.dumps, repr], ids=["JSON", "Python"])
def test_criteria_in_a_cell_are_those_of_the_list(tmp_path, column, write):
    """1 + 3 + 1 points, and 2 less for a fault, as in the test of the list itself."""
    answers = ["owl bat night", "bat night never", "owl bat"]
    group = group_of(tmp_path / "a.csv", answers, **{column: write(RUBRIC)})
    scores = Rubric(Keywords(), column)([group])
    assert scores.total.tolist() == pytest.approx([1.0, 0.4, 0.0])


@pytest.mark.parametrize("column", ["answers", "right"])
def test_answers_in_a_cell_are_those_of_the_list(tmp_path, column):
    group = group_of(tmp_path / "a.csv", ["An owl.", "A crow."], **{column: '["owl", "bat"]'})
    assert Abstention(column=column)([group]).total.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("column", ["tests", "checks"])
def test_tests_in_a_cell_are_those_of_the_list(tmp_path, column):
    """Each counts alike: twice the number is its square for 2, and not for 3. A text that is no list is one test."""
    try:
        reward = CodeTests(runs_code=True, column=column)
    except ConfigError as error:
        pytest.skip(str(error))
    tests = ["assert f(2) == 4", "assert f(3) == 9"]
    answers = ["def f(x): return 2 * x"]
    group = group_of(tmp_path / "a.csv", answers, **{column: json.dumps(tests)})
    assert reward([group]).total.tolist() == [0.5]
    group = group_of(tmp_path / "b.csv", answers, **{column: tests[0]})
    assert reward([group]).total.tolist() == [1.0]
