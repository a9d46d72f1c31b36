"""The committed measurements of the labelling page meet its targets."""

import json
from pathlib import Path

PROOFS = Path(__file__).parents[1] / "proofs"


def test_no_vote_was_lost_and_nobody_waits():
    found = json.loads((PROOFS / "labelling.json").read_text())
    assert found["replay"]["votes"] == 8931
    assert found["kill"] == {**found["kill"], "votes": 5000, "lost": 0, "doubled": 0}
    assert found["latency"]["annotators"] == 50
    assert found["latency"]["vote p99, ms"] < 200


def test_dawid_skene_is_robust_to_flipped_votes():
    """Dawid and Skene correct annotators who are always wrong; counting votes does not."""
    found = json.loads((PROOFS / "poisoning.json").read_text())
    clean, poisoned = (
        {how: of[share]["accuracy"] for how, of in found["flip"].items()}
        for share in ("0.0", "0.3")
    )
    assert min(clean.values()) > 0.9
    for how in ("majority", "share"):
        assert clean[how] - poisoned[how] > 0.15
    assert abs(clean["dawid_skene"] - poisoned["dawid_skene"]) < 0.02
    coins = {how: of["0.3"]["accuracy"] for how, of in found["coin"].items()}
    assert coins["dawid_skene"] > coins["majority"] + 0.02
