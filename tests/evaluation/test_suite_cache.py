"""What a suite keeps on disk: nothing that could not be read, and nothing under a key that misses a cause."""

import importlib
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from lit_align.errors import ModelError
from lit_align.evaluation.evaluated_model import EvaluatedModel
from lit_align.evaluation.suite.safety import Safety
from lit_align.evaluation.suite_cache import code_content, settings_content
from lit_align.evaluation.suite_run import collect_items, read_tasks
from lit_align.judges.openai_server import OpenAIServer
from lit_align.plugins import load_plugins
from tests.evaluation.real import write
from tests.judges.servers import serving


class Refuses:
    """A model that says one thing."""

    name = "refuses"
    sampler = None

    def fingerprint(self):
        return "weights"

    def release(self):
        pass

    def answer(self, prompts, places, **overrides):
        return [["No."] for _ in prompts]


def test_a_verdict_that_could_not_be_read_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path / "cache"))
    rows = [{"prompt": f"{k}?", "label": "unsafe"} for k in range(4)]
    data = [write(tmp_path / "rows.jsonl", rows)]
    asked = []

    def say(question):
        asked.append(question)
        return "Hm." if "3?" in question and len(asked) <= len(rows) else "Yes"

    with serving(say=say) as server:

        def run():
            task = Safety(data, judge=OpenAIServer(server.url, "judge", cache=None))
            [items] = collect_items([Refuses()], read_tasks([task], part_size=2)).values()
            return [
                (item.prompt, item.unread, tuple(item.sums["refuses unsafe prompts"]))
                for item in items
            ]

        assert [unread for _, unread, _ in run()] == [0, 0, 0, 1]
        again = run()
        assert [(unread, sums) for _, unread, sums in again] == [(0, (1.0, 1.0))] * 4
        assert len(asked) == 6  # the part with it, and not the other
        assert run() == again
        assert len(asked) == 6


def test_the_code_of_bases_counts(tmp_path, monkeypatch):
    """A plugin whose class is defined over two files: a change in either changes the key."""
    monkeypatch.syspath_prepend(tmp_path)
    base, leaf = tmp_path / "key_base.py", tmp_path / "key_leaf.py"
    base.write_text("class Base:\n    size = 1\n")
    head = "from dataclasses import dataclass\nfrom key_base import Base\n"
    leaf.write_text(f"{head}@dataclass(frozen=True)\nclass Leaf(Base):\n    name: str = 'a'\n")
    importlib.invalidate_caches()
    settings = importlib.import_module("key_leaf").Leaf()
    keys = [settings_content(settings)]
    for file in (base, leaf):
        file.write_text(file.read_text() + "# changed\n")
        keys.append(settings_content(settings))
    assert keys[0] != keys[1] != keys[2]


def test_code_is_files_modules_and_versions(tmp_path):
    template = tmp_path / "check.j2"
    template.write_text("Is it?")
    before = code_content([str(template)])
    template.write_text("Is it so?")
    assert before != code_content([str(template)])
    assert code_content(["torch"]) == [f"torch {version('torch')}"]
    [module] = code_content(["lit_align.functional.text_metrics"])
    assert len(module.split()[1]) == 64


def test_what_tasks_depend_on_is_there():
    """No name of a module or file is misspelt: what is not installed is a package of an extra."""
    registries = load_plugins().registries
    classes = [*registries["register_tasks"].values(), *registries["register_rewards"].values()]
    missing = set()
    for cls in classes:
        names = [*getattr(cls, "depends_on", ()), *getattr(cls, "grades_depend_on", ())]
        missing |= {text for text in code_content(names) if "not installed" in text}
    optional = ("lm_eval", "langdetect", "nltk", "profanity_check", "sklearn")
    assert missing <= {f"{name} is not installed" for name in optional}


def test_the_answers_that_a_judge_keeps_are_no_part_of_the_key(tmp_path):
    cache = tmp_path / "answers.sqlite"
    judge = OpenAIServer("http://127.0.0.1:1/v1", "judge", cache=str(cache))
    before = settings_content(judge)
    cache.write_text("an answer")
    assert settings_content(judge) == before
    other = OpenAIServer("http://127.0.0.1:1/v1", "judge", cache=str(tmp_path / "other.sqlite"))
    assert settings_content(other) != before


def test_a_token_over_the_end_of_a_prompt_is_refused():
    """A tokenizer that makes one token of each word: "A: so" is tokenised apart from "A:", and "A:so" is not."""
    model = EvaluatedModel("x", "nowhere")

    def words(text):
        return SimpleNamespace(input_ids=[hash(word) for word in text.split()])

    model.__dict__["stage"] = SimpleNamespace(tokenizer=words)
    with pytest.raises(ModelError, match="joins the end of 'A:' with 'so' into one token"):
        model.continuation_logps(["A:"], [["so"]])
