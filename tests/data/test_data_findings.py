"""What is said of data before training: counted by hand on small sets, and silent where there is nothing to say."""

import pytest

from lit_align.data.data_findings import DataFindings
from lit_align.types import Group, Pair


def findings(*groups, path="a.jsonl"):
    counted = DataFindings()
    for group in groups:
        counted.add(path, group)
    return counted


def pair(prompt, chosen, rejected):
    return Group(prompt, [chosen, rejected], (Pair(0, 1),))


def test_duplicates_are_counted_within_a_file():
    counted = findings(*[pair("a", "b", "c")] * 3, pair("a", "c", "b"))
    counted.add("b.jsonl", pair("a", "b", "c"))
    assert counted.duplicates == 2
    assert counted.sentences() == ["2 rows are exact duplicates of an earlier row of the same file"]


def test_equal_votes_of_two_people_are_no_duplicates():
    vote = pair("a", "b", "c")
    votes = [vote._replace(annotator=name) for name in ("ada", "bob", "ada")]
    assert findings(*votes, vote, vote).duplicates == 2


def test_shared_prompts_are_counted_once():
    train = findings(pair("a", "b", "c"), pair("d", "e", "f"))
    validation = findings(pair("a", "x", "y"), pair("a", "z", "y"), pair("g", "h", "i"))
    (sentence,) = validation.overlap(train, "train")
    assert sentence.startswith("1 of 2 prompts are in train too")
    assert not findings(pair("g", "h", "i")).overlap(train, "train")


@pytest.mark.parametrize(("label", "name"), [(True, "desirable"), (False, "undesirable")])
def test_one_kind_of_label_is_said(label, name):
    rows = [Group(str(i), ["b"], desirable=(label,)) for i in range(3)]
    (sentence,) = findings(*rows).sentences()
    assert sentence.startswith(f"every response is {name}")
    assert not findings(*rows, Group("x", ["b"], desirable=(not label,))).sentences()


@pytest.mark.parametrize(
    ("longer", "shorter", "said"),
    [(20, 0, "longer"), (19, 1, "longer"), (0, 20, "shorter"), (18, 2, None), (19, 0, None)],
)
def test_length_that_predicts_the_label_is_said(longer, shorter, said):
    rows = [pair(f"l{i}", "long", "b") for i in range(longer)]
    rows += [pair(f"s{i}", "b", "long") for i in range(shorter)]
    sentences = findings(*rows).sentences()
    assert [sentence.split()[1] for sentence in sentences] == ([said] if said else [])
