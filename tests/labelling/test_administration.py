"""A campaign ends, goes on, grows, loses an annotator and is backed up: on the page, by the command, and at once."""

import json
import socket
import sqlite3
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

from lit_align.__main__ import main
from lit_align.errors import ConfigError
from lit_align.labelling.administration import (
    add_new_tasks,
    back_up,
    choose_kind,
    remove_votes,
    task_kind,
)
from lit_align.labelling.store import Ended, Store
from lit_align.labelling.votes import read_votes
from lit_align.types import Group
from tests.labelling.serving import Visitor, csrf_of, make_groups, serving
from tests.labelling.test_store import answer, people

FORM = "application/x-www-form-urlencoded"


def verdicts(path):
    return [
        (vote.annotator, vote.task, vote.revision, vote.verdict)
        for vote in read_votes(path).history
    ]


def test_an_ended_campaign_takes_no_answer_and_can_go_on(tmp_path):
    with serving(tmp_path / "l.db", make_groups(3), votes=1) as (store, port):
        ada = Visitor(port, store.invite("ada"))
        boss = Visitor(port, store.invite("boss", admin=True))
        first = ada.task()
        assert ada.send(**first, preference=1) == 303
        form, csrf = ada.task(), csrf_of(boss.get("/admin"))
        assert boss.send("/admin/state", csrf=csrf, action="end") == 303
        assert ada.send(**first, preference=1) == 303  # sent again, and recorded before the end
        assert ada.send(**form, preference=1) == 409
        assert ada.send(**{**first, "revision": 2}, verdict="undo") == 409
        assert "has ended" in ada.get("/")
        assert "has ended" in ada.get("/task/1")
        assert "Answer 2 is slightly better" in ada.get("/mine")
        assert 'id="undo"' not in ada.get("/mine")
        assert "has ended" in boss.get("/admin")
        assert len(boss.get("/admin/votes.jsonl").splitlines()) == 1
        assert verdicts(store.path) == [("ada", 1, 1, "vote")]

        assert boss.send("/admin/state", csrf=csrf, action="reopen") == 303
        assert ada.send(**form, preference=1) == 303
        assert ada.send(**ada.task(), preference=1) == 303
        bob = Visitor(port, store.invite("bob"))
        assert not bob.task()  # each has its one vote
        assert boss.send("/admin/state", csrf=csrf, action="extend", votes=2) == 303
        assert bob.task()
        assert "of 6" not in boss.get("/admin")
        assert boss.send("/admin/state", csrf=csrf, action="extend") == 422
        for votes in ("0", "x", "1001"):
            assert boss.send("/admin/state", csrf=csrf, action="extend", votes=votes) == 422
        assert Store(store.path).votes == 2
        store.set_state("ended", 1.0)
        task = store.assigned_task(1, 1)
        with pytest.raises(Ended):
            answer(store, 1, task)


def upload(visitor, csrf, name, content):
    """Send a file of tasks as a browser does."""
    boundary = "----x"
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n{csrf}\r\n',
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n'
        f"content-type: application/octet-stream\r\n\r\n{content}\r\n--{boundary}--\r\n",
    ]
    header = f"multipart/form-data; boundary={boundary}"
    return visitor.ask("POST", "/admin/tasks", "".join(parts).encode(), content_type=header)


def test_tasks_are_uploaded_and_duplicates_left_out(tmp_path):
    rows = [{"prompt": g.prompt, "responses": g.responses[::-1]} for g in make_groups(4)]
    content = "".join(json.dumps(row) + "\n" for row in [*rows, rows[3]])
    with serving(tmp_path / "l.db", make_groups(3)) as (store, port):
        boss = Visitor(port, store.invite("boss", admin=True))
        ada = Visitor(port, store.invite("ada"))
        csrf = csrf_of(boss.get("/admin"))
        status, _, text = upload(boss, csrf, "../../more.jsonl", content)
        assert (status, "1 tasks added; 4 rows are asked about already" in text) == (200, True)
        big = json.dumps({"prompt": "?", "responses": ["x" * 100_000, "y"]})
        assert "1 tasks added." in upload(boss, csrf, "big.jsonl", big)[2]
        for name, body, sentence in (
            ("a.exe", content, "Tasks are read from .jsonl, .json, .csv files"),
            ("", content, "Choose a file of tasks"),
            ("a.jsonl", "no JSON", "upload.jsonl"),
            ("a.jsonl", '{"prompt": "?", "completion": "!"}', "The file has nothing to compare"),
        ):
            status, _, text = upload(boss, csrf, name, body)
            assert (status, sentence in text, "/tmp" in text) == (422, True, False), text
        assert upload(boss, "x", "a.jsonl", content)[0] == 403
        assert upload(ada, csrf, "a.jsonl", content)[0] == 401
        with socket.create_connection(("127.0.0.1", port), 10) as line:
            line.sendall(
                b"POST /admin/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: 17000000\r\n\r\n"
            )
            assert line.recv(4096).startswith(b"HTTP/1.1 413")
        assert boss.ask("POST", "/admin/tasks", b"--", content_type="multipart/form-data")[0] == 400
        data = read_votes(store.path)
        assert len(data.tasks) == 5
        assert [data.groups[n].source for n in (4, 5)] == ["upload.jsonl:4", "upload.jsonl:1"]
        prompts = []
        for _ in range(5):
            prompts.append(
                store.next_task(store.fetch_one("SELECT id FROM people WHERE NOT admin")[0]).prompt
            )
            form = ada.task()
            assert ada.send(**form, preference=0) == 303
        assert prompts == [f"Question {k}?" for k in range(4)] + [
            "?"
        ]  # those that are added come last


def test_added_tasks_are_those_that_are_not_asked_about_in_that_way(tmp_path):
    store = Store(tmp_path / "l.db")
    with pytest.raises(ConfigError, match="has no tasks; say with --ask"):
        task_kind(store)
    store.add_tasks(make_groups(2), "compare")
    assert task_kind(store) == "compare"
    assert add_new_tasks(store, make_groups(3, 3), "compare") == (
        9,
        0,
    )  # other responses, other rows
    assert add_new_tasks(store, make_groups(3, 3), "rank") == (3, 0)
    assert add_new_tasks(store, make_groups(3, 3), "rank") == (0, 3)
    with pytest.raises(ConfigError, match="has compare and rank tasks; say with --ask"):
        task_kind(store)


def test_removed_votes_stay_in_the_history_and_their_tasks_go_to_others(tmp_path):
    with serving(tmp_path / "l.db", make_groups(2), votes=1) as (store, port):
        token = store.invite("ada")
        ada, boss = Visitor(port, token), Visitor(port, store.invite("boss", admin=True))
        for _ in range(2):
            assert ada.send(**ada.task(), preference=-3, note="n") == 303
        assert ada.send(**{**ada.task("/task/2")}, verdict="skip") == 303
        assert "2 answers would no longer count" in boss.get("/admin/removal?name=ada")
        body = f"csrf={csrf_of(boss.get('/admin'))}&name=ada"
        status, _, text = boss.ask("POST", "/admin/removal", body, content_type=FORM)
        assert (status, "2 answers of ada no longer count" in text) == (200, True)
        assert ada.ask("GET", "/")[0] == 401
        assert Visitor(port).ask("GET", f"/in/{token}")[0] == 404
        data = read_votes(store.path)
        assert verdicts(store.path) == [
            ("ada", 1, 1, "vote"),
            ("ada", 2, 1, "vote"),
            ("ada", 2, 2, "skip"),
            ("ada", 1, 2, "removed"),
            ("ada", 2, 3, "removed"),
        ]
        assert data.history[0].answer == {"preference": -3}
        assert data.votes == []
        text = boss.get("/admin/tasks/1")
        assert "much better" in text
        assert "removed by an admin" in text
        assert (
            store.invite_once("ada") is None
        )  # a start with the same --annotators lets nobody in again
        assert store.has_ended_link("ada")
        bob = Visitor(port, store.invite("bob"))
        assert bob.send(**bob.task(), preference=1) == 303
        again = Visitor(port, store.invite("ada"))  # on purpose, with a new link
        form = again.task()
        assert form["revision"] == {"1": "3", "2": "4"}[form["task"]]
        assert again.send(**form, preference=1) == 303
        assert "None yet" not in again.get("/mine")
        assert not store.has_ended_link("ada")
        assert remove_votes(store, "ada") == 1
    with pytest.raises(ConfigError, match="has no annotator 'boss'"):
        remove_votes(store, "boss")


def test_a_backup_has_every_vote_that_was_acknowledged_before(tmp_path):
    """Four people vote all the time; a copied file would lack what is in the log."""
    store = Store(tmp_path / "l.db", votes=4)
    store.add_tasks(make_groups(60), "compare")
    who = people(store, 4)
    acknowledged, stop = [], threading.Event()

    def vote(person):
        while not stop.is_set() and (task := store.next_task(person)):
            answer(store, person, task)
            acknowledged.append((f"w{person - 1}", task.id))

    executor = ThreadPoolExecutor(len(who))
    voting = [executor.submit(vote, person) for person in who]
    sizes = []
    deadline = time.monotonic() + 120
    for number in range(3):
        while len(acknowledged) < 10 * (number + 1) and not all(map(Future.done, voting)):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        before = set(acknowledged)
        copy = tmp_path / f"copy{number}.db"
        sizes.append(back_up(store.path, copy))
        votes = {(vote.annotator, vote.task) for vote in read_votes(copy).history}
        assert before <= votes
        assert len(votes) == sizes[-1]
        assert sqlite3.connect(copy).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    stop.set()
    for future in voting:
        future.result()  # raises what ended it
    assert sizes == sorted(sizes)
    assert sorted(path.name for path in tmp_path.glob("copy*")) == [f"copy{k}.db" for k in range(3)]
    plain = tmp_path / "plain.db"
    plain.write_bytes(store.path.read_bytes())  # without the log
    lost = sqlite3.connect(plain).execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert lost or len(read_votes(plain).history) < len(acknowledged)
    restored = Store(tmp_path / "copy2.db")
    restored.invite("eve")
    assert restored.next_task(5)


def test_a_backup_leaves_other_files_alone(tmp_path):
    store = Store(tmp_path / "l.db")
    copy, other = tmp_path / "copy.db", tmp_path / "copy.db.unfinished"
    other.write_text("of the user")
    assert back_up(store.path, copy) == 0
    assert other.read_text() == "of the user"
    link = tmp_path / "link.db"
    link.symlink_to(
        "nowhere"
    )  # seen only when the copy is put there, as a file that came meanwhile
    with pytest.raises(ConfigError, match=r"link\.db is there already"):
        back_up(store.path, link)
    assert link.is_symlink()
    names = [path.name for path in tmp_path.iterdir() if not path.name.startswith("l.db")]
    assert sorted(names) == ["copy.db", "copy.db.unfinished", "link.db"]


def test_tasks_are_answered_as_those_of_the_store(tmp_path):
    rows = json.dumps({"prompt": "more?", "responses": ["x", "y"]})
    with serving(tmp_path / "l.db", make_groups(1), ask="rate") as (store, port):
        assert choose_kind(store, None) == choose_kind(store, "rate") == "rate"
        with pytest.raises(ConfigError, match=r"ask is 'compare', but .* has rate tasks"):
            choose_kind(store, "compare")
    with serving(tmp_path / "l.db") as (store, port):  # started again without ask
        boss = Visitor(port, store.invite("boss", admin=True))
        text = upload(boss, csrf_of(boss.get("/admin")), "a.jsonl", rows)[2]
        assert "2 tasks added" in text
        assert {task.kind for task in read_votes(store.path).tasks.values()} == {"rate"}
        store.add_tasks(make_groups(1), "rank")
        status, _, text = upload(boss, csrf_of(boss.get("/admin")), "a.jsonl", rows)
        assert (status, "has rank and rate tasks; say with --ask" in text) == (422, True)
    assert choose_kind(Store(tmp_path / "empty.db"), None) == "compare"


@pytest.mark.parametrize(
    "tables",
    [
        ["sessions (secret, person, opened)"],
        ["votes (id, person, task)", "sessions (id)"],
        ["votes (x)", "sessions (x)", "people (x)", "groups (x)", "tasks (x)", "shown (x)"],
    ],
)
def test_a_database_of_something_else_is_no_store(tmp_path, tables):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        for table in tables:
            other.execute(f"CREATE TABLE {table}")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is a database of something else"):
        Store(path)
    assert path.read_bytes() == before


def contents(folder):
    """What is in each file; of the store, what it says, whichever of its files that is in."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if "l.db" not in path.name}
    return files, list(sqlite3.connect(folder / "l.db").iterdump())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("end none.db", "there is no store none.db"),
        ("backup none.db copy.db", "there is no store none.db"),
        ("end other.db", "other.db is not a store of votes"),
        ("end text.db", "text.db is not a store of votes"),
        ("end", "lit-align label end needs store; "),
        ("remove l.db", "lit-align label remove needs annotator; "),
        ("extend l.db", "lit-align label extend needs votes; "),
        ("extend l.db --votes=0", "votes must be at least 1, got 0"),
        ("extend l.db --votes=x", "votes is 'x', which is no int"),
        ("remove l.db eve", "l.db has no annotator 'eve'"),
        ("add l.db none.jsonl", "there is no file none.jsonl"),
        ("add l.db alone.jsonl", "alone.jsonl has nothing to compare"),
        ("import l.db alone.jsonl", "give votes.jsonl of the page"),
        ("export l.db l.db", "l.db is there already"),
        ("export l.db no/out.jsonl", "no/out.jsonl cannot be written"),
        ("export l.db out.jsonl --format=xml", "xml"),
        ("backup l.db l.db", "l.db is there already"),
        ("backup l.db no/copy.db", "l.db cannot be backed up to no/copy.db"),
        ("backup text.db copy.db", "text.db cannot be backed up to copy.db"),
        ("backup l.db text.db/copy.db", "l.db cannot be backed up to text.db/copy.db"),
        ("labels.db", "label has no command 'labels.db'; there are add, "),
    ],
)
def test_a_mistake_is_answered_in_a_sentence_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    Store("l.db").add_tasks(make_groups(1), "compare")
    sqlite3.connect("other.db").execute("CREATE TABLE mine (x)").connection.close()
    (tmp_path / "text.db").write_text("no database at all" * 100)
    (tmp_path / "alone.jsonl").write_text('{"prompt": "?", "completion": "!"}\n')
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["label", *arguments.split()])
    assert stopped.value.code in (1, 2)
    assert sentence in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_the_commands_do_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = Store("l.db")
    store.add_tasks(make_groups(2), "compare")
    (who,) = people(store, 1)
    answer(store, who, store.next_task(who), preference=-3)
    rows = [{"prompt": g.prompt, "responses": g.responses} for g in make_groups(3)]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for arguments, sentence in (
        ("add l.db more.jsonl", "1 tasks added; 2 rows are asked about already and were left out."),
        ("extend l.db --votes 5", "5 votes per task instead of 3"),
        ("end l.db", "l.db takes no more answers"),
        ("reopen l.db", "l.db takes answers"),
        ("export l.db labels.jsonl", "wrote labels.jsonl"),
        ("export l.db ranked.jsonl --ranking kemeny", "wrote ranked.jsonl"),
        ("export l.db votes.jsonl --format votes", "wrote votes.jsonl"),
        ("export l.db votes.csv --format csv", "wrote votes.csv"),
        ("export l.db argilla.json --format argilla", "wrote argilla.json"),
        ("export l.db studio.json --format label_studio", "wrote studio.json"),
        ("backup l.db copy.db", "1 answers are in copy.db"),
        ("remove l.db w0", "1 answers of w0 no longer count"),
        ("import copy.db votes.jsonl", "0 votes imported, 1 were there already; 0 tasks were new"),
    ):
        main(["label", *arguments.split()])
        assert sentence in capsys.readouterr().out
        assert store.has_ended == arguments.startswith("end")
    assert store.votes == 5
    [label] = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert label["pairs"][0][2:] == [1.0, 3.0]
    assert read_votes("copy.db").votes
    assert not read_votes("l.db").votes
    assert isinstance(read_votes("l.db").groups[3], Group)
