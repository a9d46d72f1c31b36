"""Load test of the labelling page: all real votes over HTTP, a kill at half time, and fifty people during exports.

``python -m tests.proofs.labelling`` needs the real votes (LIT_ALIGN_DATA) and writes its measurements to
``labelling.json`` beside this file. Times depend on the machine and on what else it does; counts do not.
"""

import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tests.labelling.serving import Visitor
from tests.labelling.test_aggregation import check_replay
from tests.labelling.test_crash import Page, check_crash

HERE = Path(__file__).parent
DATA = Path(os.environ.get("LIT_ALIGN_DATA", HERE.parents[2] / "shared" / "data"))
PEOPLE, SECONDS = 50, 20


def latencies(folder: Path) -> dict[str, float]:
    """Milliseconds of a vote and of the page after it, one vote a second each, while labels are exported in a loop."""
    page = Page(folder, PEOPLE, 4 * SECONDS)
    page.start()
    visitors = [Visitor(page.port, page.tokens[f"w{k}"]) for k in range(PEOPLE)]
    boss, exports, votes, pages = Visitor(page.port, page.tokens["admin"]), [], [], []
    end = time.perf_counter() + SECONDS

    def work(k: int, visitor: Visitor) -> None:
        time.sleep(k / PEOPLE)
        while time.perf_counter() < end:
            began = time.perf_counter()
            form = visitor.task()
            shown = time.perf_counter()
            assert visitor.send(**form, preference=1) == 303
            pages.append(shown - began)
            votes.append(time.perf_counter() - shown)
            time.sleep(max(0.0, began + 1 - time.perf_counter()))

    threads = [threading.Thread(target=work, args=item) for item in enumerate(visitors)]
    for thread in threads:
        thread.start()
    while time.perf_counter() < end:
        exports.append(len(boss.get("/admin/votes.jsonl").splitlines()))
    for thread in threads:
        thread.join()
    page.kill()
    found: dict[str, float] = {
        "annotators": PEOPLE,
        "votes": len(votes),
        "exports meanwhile": len(exports),
    }
    for name, times in (("vote", votes), ("page", pages)):
        found |= {
            f"{name} p{q}, ms": round(1000 * float(np.percentile(times, q)), 1) for q in (50, 99)
        }
    return found


def main() -> None:
    """Replay, kill, measure."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        count = check_replay(DATA, Path(folder, "replay.db"), pairs=10**9)
        figures["replay"] = {"votes": count, "seconds": round(time.perf_counter() - began, 1)}
    with tempfile.TemporaryDirectory() as folder:
        took = check_crash(Path(folder), annotators=50, each=100)
        figures["kill"] = {"votes": 5000, "lost": 0, "doubled": 0, "seconds": round(took, 1)}
    with tempfile.TemporaryDirectory() as folder:
        figures["latency"] = latencies(Path(folder))
    figures["load"] = {"cores": os.cpu_count(), "load average": round(os.getloadavg()[0], 1)}
    (HERE / "labelling.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
