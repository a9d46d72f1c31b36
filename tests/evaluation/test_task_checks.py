"""Every task of the suite keeps what `check_task` looks for, and each property catches a task that lacks only that."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from lit_align.evaluation.suite import FileTask, Item
from lit_align.evaluation.suite.constraints import Constraints
from lit_align.evaluation.suite.known_unknown import KnownUnknown
from lit_align.evaluation.suite.multi_turn import MultiTurn
from lit_align.evaluation.suite.rubric import Rubric
from lit_align.evaluation.suite.safety import Safety
from lit_align.evaluation.suite.toxicity import Toxicity
from lit_align.evaluation.suite.truthfulqa import TruthfulQA
from lit_align.evaluation.suite.truthfulqa_choices import TruthfulQAChoices
from lit_align.judges.openai_server import OpenAIServer
from lit_align.rewards.length import Length
from lit_align.testing import check_task
from tests.evaluation.real import write
from tests.judges.servers import serving

TARGETS = {"choices": ["It is.", "It is not."], "labels": [1, 0]}
ROWS = {
    KnownUnknown: {"answerable": True, "answer": ["42"]},
    Rubric: {},
    MultiTurn: {},
    Safety: {"label": "safe"},
    Toxicity: {},
    TruthfulQA: {"correct_answers": ["Yes."], "incorrect_answers": ["No."]},
    TruthfulQAChoices: {"mc1_targets": TARGETS, "mc2_targets": TARGETS},
    Constraints: {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
}


def file(folder, **columns) -> list[str]:
    rows = [{"question": f"{k}?", "prompt": f"{k}?", **columns} for k in range(3)]
    return [write(folder / "rows.jsonl", rows)]


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_every_task_keeps_the_promises(kind, tmp_path):
    """Those without the harness, which needs weights, and has its own test."""
    data = file(tmp_path, **ROWS[kind])
    with serving(say=lambda question: "7" if kind is MultiTurn else "Yes") as server:
        judge = OpenAIServer(server.url, "judge", cache=None)
        settings = {
            Toxicity: {"scorer": Length(max_words=1), "is_logit": True, "samples": 2},
            TruthfulQA: {"judge": judge, "form": "chat"},
            TruthfulQAChoices: {"prompt": write(tmp_path / "begin.jsonl", [{"a": 1}])},
            Rubric: {"judge": judge},
            MultiTurn: {"judge": judge},
        }
        if kind is Constraints:
            pytest.importorskip("lm_eval")
        items = check_task(kind(data, **settings.get(kind, {})))
    assert [item.prompt for item in items] == ["0?", "1?", "2?"]


@dataclass(frozen=True)
class Brief(FileTask):
    """Keeps all promises."""

    def parse(self, row):
        return {"prompt": row["prompt"]}

    def respond(self, model, rows, places):
        return [texts[0] for texts in model.answer([row["prompt"] for row in rows], places)]

    def grade(self, rows, responses):
        pairs = zip(rows, responses, strict=True)
        return [Item(row["prompt"], {"length": (float(len(text)), 1.0)}) for row, text in pairs]


class NotJson(Brief):
    def parse(self, row):
        return {"prompt": row["prompt"], "seen": {1, 2}}


class WithoutPrompt(Brief):
    def parse(self, row):
        return {"text": row["prompt"]}


class TooFew(Brief):
    def respond(self, model, rows, places):
        return super().respond(model, rows, places)[:1]


class ByPart(Brief):
    def respond(self, model, rows, places):
        return super().respond(model, rows, range(len(rows)))


class Unknown(Brief):
    def respond(self, model, rows, places):
        model.answer(["a"], [0], heat=1.0)


class ByPartInGrades(Brief):
    def grade(self, rows, responses):
        return [Item(row["prompt"], {"length": (len(rows), 1.0)}) for row in rows]


class Changing(Brief):
    def grade(self, rows, responses):
        for row in rows:
            row["seen"] = True
        return super().grade(rows, responses)


class Infinite(Brief):
    def grade(self, rows, responses):
        return [Item(row["prompt"], {"length": (float("inf"), 1.0)}) for row in rows]


class Counting(Brief):
    calls: ClassVar[list[int]] = []

    def grade(self, rows, responses):
        self.calls.append(1)
        return [Item(row["prompt"], {"length": (len(self.calls), 1.0)}) for row in rows]


class Sorted(Brief):
    def grade(self, rows, responses):
        items = super().grade(rows, responses)
        names = dict(zip(responses, rows, strict=True))
        return [replace_prompt(item, names[min(responses)]) for item in items]


def replace_prompt(item, row):
    return item._replace(prompt=f"{item.prompt} {row['prompt']}")


class Misnamed(Brief):
    lower_is_better = frozenset(("width",))


class Undeclared(FileTask):
    def parse(self, row):
        return {"prompt": "?"}

    def respond(self, model, rows):
        return []

    def grade(self, rows, responses):
        return []


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (NotJson, "reads rows that JSON cannot hold"),
        (WithoutPrompt, "reads a row without a prompt"),
        (TooFew, "gives 1 responses to 3 rows"),
        (ByPart, "respond gives other responses when rows are shared out"),
        (Unknown, "called with heat, which no SamplingRequest has"),
        (ByPartInGrades, "grade gives other items when rows are shared out"),
        (Changing, "changes the rows"),
        (Infinite, "a numerator and a denominator, finite"),
        (Counting, "grade gives other items in a second call"),
        (Sorted, "grade gives other items when rows are shared out"),
        (Misnamed, "lower_is_better names 'width'"),
        (Undeclared, "Undeclared.respond"),
    ],
)
def test_a_broken_promise_is_named(task, sentence, tmp_path):
    check_task(Brief(file(tmp_path)))
    with pytest.raises(AssertionError, match=sentence):
        check_task(task(file(tmp_path)))


def test_items_in_the_order_of_responses_are_refused(tmp_path):
    """One row a part hides it from the parts: other responses show it."""

    @dataclass(frozen=True)
    class Renamed(Brief):
        def grade(self, rows, responses):
            items = super().grade(rows, responses)
            return [item._replace(prompt=text) for item, text in zip(items, responses, strict=True)]

    with pytest.raises(AssertionError, match="items of other prompts, or in another order"):
        check_task(replace(Renamed(file(tmp_path))))
