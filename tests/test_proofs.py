"""The committed run of the demo keeps what the demo promises."""

import json
from pathlib import Path

PROOF = Path(__file__).parent / "proofs" / "demo.json"


def test_the_demo_teaches_the_behaviour_and_does_not_collapse():
    found = json.loads(PROOF.read_text())
    before, after = found["before"], found["after"]
    assert after["pairs"] >= 20
    assert after["pair_accuracy"] >= 0.8
    assert before["short_answers"] < 0.3
    assert after["short_answers"] >= 0.8
    assert after["distinct_answers"] >= 0.8
    assert after["keyword_hits"] >= before["keyword_hits"]
