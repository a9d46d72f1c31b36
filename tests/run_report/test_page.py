"""The page of a run: complete, escaped, without files of its own, readable on a phone and in the dark."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from lit_align.errors import ConfigError
from lit_align.run_report.curves import draw_panels
from lit_align.run_report.notices import notices
from lit_align.run_report.page import figures, write_report
from lit_align.run_report.record import RunRecord, read_run

ATTACK = "<script>document.title = 'owned'</script>"
LEDGER = {
    "name": "pairs.jsonl",
    "rows": 40,
    "tokens": 900,
    "scored": 400,
    "num_responses": 60,
    "ends_lost": 2,
    "fates": {"kept": 30, "truncated": 0, "malformed": 8, "set aside": 2, "overlong": 0},
    "reasons": [
        {"fate": "malformed", "reason": "missing field 'chosen'", "rows": 8, "examples": []}
    ],
    "unread": {"annotator": 30},
    "notes": [],
}
CONFIG = {
    "model": {
        "class_path": "lit_align.stages.preference.Preference",
        "init_args": {
            "base": {"path": "org/base", "quantization": "nf4"},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 5e-5}},
        },
    },
    "data": {"class_path": "Comparisons", "init_args": {"train": "pairs.jsonl", "batch_size": 8}},
}
METRICS = """\
step,loss,eval_loss,rewards/accuracies,eval_rewards/accuracies,objective/kl
0,0.69,,0.5,,0.0
1,0.60,,0.75,,40.0
1,,0.64,,0.9,
2,0.51,,1.0,,45.0
"""


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run that has ended."""
    summary = {
        "objective": "DPO(beta=0.1)",
        "base": "org/base",
        "steps": 3,
        "seconds": 3725.0,
        "skipped_steps": 2,
        "displacement": {"chosen": -1.5, "story": "Chosen responses became\nless probable."},
        "before": {"pair_accuracy": 0.5},
        "after": {"pair_accuracy": 0.625},
        "answers": [{"question": ATTACK, "before": "No.", "after": "Yes & no."}],
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "metrics.csv").write_text(METRICS)
    (tmp_path / "ledger.json").write_text(json.dumps({"train": LEDGER, "validation": LEDGER}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "adapter").mkdir()
    provenance = {"versions": {"torch": "2.13.0"}}
    (tmp_path / "adapter" / "provenance.json").write_text(json.dumps(provenance))
    sample = {"step": 2, "prompt": [{"role": "user", "content": ATTACK}], "response": "An owl."}
    sample |= {"score": 0.25, "kl": 1.5, "ended": False}
    (tmp_path / "samples.jsonl").write_text(json.dumps(sample) + "\n" + '{"step": 3, "pro')
    return tmp_path


def test_the_page_needs_nothing_and_runs_nothing(run):
    text = write_report(run).read_text("utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 2  # of the question and of the sampled prompt
    assert "Yes &amp; no." in text
    for reference in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert reference.startswith("#") or (run / reference).exists()
    assert not re.findall(r"url\((?!#)", text)
    assert list(run.glob("*.tmp")) == []


def test_figures_and_settings(run):
    text = re.sub(r"\s+", " ", write_report(run).read_text("utf-8"))
    for words in (
        "Preference · DPO(beta=0.1)",
        "1 h 2 min",
        "torch 2.13.0",
        "<dt>learning rate</dt><dd>5e-05</dd>",
        "<dt>optimizer</dt><dd>AdamW</dd>",
        "<dt>quantization</dt><dd>nf4</dd>",
        "missing field &#39;chosen&#39; (8)",
        "(cut off)",
        '<td>pair_accuracy</td><td class="number">0.5</td><td class="number">0.625</td>',
    ):
        assert words in text, words


def test_an_accuracy_has_the_interval_of_its_rows(run):
    rows = {figure.name: figure for figure in figures(read_run(run))}
    assert rows["loss"][1:] == (0.69, 0.51, 0.64, None)
    accuracy = rows["rewards/accuracies"]
    assert accuracy[1:4] == (0.5, 1.0, 0.9)
    # Wilson's interval of 27 of 30
    assert accuracy.interval == pytest.approx([0.7438, 0.9654], abs=1e-4)


def test_what_one_should_know_first(run):
    sentences = notices(read_run(run))
    words = (
        "2 steps were skipped",
        "less probable",
        "KL to the reference is 45",
        "10 of the 40 train",
    )
    for beginning in (*words, "10 of the 40 validation", "annotator (30)"):
        assert any(beginning in sentence for sentence in sentences), beginning
    assert "Chosen responses became less probable." in sentences


def test_a_run_without_faults_says_nothing(run):
    kept = {**LEDGER, "fates": {"kept": 40}, "reasons": [], "unread": {}}
    summary = {"steps": 3, "skipped_steps": 0, "displacement": {"chosen": 1.0, "story": ""}}
    record = RunRecord(run, summary, ledgers={"train": kept, "validation": kept})
    assert notices(record) == []


def test_a_run_that_was_stopped_has_a_page(run):
    for name in ("summary.json", "ledger.json", "samples.jsonl", "adapter/provenance.json"):
        (run / name).unlink()
    assert "has not come to its end" in write_report(run).read_text("utf-8")
    (run / "metrics.csv").unlink()
    assert "<svg" not in write_report(run).read_text("utf-8")


def test_only_curves_are_drawn():
    curves = {"loss": ([0], [0.7]), "eval_loss": ([0], [0.7]), "lr": ([0, 1], [1e-5, 2e-5])}
    ((title, svg),) = draw_panels(curves)
    assert title == "Learning rate"
    ElementTree.fromstring(svg)  # well-formed
    assert "currentColor" in svg
    assert "#010203" not in svg


def test_names_within_figures_do_not_meet(run):
    text = write_report(run).read_text("utf-8")
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(names)


def test_other_folders_are_refused(run, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    with pytest.raises(ConfigError, match=r"has no config\.yaml"):
        write_report(runs)
    (runs / "3").mkdir()
    (runs / "3" / "config.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=r"such as .*3$"):
        write_report(runs)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(run, browser, artefacts, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda request: errors.append(request.url) if request.url.startswith("http") else None,
    )
    page.goto(write_report(run).as_uri())
    page.screenshot(path=artefacts / f"report-{width}-{scheme}.png", full_page=True)
    assert page.title().startswith("Preference")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
    assert page.locator("figure svg").count() == 3
    assert errors == []
    page.close()
