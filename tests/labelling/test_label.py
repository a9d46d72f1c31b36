"""The command: what it asks, what it refuses, and answers that are made on the spot."""

import json
import re
import sqlite3
from contextlib import closing

import pytest
import yaml

import lit_align
from lit_align.__main__ import main
from lit_align.data.formats import built_in
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.labelling.administration import remove_votes
from lit_align.labelling.languages import usual_flags
from lit_align.labelling.store import Store
from lit_align.labelling.votes import read_flags, read_votes
from lit_align.stages.answering import add_responses
from lit_align.types import Group
from tests.labelling.serving import Visitor
from tests.labelling.test_crash import Page
from tests.stages.runs import arguments, folder_of, write_pairs


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["label", *arguments])
    assert stopped.value.code in (1, 2)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "has no tasks; give a file of them with --tasks"),
        (["--tasks=nothing.jsonl"], "there is no file nothing.jsonl"),
        (
            ["--tasks=alone.jsonl"],
            "alone.jsonl has nothing to compare; give prompts with responses, or --runs",
        ),
        (
            ["--tasks=pairs.jsonl", "--uncertainty=doubt"],
            "'doubt'; uncertainty needs a number there",
        ),
        (["--ask=guess"], "ask is guess, which is none of 'compare', 'rank', 'rate', 'thumbs'"),
        (["--port=99999"], "nothing can listen at port 99999 of 127.0.0.1"),
        (["--votes=0"], "votes must be at least 1, got 0"),
        (["--voters=3"], "'voters'; did you mean votes?"),
        (["--store=pairs.jsonl"], "pairs.jsonl cannot be used as a store"),
        (["--tasks=pairs.jsonl", "--store=no/l.db"], "no/l.db is in a folder that does not exist"),
        (
            ["--tasks=pairs.jsonl", "--gold=alone.jsonl"],
            "alone.jsonl has nothing to compare; give rows",
        ),
        (["--tasks=pairs.jsonl", "--runs=nowhere"], "nowhere"),
        (
            ["--tasks=pairs.jsonl", "--guidelines=no.md"],
            "guidelines is 'no.md', which cannot be read",
        ),
        (["--tasks=pairs.jsonl", "--examples=alone.jsonl"], "examples have no row with an answer"),
        (["--tasks=pairs.jsonl", "--public_url=a"], "public_url is 'a'; it is a scheme"),
        (["--tasks=pairs.jsonl", "--store=other.db"], "other.db cannot be used as a store"),
        (["--tasks=half.jsonl"], "half.jsonl:1 has half of a surrogate pair"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.jsonl", 3)
    (tmp_path / "alone.jsonl").write_text('{"prompt": "?", "completion": "!"}\n')
    (tmp_path / "half.jsonl").write_text('{"prompt": "\\ud83d", "chosen": "!", "rejected": "?"}\n')
    with closing(sqlite3.connect("other.db")) as other:
        other.execute("CREATE TABLE mine (x)")
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert sentence in refused(capsys, *arguments)
    # no store is left behind, and nothing in another file
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_another_kind_than_that_of_the_store_is_refused_before_anything_is_written(
    tmp_path, capsys
):
    store = Store(tmp_path / "rates.db")
    store.add_tasks([Group("?", ["x"])], "rate")
    sentence = refused(capsys, f"--store={store.path}", "--ask=rank", "--votes=7")
    assert f"ask is 'rank', but {store.path} has rate tasks; leave ask out" in sentence
    assert store.votes == 3
    assert len(read_votes(store.path).tasks) == 1


def test_a_table_of_the_command_has_the_words_of_the_page(tmp_path):
    store = Store(tmp_path / "l.db")
    store.add_tasks([Group("?", ["x"])], "rate")
    person = store.session_person(store.open_session(store.invite("ada"))[0])
    task = store.next_task(person)
    answer = {"rating": 2, "flags": {"rude": True, "short": False}}
    store.record_vote(person, task.number, 1, "vote", answer)
    store.set_state("flags", {"rude": "It is rude", "short": "It is short"})
    main(["label", "export", str(store.path), str(tmp_path / "votes.csv"), "--format=csv"])
    assert "2 of 7; It is rude" in (tmp_path / "votes.csv").read_text("utf-8-sig")


def test_the_checklist_is_a_yaml_away(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["label", "--print_config"])
    written = yaml.safe_load(capsys.readouterr().out)
    assert written["flags"] == usual_flags()
    assert written["host"] == "127.0.0.1"


def test_the_command_serves_and_goes_on(tmp_path):
    """Links are printed, votes are kept, and a second start takes everything up again."""
    page = Page(tmp_path, annotators=2, tasks=3)
    page.start()
    visitor = Visitor(page.port, page.tokens["w0"])
    assert visitor.send(**visitor.task(), preference=-3) == 303
    page.kill()
    visitor.line.close()
    old = page.tokens["admin"]
    assert remove_votes(Store(page.store), "w1") == 0
    page.start()
    assert "w0: has a link" in page.output
    assert "w1: the link was ended; the admin page makes another" in page.output
    assert read_flags(page.store) == usual_flags()
    assert visitor.task()["revision"] == "1"
    assert len(read_votes(page.store).votes) == 1
    assert (
        Visitor(page.port).ask("GET", f"/in/{old}")[0] == 404
    )  # a fresh link for the admin with every start
    boss = Visitor(page.port, page.tokens["admin"])
    (row,) = [
        json.loads(line) for line in boss.get("/admin/groups.jsonl?how=majority").splitlines()
    ]
    assert row["pairs"][0][2:] == [1.0, 3.0]
    csrf = re.search(r'csrf" value="(\w+)"', boss.get("/admin"))[1]
    assert boss.send("/admin/link", csrf=csrf, name="w2") == 200
    page.kill()


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Two runs that learned different things."""
    folder = tmp_path_factory.mktemp("runs")
    pairs = write_pairs(folder / "pairs.jsonl")
    made = []
    for name, rate in (("one", "0.003"), ("other", "0.3")):
        change = f"--model.optimizer.lr={rate}"
        main(
            arguments(
                tiny,
                pairs,
                folder / name,
                "--trainer.max_steps=2",
                "--model.max_new_tokens=8",
                change,
            )
        )
        made.append(str(folder_of(folder / name)))
    return pairs, made


def test_answers_are_made_by_one_run_or_two(runs):
    pairs, (one, other) = runs
    rows = load_groups(DataSource([str(pairs)], "responses", formats=built_in()))
    load = lit_align.load
    alone = add_responses([load(one).responder], rows, 2)
    both = add_responses((load(run).responder for run in (one, other)), rows)
    for groups in (alone, both):
        assert len(groups) == 22
        assert all(len(group.responses) == 2 for group in groups)
        assert sum(group.responses[0] != group.responses[1] for group in groups) > 15
        assert all(turn["role"] == "assistant" for group in groups for (turn,) in group.responses)
    # the second answer of two runs is the other run's, whoever speaks before it
    first = {
        str(group.prompt): group.responses
        for group in add_responses([load(other).responder], rows, 2)
    }
    shared = [group for group in both if str(group.prompt) in first]
    assert len(shared) == 22
    assert all(group.responses[1] == first[str(group.prompt)][0] for group in shared)
    assert load(one).max_new_tokens == 8
