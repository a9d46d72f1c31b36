"""Odd inputs for a moment: each target of the fuzzer on a few examples."""

import json
from pathlib import Path

import pytest

from tests.fuzz import TARGETS, attempt, page_target, served_page

FEW = {"settings": 4, "formats": 25, "columns": 25}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_odd_inputs_are_read_or_refused(name):
    assert attempt(TARGETS[name], FEW.get(name, 40), 0)


def test_odd_requests_get_a_page():
    pytest.importorskip("fastapi", reason="needs the extra for labelling")
    with served_page() as (visitors, csrf):
        assert attempt(page_target(visitors, csrf), 40, 0)


def test_the_committed_figures_have_no_failure():
    figures = json.loads((Path(__file__).parent / "proofs" / "fuzz.json").read_text("utf-8"))
    assert figures.keys() == {*TARGETS, "labelling page"}
    assert all(target["examples"] and not target["failures"] for target in figures.values())
