"""Tasks of lm-evaluation-harness in the suite: the adapter counts, and figures are those of the harness itself."""

import json
from functools import partialmethod

import numpy as np
import pytest
import yaml

from lit_align.evaluation import evaluated_model
from lit_align.evaluation.suite import harness_figures
from lit_align.evaluation.suite.harness import Harness
from lit_align.evaluation.suite.harness_figures import resample
from lit_align.testing import check_task
from tests.evaluation.test_suite_command import _own_cache, evaluate  # noqa: F401 - a fixture

pytest.importorskip("lm_eval")

from lm_eval.api.metrics import acc_all, acc_all_stderr, perplexity
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

TASK = """
task: which_word
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def test_the_harness_sees_the_adapter(sft, tmp_path):
    """A task file of one's own: accuracies by the log-probabilities of the policy and of the base."""
    rows = [
        {"question": f"Question {k}: which word?", "choices": ["honey", "rain", "slate"]}
        for k in range(6)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "which_word.yaml").write_text(
        TASK.replace("FILE", str(tmp_path / "rows.jsonl"))
    )
    settings = {"tasks": ["which_word"], "include_path": str(tmp_path / "tasks")}
    config = tmp_path / "harness.yaml"
    config.write_text(yaml.safe_dump({"tasks": [{"class_path": "Harness", "init_args": settings}]}))
    found = evaluate(tmp_path / "runs", "-c", str(config), "--runs", "base", f"sft={sft}")
    cells = found["figures"]["Harness"]["which_word acc"]
    for is_base, cell in ((True, cells["base"]), (False, cells["sft"])):
        model = evaluated_model.EvaluatedModel("x", str(sft), is_base)
        logps = model.continuation_logps(
            [row["question"] for row in rows], [[f" {c}" for c in row["choices"]] for row in rows]
        )
        assert cell["value"] == np.mean([int(np.argmax(each) == 0) for each in logps])
        assert cell["prompts"] == 6


SENTENCES = [
    "Bees make honey.",
    "Rain falls on slate roofs.",
    "A cat!",
    "Nobody knows what rain is for.",
]

CORPUS_TASKS = """
- task: sentences
  output_type: loglikelihood_rolling
  doc_to_text: ""
  doc_to_target: "{{text}}"
  metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
- task: next_word
  output_type: loglikelihood
  doc_to_text: "{{text}}"
  doc_to_target: " honey"
  metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
- task: yes_or_no
  output_type: multiple_choice
  doc_to_text: "{{text}}"
  doc_to_choice: ["no", "yes"]
  doc_to_target: "{{label}}"
  metric_list:
  - {metric: mcc}
  - {metric: f1}
  - {metric: acc, aggregation: median, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
- task: short
  output_type: multiple_choice
  doc_to_text: "{{text}}"
  doc_to_choice: ["no", "yes"]
  doc_to_target: "{{label}}"
  metric_list: [{metric: acc}]
  process_docs: !function first.three
- task: long
  output_type: multiple_choice
  doc_to_text: "{{text}}"
  doc_to_choice: ["yes", "no"]
  doc_to_target: "{{label}}"
  metric_list: [{metric: acc}]
"""

GROUP = "group: both\ntask: [short, long]\naggregate_metric_list: [{metric: acc, weight_by_size: false}]\n"


@pytest.fixture
def corpus_tasks(tmp_path):
    """A folder of task files whose figures are not means over documents, and their rows."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"text": text, "label": k % 2} for k, text in enumerate(SENTENCES * 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = f"{{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}"
    shared = f"dataset_path: json\ndataset_kwargs: {files}\ntest_split: test\n"
    for text in CORPUS_TASKS.split("- task: ")[1:]:
        name = text.partition("\n")[0]
        (folder / f"{name}.yaml").write_text(f"task: {text}".replace("\n  ", "\n") + shared)
    (folder / "both.yaml").write_text(GROUP)
    (folder / "first.py").write_text("def three(rows):\n    return rows.select(range(3))\n")
    return folder


DOWN = {"word_perplexity", "byte_perplexity", "bits_per_byte", "perplexity", "brier_score"}


def test_figures_are_those_of_the_harness(sft, corpus_tasks, tmp_path, capsys, monkeypatch):
    """Perplexities, F1, correlation and a group that does not weigh by size; the arrows are the harness' too."""
    monkeypatch.setattr(harness_figures, "RESAMPLES", 40)
    without_defaults = partialmethod(TaskManager.__init__, include_defaults=False)
    monkeypatch.setattr(TaskManager, "__init__", without_defaults)  # whose index takes seconds
    names = ["sentences", "next_word", "yes_or_no", "both"]
    settings = {"tasks": names, "include_path": str(corpus_tasks)}
    config = tmp_path / "harness.yaml"
    config.write_text(yaml.safe_dump({"tasks": [{"class_path": "Harness", "init_args": settings}]}))
    runs = (f"sft={sft}", "base", f"again={sft}")
    figures = evaluate(tmp_path / "runs", "-c", str(config), "--runs", *runs)["figures"]["Harness"]
    table = capsys.readouterr().out
    model = evaluated_model.EvaluatedModel("x", str(sft), False)
    with model.active() as active:
        wrapped = HFLM(pretrained=active, tokenizer=model.tokenizer, batch_size=8)
        manager = TaskManager(include_path=str(corpus_tasks))
        direct = simple_evaluate(wrapped, tasks=names, task_manager=manager, bootstrap_iters=0)
    expected = {
        f"{name} {key.partition(',')[0]}": value
        for name in names
        for key, value in direct["results"][name].items()
        if "," in key and "_stderr" not in key
    }
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name]["sft"]["value"] == pytest.approx(value, rel=1e-5)
        down = name.partition(" ")[2] in DOWN
        assert figures[name]["sft"]["higher_is_better"] is not down
        assert f"{name} {'↓' if down else '↑'}" in table
        assert figures[name]["again"]["difference"]["value"] == 0
    perplexity = figures["sentences word_perplexity"]
    low, high = perplexity["sft"]["interval"]
    assert low < perplexity["sft"]["value"] < high
    assert perplexity["sft"]["prompts"] == 8
    assert figures["both acc"]["sft"]["prompts"] == 3 + 8
    items = check_task(Harness(names[2:3], include_path=str(corpus_tasks)), model)
    assert items[0].higher_is_better["yes_or_no brier_score"] is False


def test_resamples_by_hand():
    """Of two documents: each alone or both; questions of several documents are spread by the harness' own error."""
    values = resample(perplexity, [-1.0, -3.0], "by hand")
    assert values[0] == pytest.approx(np.exp(2))
    seen = sorted(set(np.round(values[1:], 6)))
    assert seen == pytest.approx(np.exp([1, 2, 3]), abs=1e-5)

    def of_two_classes(values):
        if len(set(values)) < 2:
            raise ValueError("one class only")
        return 1.0

    assert {*resample(of_two_classes, [0, 1], "by hand")} == {1.0, None}
    documents = [
        (k % 3 > 0, {"idx": {"paragraph": 0, "question": k // 2}, "label": 1}) for k in range(12)
    ]
    whole = resample(acc_all, documents, "by hand")
    assert whole[0] == acc_all(documents) == pytest.approx(2 / 6)
    assert np.std(whole[1:]) == pytest.approx(acc_all_stderr(documents), rel=0.1)
    single = resample(acc_all, documents[:2], "by hand")
    assert single == [acc_all(documents[:2])]  # the harness has no error of one question


class AllRight:
    """A task of two answers to each question, which is right if both are."""

    def __init__(self, name, questions):
        self.task_name = name
        self.records = [
            {
                "doc_id": k,
                "filter": "none",
                "metrics": ["acc_all"],
                "doc": {"k": k},
                "acc_all": (k % 3 > 0, {"idx": {"paragraph": 0, "question": k // 2}, "label": 1}),
            }
            for k in range(2 * questions)
        ]

    def aggregation(self):
        return {"acc_all": acc_all}


class MeanOfTasks:
    """A group that takes the mean over its tasks."""

    def aggregate(self, metrics):
        return {"acc_all,none": np.mean([of_task["acc_all,none"] for of_task in metrics.values()])}


@pytest.mark.parametrize(("questions", "count"), [((6, 9), 1001), ((6, 1), 1), ((1, 6), 1)])
def test_a_group_has_no_interval_where_a_task_has_none(questions, count):
    tasks = {f"task{k}": AllRight(f"task{k}", number) for k, number in enumerate(questions)}
    values = [acc_all([record["acc_all"] for record in task.records]) for task in tasks.values()]
    found = {name: {"sample_len": len(task.records)} for name, task in tasks.items()}
    results = {
        "results": {"both": {"acc_all,none": np.mean(values)}, **found},
        "samples": {name: task.records for name, task in tasks.items()},
        "higher_is_better": {},
    }
    loaded = {"tasks": tasks, "groups": {"both": MeanOfTasks()}}
    _, resampled = harness_figures.Evaluated("both", results, loaded).content()["resampled"][
        "both acc_all"
    ]
    assert resampled[0] == pytest.approx(np.mean(values))
    assert len(resampled) == count
