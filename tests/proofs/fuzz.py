"""Does odd input ever crash what reads data? ``python -m tests.proofs.fuzz [minutes]``.

Every reader, every format under every label kind, the names of columns, the settings of the data and the labelling page
are tried on inputs that hypothesis draws, with a fixed seed, for a share of the time. Each must end in rows that have
one fate each, in a refusal, or in a page. Figures go to ``fuzz.json`` beside this file.
"""

import json
import sys
import warnings
from pathlib import Path
from time import monotonic

from tests.fuzz import TARGETS, attempt, page_target, served_page

CHUNK = {"settings": 5}  # examples at once, where one takes long
DEFAULT_CHUNK = 50
SHARES = {"settings": 3}  # of the time, as many as others have


def measure(name, target, seconds):
    """Examples and failures of one target."""
    start = monotonic()
    examples, failures, number = 0, [], 0
    while not number or monotonic() - start < seconds:
        try:
            examples += attempt(target, CHUNK.get(name, DEFAULT_CHUNK), number)
        except Exception as error:  # whatever it is, it is a failure
            failures.append(f"{type(error).__name__}: {error}"[:500])
        number += 1
    result = {
        "examples": examples,
        "failures": len(failures),
        "seconds": round(monotonic() - start),
    }
    print(name, result, *failures, flush=True)
    return result


def main(minutes):
    """Try all targets for about so long, and write the figures."""
    warnings.simplefilter("ignore")
    shares = {name: SHARES.get(name, 1) for name in (*TARGETS, "labelling page")}
    seconds = 60 * minutes / sum(shares.values())
    figures = {}
    for name, target in TARGETS.items():
        figures[name] = measure(name, target, seconds * shares[name])
    with served_page() as (visitors, csrf):
        figures["labelling page"] = measure("page", page_target(visitors, csrf), seconds)
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
