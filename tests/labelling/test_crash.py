"""Fifty people at once, and the server killed under them: what was acknowledged is there, once."""

import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from lit_align.labelling.votes import read_votes
from tests.labelling.serving import Visitor, make_groups

ROOT = Path(__file__).parents[2]


class Page:
    """The real command, in a process that can be killed."""

    def __init__(self, folder: Path, annotators: int, tasks: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.store, rows = folder / "labels.db", folder / "tasks.jsonl"
        rows.write_text(
            "".join(
                json.dumps({"prompt": g.prompt, "responses": g.responses}) + "\n"
                for g in make_groups(tasks)
            )
        )
        names = [f"w{k}" for k in range(annotators)]
        self.command = [
            *(
                sys.executable,
                "-m",
                "lit_align",
                "label",
                f"--tasks={rows}",
                f"--store={self.store}",
            ),
            *(f"--port={self.port}", f"--votes={annotators}", f"--annotators={json.dumps(names)}"),
        ]
        self.tokens: dict[str, str] = {}

    def start(self) -> None:
        """Serve, until it is killed; links are taken from what it prints."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(self.command, cwd=ROOT, env=environment, **pipes)
        self.output = ""
        while "Ctrl-C stops" not in self.output:
            line = self.process.stdout.readline()
            assert line, self.output
            self.output += line
        self.tokens |= dict(
            re.findall(r"^(\w+): http://[^/]+/in/(\S+)$", self.output, re.MULTILINE)
        )
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)

    def kill(self) -> str:
        """End it without a warning; what it said since it began to serve."""
        self.process.send_signal(signal.SIGKILL)
        return self.process.communicate()[0]


def vote(visitor, csrf, name, tasks, acknowledged):
    """Answer every task in the order of its number; a request that got no reply is sent again until it gets one."""
    for task in range(1, tasks + 1):
        while True:
            try:
                status = visitor.send(csrf=csrf, task=task, revision=1, preference=task % 7 - 3)
                break
            except (OSError, http.client.HTTPException):
                visitor.line.close()
                time.sleep(0.05)
        assert status == 303, status
        acknowledged.append((name, task))


def check_crash(folder, annotators, each):
    """Kill at half time, look, go on; how long the votes took in all."""
    page = Page(folder, annotators, each)
    page.start()
    db = sqlite3.connect(page.store)  # every task was shown to everybody: the test is about votes
    db.execute(
        "INSERT INTO shown SELECT tasks.id, people.id, tasks.id, 'open', 0 FROM tasks, people WHERE NOT admin"
    )
    db.commit()
    db.close()
    names, acknowledged = [f"w{k}" for k in range(annotators)], []
    visitors = [Visitor(page.port, page.tokens[name]) for name in names]
    arguments = [
        (one, one.task()["csrf"], name, each, acknowledged)
        for one, name in zip(visitors, names, strict=True)
    ]
    threads = [threading.Thread(target=vote, args=given, daemon=True) for given in arguments]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    while len(acknowledged) < annotators * each // 2:
        assert any(thread.is_alive() for thread in threads)
        time.sleep(0.005)
    page.kill()
    before = list(acknowledged)
    killed = time.perf_counter()
    assert len(before) < annotators * each

    def found():
        return Counter((vote.annotator, vote.task) for vote in read_votes(page.store).history)

    kept = found()
    assert set(before) <= set(kept)
    assert set(kept.values()) == {1}
    assert (
        len(kept) - len(before) <= annotators
    )  # at most the one request of each that was under way
    assert sqlite3.connect(page.store).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    page.start()
    again = time.perf_counter()
    for thread in threads:
        thread.join(60)
    took = time.perf_counter() - again + killed - began
    logged = page.kill()
    assert not [name for name, token in page.tokens.items() if token in logged]
    assert found() == Counter((name, task) for name in names for task in range(1, each + 1))
    (wrong,) = (
        sqlite3.connect(page.store)
        .execute(
            "SELECT count(*) FROM tasks WHERE taken <> (SELECT count(*) FROM votes WHERE task = tasks.id)"
        )
        .fetchone()
    )
    assert wrong == 0
    return took


def test_votes_survive_a_kill(tmp_path):
    """Twenty votes of each of fifty; the proof in tests/proofs/labelling.py takes a hundred of each."""
    check_crash(tmp_path, annotators=50, each=20)
