"""The ledger of a data set: what became of every row, and how many tokens were scored or cut off."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_align.data.data_findings import DataFindings
from lit_align.data.ledger_lines import count_rows, most_common, reason_lines
from lit_align.errors import DataError, RowError
from lit_align.jsonl import write_json, write_jsonl
from lit_align.types import Tree

FATES = ("kept", "truncated", "malformed", "set aside", "overlong")
MAX_EXAMPLES = 3  # recorded for each reason

SUMMED = (
    "rows",
    "joined",
    "divided",
    "tokens",
    "scored",
    "tokens_cut",
    "chars_cut",
    "ends_lost",
    "boundary_merges",
    "num_responses",
)
"""Counts that are sums over rows."""

COUNTERS = ("unread", "split_tokens", "kept_tokens", "containers")
"""Counts by name."""


@dataclass
class Ledger:
    """Counts the rows of a data set by fate and reason, and the tokens of those that are trained on.

    Every row has exactly one fate: kept, truncated (trained on, but shortened), malformed, set aside (of no use to this
    objective, such as a tie) or overlong.

    Args:
        name: name of the data set, for the heading.
        rows: number of rows read; counted apart from the fates, so that these can be checked against it.
        joined: number of records beyond one in each row, of files whose records are joined into rows.
        divided: number of rows beyond one of each record, of files whose records are divided into rows.
        chars_cut: number of characters that were cut off before tokenising; ``tokens_cut`` does not count their tokens.
        split_tokens: rows whose text spells a special token out that was split into ordinary tokens, by the token.
        kept_tokens: rows whose text spells a special token out that was kept as such, by the token.
        containers: files that are one object and have their rows under a key of it, by the key.

    Example:
        >>> ledger = Ledger("pairs.jsonl", rows=2)
        >>> ledger.add("pairs.jsonl:1", "kept")
        >>> ledger.add("pairs.jsonl:2", "malformed", "missing field 'chosen'")
        >>> ledger.fates
        {'kept': 1, 'truncated': 0, 'malformed': 1, 'set aside': 0, 'overlong': 0}
    """

    name: str
    rows: int = 0
    joined: int = 0
    divided: int = 0
    tokens: int = 0
    scored: int = 0
    tokens_cut: int = 0
    chars_cut: int = 0
    ends_lost: int = 0
    boundary_merges: int = 0
    longest_prompt: int = 0
    longest_response: int = 0
    num_responses: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    split_tokens: Counter[str] = field(default_factory=Counter)
    kept_tokens: Counter[str] = field(default_factory=Counter)
    containers: Counter[str] = field(default_factory=Counter)
    places: list[tuple[str, str, str]] = field(default_factory=list)
    findings: DataFindings = field(default_factory=DataFindings)
    overlap: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)

    def add_unread(self, name: str, count: int = 1) -> None:
        """Record that a column, or a key of turns such as ``turn.timestamp``, holds something that nothing reads."""
        self.unread[name] += count

    def add_container(self, key: str) -> None:
        """Record that a file is one object, whose rows are the list under ``key``."""
        self.containers[key] += 1

    def add_spelled(self, tokens: Iterable[str], split: bool) -> None:
        """Count a row whose text spells special tokens out, which were split into ordinary tokens or kept."""
        (self.split_tokens if split else self.kept_tokens).update(tokens)

    def add(self, source: str, fate: str, reason: str = "") -> None:
        """Record the fate of the row at ``source``; ``fate`` is one of ``FATES``."""
        if fate not in FATES:
            raise ValueError(f"{fate!r} is no fate; it must be one of {', '.join(FATES)}")
        self.reasons[fate, reason] += 1
        if fate != "kept":
            self.places.append((source, fate, reason))
            examples = self.examples.setdefault((fate, reason), [])
            if len(examples) < MAX_EXAMPLES:
                examples.append(source)

    def add_error(self, source: str, error: RowError) -> None:
        """Record that the row at ``source`` was left out because of ``error``."""
        self.add(source, error.fate, str(error))

    def measure(
        self, tree: Tree, cut: int = 0, ends_lost: int = 0, boundary_merges: int = 0
    ) -> None:
        """Count the tokens of a row that is trained on, and those that were cut off; arguments as in `Encoded`."""
        self.tokens += tree.tokens
        self.scored += tree.num_scored
        self.tokens_cut += cut
        self.ends_lost += ends_lost
        self.boundary_merges += boundary_merges
        self.num_responses += len(tree.responses)
        for prompt in (tree.prompt, *(branch.prompt for branch in tree.branches)):
            self.longest_prompt = max(self.longest_prompt, len(prompt))
        for response in (*tree.responses, *(branch.ids for branch in tree.branches)):
            self.longest_response = max(self.longest_response, len(response))

    def merge(self, other: Ledger) -> None:
        """Add the counts of rows that follow these."""
        for name in SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest_prompt = max(self.longest_prompt, other.longest_prompt)
        self.longest_response = max(self.longest_response, other.longest_response)
        self.reasons.update(other.reasons)
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for key, places in other.examples.items():
            examples = self.examples.setdefault(key, [])
            examples += places[: MAX_EXAMPLES - len(examples)]
        self.places += other.places
        self.findings.merge(other.findings)

    @property
    def fates(self) -> dict[str, int]:
        """Number of rows of each fate."""
        counts = dict.fromkeys(FATES, 0)
        for (fate, _), count in self.reasons.items():
            counts[fate] += count
        return counts

    def check(self, max_malformed: float) -> None:
        """Refuse data of which more than the share ``max_malformed`` is malformed, or of which no row is left.

        Raises:
            DataError: with the most common reason and where it first occurs.
        """
        fates = self.fates
        num_fates = sum(fates.values())
        if num_fates != self.rows:
            raise RuntimeError(
                f"{self.rows} rows of {self.name} were read, but {num_fates} have a fate"
            )
        if not self.rows:
            raise DataError(f"{self.name} has no rows; give a file that has")
        malformed = fates["malformed"]
        if malformed > max_malformed * self.rows:
            share = f"{malformed:,} of {count_rows(self.rows)} ({malformed / self.rows:.2%})"
            raise DataError(
                f"{share} of {self.name} are malformed, over max_malformed {max_malformed:.2%}; "
                f"mostly {self._most_common_loss(('malformed',))}; fix them or raise max_malformed"
            )
        if not fates["kept"] + fates["truncated"]:
            rows = f"none of the {self.rows:,} rows of {self.name} can"
            if self.rows == 1:
                rows = f"the only row of {self.name} cannot"
            loss = self._most_common_loss(FATES[2:])
            remedy = "; raise max_length" if loss.startswith("overlong") else ""
            raise DataError(f"{rows} be trained on; {loss}{remedy}")

    def _most_common_loss(self, fates: tuple[str, ...]) -> str:
        """The most common reason among ``fates``, with the first row that has it."""
        losses = []
        for (fate, reason), count in self.reasons.items():
            if fate in fates:
                losses.append((count, fate, reason))
        count, fate, reason = max(losses)
        first = self.examples[fate, reason][0]
        return f"{fate}: {reason} ({count_rows(count)}), first at {first}"

    def table(self) -> str:
        """Fates, reasons and token counts as text."""
        rule = "─" * 78
        lines = [f"{self.name}: {count_rows(self.rows)}", rule]
        for fate, count in self.fates.items():
            lines.append(f"{fate:<12}{count:>10,}{count / max(self.rows, 1):>9.2%}")
            lines += reason_lines(fate, self.reasons, self.examples)
        if self.tokens:  # none where nothing was tokenised
            lines += [rule, *self._token_lines()]
        if self.chars_cut:
            lines.append(f"characters of long texts cut off before tokenising: {self.chars_cut:,}")
        if self.joined:
            lines.append(f"records that were joined with others into these rows: {self.joined:,}")
        if self.divided:
            lines.append(f"rows that records were divided into, beyond one each: {self.divided:,}")
        if self.containers:
            lines.append(
                f"files of one object, by the key of their rows: {most_common(self.containers)}"
            )
        if self.unread:
            lines.append(f"not read: {most_common(self.unread)}")
        for counts, treatment in (
            (self.split_tokens, "split into ordinary tokens"),
            (self.kept_tokens, "kept as special tokens"),
        ):
            if counts:
                lines.append(f"special tokens in text, {treatment}: {most_common(counts)}")
        lines += [f"note: {sentence}" for sentence in self.notes]
        return "\n".join(lines)

    @property
    def notes(self) -> list[str]:
        """What is worth knowing before training, in sentences."""
        notes = [*self.findings.sentences(), *self.overlap, *self.unmatched]
        if self.ends_lost > self.num_responses / 2:
            notes.append(
                f"the end of {self.ends_lost:,} of {self.num_responses:,} responses is cut off, so a model hardly "
                "learns where to stop: raise max_length"
            )
        return notes

    def compare(self, train: Ledger) -> None:
        """Note the prompts of these data that are in the training data too."""
        self.overlap = self.findings.overlap(train.findings, "train")

    def _token_lines(self) -> list[str]:
        share = self.scored / max(self.tokens, 1)
        return [
            f"tokens {self.tokens:,}: scored {self.scored:,} ({share:.1%}), cut off {self.tokens_cut:,}",
            f"longest prompt {self.longest_prompt:,}, longest response {self.longest_response:,}",
            f"responses that lost their end {self.ends_lost:,}, boundary merges {self.boundary_merges:,}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """All counts as plain values, for JSON."""
        reasons = []
        for (fate, reason), count in self.reasons.most_common():
            if fate != "kept":
                examples = self.examples[fate, reason]
                reasons.append(
                    {"fate": fate, "reason": reason, "rows": count, "examples": examples}
                )
        return {
            **_plain_counts(vars(self)),
            "fates": self.fates,
            "reasons": reasons,
            **self._counters(),
            "notes": self.notes,
        }

    def to_state(self) -> dict[str, Any]:
        """Everything as plain values, for `from_state`."""
        reasons = []
        for (fate, reason), count in self.reasons.items():
            reasons.append([fate, reason, count, self.examples.get((fate, reason))])
        return {
            **_plain_counts(vars(self)),
            "reasons": reasons,
            **self._counters(),
            "places": self.places,
            "findings": self.findings.to_state(),
        }

    def _counters(self) -> dict[str, dict[str, int]]:
        return {name: dict(getattr(self, name)) for name in COUNTERS}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Ledger:
        """The ledger that `to_state` described."""
        ledger = cls(**_plain_counts(state))
        for fate, reason, count, examples in state["reasons"]:
            ledger.reasons[fate, reason] = count
            if examples is not None:
                ledger.examples[fate, reason] = examples
        for name in COUNTERS:
            setattr(ledger, name, Counter(state[name]))
        ledger.places = [(place, fate, reason) for place, fate, reason in state["places"]]
        ledger.findings = DataFindings.from_state(state["findings"])
        return ledger

    def to_json(self) -> str:
        """All counts as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)


def write_ledgers(folder: Path, ledgers: Mapping[str, Ledger]) -> None:
    """Write ``ledger.json`` and ``ledger_rows.jsonl`` into the folder of a run, by the name of the split."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ledger.json", {name: ledger.to_dict() for name, ledger in ledgers.items()})
    write_ledger_rows(folder, ledgers)


def write_ledger_rows(folder: Path, ledgers: Mapping[str, Ledger]) -> None:
    """Write ``ledger_rows.jsonl``: split, place, fate and reason of each row that was not kept as it is."""
    rows = []
    for name, ledger in ledgers.items():
        for place, fate, reason in ledger.places:
            rows.append({"split": name, "place": place, "fate": fate, "reason": reason})
    write_jsonl(folder / "ledger_rows.jsonl", rows)


def _plain_counts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The name and the counts of a ledger, of all its fields or of its state."""
    return {name: value for name, value in fields.items() if isinstance(value, str | int)}
