"""What a reader of a run should know before its figures, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lit_align.run_report.record import RunRecord

LARGE_LOSS = 0.1
"""Share of rows from which it is said that they were left out."""

LARGE_KL = 30.0
"""Nats per response from which a policy has left the reference far behind."""

LOSSES = ("malformed", "set aside", "overlong")
LOW_ENTROPY = 0.1  # nats per token


def notices(record: RunRecord) -> list[str]:
    """Sentences, the most serious first; none if there is nothing to say."""
    return [
        *_of_the_end(record),
        *_of_learning(record),
        *_of_data(record.ledgers),
    ]


def _of_the_end(record: RunRecord) -> Iterator[str]:
    if not record.is_complete:
        yield "The run has not come to its end; the figures are those that it had logged until then."
    skipped = record.summary.get("skipped_steps")
    if skipped:
        yield f"{skipped} steps were skipped, since their loss or gradient was not finite; the log names their rows."


def _of_learning(record: RunRecord) -> Iterator[str]:
    displacement = record.summary.get("displacement")
    if displacement and displacement["chosen"] < 0:
        yield " ".join(displacement["story"].split())
    kl = record.last("objective/kl")
    if kl is not None and kl > LARGE_KL:
        yield (
            f"The KL to the reference is {kl:.0f} nats per response: the policy has gone far from it, and a high "
            "reward may be that of a weakness of the reward."
        )
    entropy = record.last("objective/entropy")
    if entropy is not None and entropy < LOW_ENTROPY:
        yield f"The entropy has fallen to {entropy:.2g} nats per token: the policy hardly explores any more."
    if record.is_complete and record.ledgers and "validation" not in record.ledgers:
        yield "There were no validation data: no figure is of rows that were not trained on."


def _of_data(ledgers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for split, ledger in ledgers.items():
        rows = ledger.get("rows", 0)
        fates = ledger.get("fates", {})
        lost = sum(fates.get(fate, 0) for fate in LOSSES)
        if rows and lost > LARGE_LOSS * rows:
            yield f"{lost:,} of the {rows:,} {split} rows ({lost / rows:.0%}) were left out; the data's table says why."
        unread = ledger.get("unread")
        if unread:
            names = ", ".join(f"{name} ({count:,})" for name, count in unread.items())
            yield f"Nothing read these columns of the {split} rows: {names}."
        for note in ledger.get("notes", ()):
            yield f"{split}: {note}."
