"""What became of every row: each has exactly one fate, and no token is lost without being counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_align.errors import DataError
from lit_align.types import Tree

FATES = ("kept", "truncated", "malformed", "set aside", "overlong")
EXAMPLES = 3  # places kept of each reason
REASONS = 10  # shown of each fate


@dataclass
class Ledger:
    """The book of one data set.

    Args:
        name: of the data set, for the heading.
        rows: how many were read; the reader counts them, so that the fates can be checked against it.

    Example:
        >>> ledger = Ledger("pairs.jsonl", rows=2)
        >>> ledger.add("pairs.jsonl:1", "kept")
        >>> ledger.add("pairs.jsonl:2", "malformed", "missing field 'chosen'")
        >>> ledger.fates
        {'kept': 1, 'truncated': 0, 'malformed': 1, 'set aside': 0, 'overlong': 0}
    """

    name: str
    rows: int = 0
    tokens: int = 0
    scored: int = 0
    tokens_cut: int = 0
    ends_lost: int = 0
    boundary_merges: int = 0
    longest_prompt: int = 0
    longest_response: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, source: str, fate: str, reason: str = "") -> None:
        """Enter the fate of the row at ``source``, one of ``FATES``."""
        if fate not in FATES:
            raise ValueError(f"{fate!r} is no fate; it must be one of {', '.join(FATES)}")
        self.reasons[fate, reason] += 1
        if fate != "kept":
            seen = self.examples.setdefault((fate, reason), [])
            if len(seen) < EXAMPLES:
                seen.append(source)

    def measure(
        self, tree: Tree, cut: int = 0, ends_lost: int = 0, boundary_merges: int = 0
    ) -> None:
        """Count the tokens of a row that is trained on, and those it lost."""
        self.tokens += tree.tokens
        self.scored += sum(map(sum, tree.scored))
        self.tokens_cut += cut
        self.ends_lost += ends_lost
        self.boundary_merges += boundary_merges
        self.longest_prompt = max(self.longest_prompt, len(tree.prompt))
        self.longest_response = max([self.longest_response, *map(len, tree.responses)])

    @property
    def fates(self) -> dict[str, int]:
        """Rows of each fate."""
        counts = dict.fromkeys(FATES, 0)
        for (fate, _), count in self.reasons.items():
            counts[fate] += count
        return counts

    def check(self, max_malformed: float) -> None:
        """Refuse data of which more than the share ``max_malformed`` is malformed, or of which nothing is left.

        Raises:
            DataError: with the commonest reason and where it first occurs.
        """
        fates = self.fates
        if sum(fates.values()) != self.rows:
            raise RuntimeError(
                f"{self.rows} rows of {self.name} were read, but {sum(fates.values())} have a fate"
            )
        if not self.rows:
            raise DataError(f"{self.name} has no rows; give a file that has")
        if fates["malformed"] > max_malformed * self.rows:
            raise DataError(
                f"{_share(fates['malformed'], self.rows)} of {self.name} are malformed, over max_malformed {max_malformed:.2%}; "
                f"mostly {self._commonest('malformed')}; mend them or raise max_malformed"
            )
        if not fates["kept"] + fates["truncated"]:
            raise DataError(
                f"none of the {self.rows} rows of {self.name} can be trained on; {self._commonest()}"
            )

    def _commonest(self, *fates: str) -> str:
        """The commonest reason for a loss, with a place to look."""
        lost = ((n, key) for key, n in self.reasons.items() if key[0] in (fates or FATES[2:]))
        count, (fate, reason) = max(lost)
        return f"{fate}: {reason} ({count}), first at {self.examples[fate, reason][0]}"

    def table(self) -> str:
        """All of it, to read."""
        lines = [f"{self.name}: {_count(self.rows, 'row')}"]
        rule = "─" * 78
        lines.append(rule)
        for fate, count in self.fates.items():
            lines.append(f"{fate:<12}{count:>10,}{count / max(self.rows, 1):>9.2%}")
            reasons = [
                (reason, n)
                for (of, reason), n in self.reasons.most_common()
                if of == fate and reason
            ]
            for reason, n in reasons[:REASONS]:
                examples = [Path(source).name for source in self.examples.get((fate, reason), ())]
                more = ", ..." if n > EXAMPLES else ""
                where = f"  ({', '.join(examples)}{more})" if examples else ""
                lines.append(f"  {n:>8,}  {reason}{where}")
            if len(reasons) > REASONS:
                lines.append(f"  and {len(reasons) - REASONS:,} rarer reasons")
        if not self.tokens:  # nothing was tokenised
            return "\n".join(lines)
        lines.append(rule)
        share = self.scored / max(self.tokens, 1)
        lines.append(
            f"tokens {self.tokens:,}: scored {self.scored:,} ({share:.1%}), cut off {self.tokens_cut:,}"
        )
        lines.append(
            f"longest prompt {self.longest_prompt:,}, longest response {self.longest_response:,}"
        )
        lines.append(
            f"responses that lost their end {self.ends_lost:,}, boundary merges {self.boundary_merges:,}"
        )
        return "\n".join(lines)

    def to_json(self) -> str:
        """All of it, to compute with."""
        plain: dict[str, Any] = {
            name: value for name, value in vars(self).items() if isinstance(value, str | int)
        }
        reasons = [
            {"fate": fate, "reason": reason, "rows": count, "examples": self.examples[fate, reason]}
            for (fate, reason), count in self.reasons.most_common()
            if fate != "kept"
        ]
        return json.dumps(
            plain | {"fates": self.fates, "reasons": reasons}, indent=2, ensure_ascii=False
        )


def _share(count: int, rows: int) -> str:
    return f"{count:,} of {_count(rows, 'row')} ({count / rows:.2%})"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
