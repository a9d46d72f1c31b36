"""What the figures are compared with: each row says what was measured, what it should be, and whether it is."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tests.gpu.options import GIB

Sections = Mapping[str, Mapping]
"""Figures of the sections that are done, by name."""


class Row(NamedTuple):
    """One line of the table.

    Args:
        name: what is measured.
        measured: with its unit.
        target: with its unit.
        verdict: "met", "missed" or "not measured".
    """

    name: str
    measured: str
    target: str
    verdict: str


@dataclass(frozen=True)
class Target:
    """A figure and its bound.

    Args:
        name: what is measured.
        bound: at least, or at most.
        is_least: whether it is the least.
        form: of figure and bound.
        figure: reads it from the sections; a `KeyError` or None means that it was not measured.
    """

    name: str
    bound: float
    is_least: bool
    form: str
    figure: Callable[[Sections], float | None]

    def row(self, sections: Sections) -> Row:
        """Compare what was measured."""
        word = "at least" if self.is_least else "at most"
        target = f"{word} {self.form.format(self.bound)}"
        try:
            measured = self.figure(sections)
        except KeyError:
            measured = None
        if measured is None:
            return Row(self.name, "-", target, "not measured")
        compare = operator.ge if self.is_least else operator.le
        verdict = "met" if compare(measured, self.bound) else "missed"
        return Row(self.name, self.form.format(measured), target, verdict)


def failed_gates(sections: Sections) -> float:
    """Equality gates that do not hold."""
    return len(sections["gates"]["failed"])


def speed_of_trl(sections: Sections) -> float:
    """Pairs a second of our fastest settings over those of TRL's fastest."""
    return _fastest(sections, "dpo-8b") / _fastest(sections, "trl-8b")


def _fastest(sections: Sections, prefix: str) -> float:
    speeds = [
        figures["pairs_per_second"]
        for name, figures in sections.items()
        if name.startswith(prefix) and "pairs_per_second" in figures
    ]
    if not speeds:
        raise KeyError(prefix)
    return max(speeds)


def memory_of_trl(sections: Sections) -> float | None:
    """Peak over TRL's, both with gradient checkpointing."""
    ours = sections["dpo-8b"]["peak_bytes"]["update"]
    theirs = sections["trl-8b"]["peak_bytes"]["update"]
    return None if ours is None or theirs is None else ours / theirs


def prediction_error(name: str) -> Callable[[Sections], float | None]:
    """Reads how far the predicted peak of a section's phases is from the measured one, at most."""
    return lambda sections: sections[name]["prediction_error"]


def ppo_peak(sections: Sections) -> float | None:
    """GiB at the largest peak of PPO."""
    peaks = sections["ppo-8b"]["peak_bytes"].values()
    return None if None in peaks else max(peaks) / GIB


def decoding_speed(sections: Sections) -> float:
    """The part of a token's time in which weights and cache could have been read."""
    return sections["decode-8b"]["runs"]["sample"]["fraction_of_memory_floor"]


def stopped_compilations(sections: Sections) -> float:
    """Sentences by which torch gives up compiling FlexAttention."""
    return len(sections["recompiles"]["limits"]) + sections["recompiles"]["unfused"]


TARGETS = (
    Target("equality gates that fail", 0, False, "{:.0f}", failed_gates),
    Target("DPO 8B, pairs a second, of TRL's best", 1.5, True, "{:.2f}x", speed_of_trl),
    Target("DPO 8B, peak memory, of TRL's", 0.6, False, "{:.2f}x", memory_of_trl),
    Target("DPO 8B, predicted peak off by", 0.05, False, "{:.1%}", prediction_error("dpo-8b")),
    Target(
        "the same, without checkpointing",
        0.05,
        False,
        "{:.1%}",
        prediction_error("dpo-8b-saved"),
    ),
    Target("DPO 1.5B, predicted peak off by", 0.05, False, "{:.1%}", prediction_error("dpo-1.5b")),
    Target("PPO 8B, predicted peaks off by", 0.05, False, "{:.1%}", prediction_error("ppo-8b")),
    Target("PPO 1.5B, predicted peaks off by", 0.05, False, "{:.1%}", prediction_error("ppo-1.5b")),
    Target("PPO 8B, peak memory", 12, False, "{:.1f} GiB", ppo_peak),
    Target(
        "decoding 8B, 32 rows, of the memory floor's speed", 0.5, True, "{:.0%}", decoding_speed
    ),
    Target("FlexAttention, compilations given up", 0, False, "{:.0f}", stopped_compilations),
)


def rows(sections: Sections) -> list[Row]:
    """All rows."""
    return [target.row(sections) for target in TARGETS]


def text(sections: Sections) -> str:
    """The rows as a table for a terminal."""
    lines = [f"{'':50} {'measured':>10}   {'target':20} "]
    for row in rows(sections):
        lines.append(f"{row.name:50} {row.measured:>10}   {row.target:20} {row.verdict}")
    return "\n".join(lines)
