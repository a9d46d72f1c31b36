"""Check of what every format must satisfy."""

from __future__ import annotations

from typing import Any

from lit_align.data.formats import Format, Row
from lit_align.errors import RowError
from lit_align.plugin_contracts import group_fault, kinds_fault, pair_fault
from lit_align.plugin_signatures import signature_fault
from lit_align.testing.objective_checks import call, hold, require
from lit_align.types import Group, Pair, SolutionStep

LABEL_KINDS = {"pairs", "demonstrations", "desirable", "ranking", "ratings", "steps"}


def check_format(row_format: Format, row: Row) -> Group:
    """Fail unless ``row_format`` recognises ``row`` and makes a valid group of it; returns the group, to look at.

    Args:
        row_format: the format to check.
        row: a row that it should read.

    Raises:
        AssertionError: if a property does not hold.

    Example:
        >>> from lit_align.data.formats.alpaca import Alpaca
        >>> check_format(Alpaca(), {"instruction": "Name a bird.", "output": "Owl."}).responses
        [[{'role': 'assistant', 'content': 'Owl.'}]]
    """
    name = type(row_format).__name__
    kinds: Any = getattr(row_format, "label_kinds", None)
    hold(kinds_fault(row_format, kinds, sorted(LABEL_KINDS)))
    hold(signature_fault(row_format))
    is_recognised = call(row_format, row_format.recognises, row)
    require(is_recognised is True, f"{name} does not recognise the row")
    require(row_format.recognises({}) is False, f"{name} recognises a row without columns")
    row_before = repr(row)
    group = call(row_format, row_format, row)
    hold(group_fault(row_format, group))
    require(repr(row) == row_before, f"{name} changes the row it is given")
    require(
        row_format(row) == group, f"{name} makes another group of the same row in a second call"
    )
    _check_group(name, group)
    labelled = {"pairs": group.pairs, "desirable": group.desirable, "steps": group.steps}
    for kind, labels in labelled.items():
        require(
            not labels or kind in kinds,
            f"{name} returns labels of the kind {kind!r}, but {name}.label_kinds does not list it",
        )
    _check_columns(row_format, row, group)
    return group


def _check_columns(row_format: Format, row: Row, group: Group) -> None:
    """Fail if a column is neither read nor handed on: its value must change the group, unless it is in ``extra``."""
    for column in row.keys() - group.extra.keys():
        try:
            changed = row_format({**row, column: {"changed": True}})
        except RowError:
            continue
        require(
            changed != group,
            f"{type(row_format).__name__} does not read the column {column!r} and leaves it out of extra",
        )


def _check_group(name: str, group: Group) -> None:
    require(
        bool(group.prompt) or group.prompt == "", f"{name} returns an empty list of prompt messages"
    )
    require(
        bool(group.responses) and all(group.responses),
        f"{name} returns no response, or an empty one: {group.responses}",
    )
    num_responses = len(group.responses)
    for pair in group.pairs:
        check_pair(name, pair, num_responses)
    for steps in group.steps:
        check_steps(name, steps)


def check_steps(name: str, steps: Any) -> None:
    """Fail unless ``steps`` are those of a response, each with a text and a label from 0 to 1 or None.

    Args:
        name: what returned them.
        steps: to check.
    """
    require(
        isinstance(steps, tuple) and all(isinstance(step, SolutionStep) for step in steps),
        f"{name} returns {steps} as the steps of a response; return a tuple of SolutionStep(text, label)",
    )
    for step in steps:
        require(bool(step.text.strip()), f"{name} returns a step without text: {step}")
        require(
            step.label is None or 0 <= step.label <= 1,
            f"{name} returns {step}, whose label is not from 0 to 1 or None",
        )


def check_pair(name: str, pair: Pair, num_responses: int) -> None:
    """Fail unless ``pair`` compares two of ``num_responses``, the more probable order first; ``name`` returned it."""
    hold(pair_fault(name, pair, num_responses))
    require(
        0.5 < pair.probability <= 1,
        f"{name} returns {pair}, whose probability is not over 0.5 and at most 1",
    )
