"""Load test of the labelling page: all real votes over HTTP, kills, and two hundred people during exports and backups.

``python -m tests.proofs.labelling [MINUTES]`` needs the real votes (LIT_ALIGN_DATA) for its first part and writes its
measurements to ``labelling.json`` beside this file. Times depend on the machine and its load; counts do not.
"""

import http.client
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np

from lit_align.labelling.votes import read_votes
from tests.labelling.serving import Visitor
from tests.labelling.test_aggregation import check_replay
from tests.labelling.test_crash import Page, check_crash

HERE = Path(__file__).parent
DATA = Path(os.environ.get("LIT_ALIGN_DATA", HERE.parents[2] / "shared" / "data"))
PEOPLE, MINUTES, KILLS = 200, 10.0, 3


class Load:
    """People who vote once a second each while labels are exported and the store is backed up, and kills.

    Args:
        folder: of the store.
        seconds: how long.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.page = Page(folder, PEOPLE, int(2 * seconds))
        self.acknowledged: list[tuple[str, int]] = []
        self.votes: list[float] = []
        self.pages: list[float] = []
        self.exports, self.backups, self.late = 0, 0, 0

    def run(self) -> dict[str, float]:
        """Serve, vote, kill and start again; the figures, once all votes are checked."""
        self.page.start()
        names = [f"w{k}" for k in range(PEOPLE)]
        visitors = {name: Visitor(self.page.port, self.page.tokens[name]) for name in names}
        self.admin = Visitor(self.page.port, self.page.tokens["admin"])
        self.start = time.perf_counter()
        self.end = self.start + self.seconds
        targets = [(self.annotate, item) for item in enumerate(visitors.items())]
        targets += [(self.export, ()), (self.back_up, ())]
        threads = [threading.Thread(target=target, args=args) for target, args in targets]
        for thread in threads:
            thread.start()
        for number in range(KILLS):
            time.sleep(self.start + (number + 1) * self.seconds / (KILLS + 1) - time.perf_counter())
            self.page.kill()
            self.page.start()
            # a new link of the admin with every start
            self.admin = Visitor(self.page.port, self.page.tokens["admin"])
        for thread in threads:
            thread.join()
        self.page.kill()
        return self.figures()

    def annotate(self, number: int, item: tuple[str, Visitor]) -> None:
        """One vote a second; what got no reply is sent again, and not timed."""
        name, visitor = item
        due = self.start + number / PEOPLE
        while due < self.end:
            time.sleep(max(0.0, due - time.perf_counter()))
            self.late += time.perf_counter() > due + 1
            due += 1
            form: dict[str, str] = {}
            try:
                began = time.perf_counter()
                form = visitor.task()
                shown = time.perf_counter()
                assert visitor.send(**form, preference=1) == 303
                self.pages.append(shown - began)
                self.votes.append(time.perf_counter() - shown)
            except (OSError, http.client.HTTPException):
                self.repeat(visitor, form)
            if form:
                self.acknowledged.append((name, int(form["task"])))

    def repeat(self, visitor: Visitor, form: dict[str, str]) -> None:
        """Send a form until there is a reply: the same vote twice is one."""
        while True:
            visitor.line.close()
            time.sleep(0.1)
            try:
                assert not form or visitor.send(**form, preference=1) == 303
                return
            except (OSError, http.client.HTTPException):
                continue

    def export(self) -> None:
        """One export after another."""
        while time.perf_counter() < self.end:
            try:
                self.admin.get("/admin/groups.jsonl")
                self.exports += 1
            except (OSError, http.client.HTTPException, AssertionError):
                time.sleep(0.5)  # killed, or the link before

    def back_up(self) -> None:
        """One copy of the store after another, each of which is sound."""
        while time.perf_counter() < self.end:
            with closing(sqlite3.connect(self.folder / "copy.db")) as copy:
                with closing(sqlite3.connect(self.page.store)) as store:
                    store.backup(copy, pages=256, sleep=0.01)
                assert copy.execute("PRAGMA quick_check").fetchone() == ("ok",)
            self.backups += 1
            time.sleep(1)

    def figures(self) -> dict[str, float]:
        """Counts and times; nothing acknowledged is lost, nothing is there twice."""
        names = {task.annotator for task in read_votes(self.page.store).history}
        assert len(names) == PEOPLE
        with closing(sqlite3.connect(self.page.store)) as store:
            rows = store.execute(
                "SELECT name, number FROM votes JOIN people ON people.id = votes.person "
                "JOIN shown ON shown.person = votes.person AND shown.task = votes.task"
            ).fetchall()
        stored = Counter(rows)
        figures: dict[str, float] = {
            "annotators": PEOPLE,
            "minutes": round(self.seconds / 60, 1),
            "votes": len(self.acknowledged),
            "lost": len(set(self.acknowledged) - set(stored)),
            "doubled": sum(count > 1 for count in stored.values()),
            "kills": KILLS,
            "exports meanwhile": self.exports,
            "backups meanwhile": self.backups,
            "votes that began a second late": self.late,
        }
        for name, times in (("vote", self.votes), ("page", self.pages)):
            for q in (50, 99):
                figures[f"{name} p{q}, ms"] = round(1000 * float(np.percentile(times, q)), 1)
        return figures


def main(minutes: float) -> None:
    """Replay, kill, measure."""
    figures = {}
    if DATA.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            count = check_replay(DATA, Path(folder, "replay.db"), pairs=10**9)
            seconds = round(time.perf_counter() - began, 1)
            figures["replay"] = {"votes": count, "seconds": seconds}
    with tempfile.TemporaryDirectory() as folder:
        took = check_crash(Path(folder), annotators=50, each=100)
        figures["kill"] = {"votes": 5000, "lost": 0, "doubled": 0, "seconds": round(took, 1)}
    with tempfile.TemporaryDirectory() as folder:
        figures["latency"] = Load(Path(folder), 60 * minutes).run()
    figures["load"] = {"cores": os.cpu_count(), "load average": round(os.getloadavg()[0], 1)}
    (HERE / "labelling.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else MINUTES)
