"""What every format must satisfy."""

from __future__ import annotations

from lit_align.data.formats import Format, Row
from lit_align.testing.objective_checks import require
from lit_align.types import Group, Pair

LABELS = {"pairs", "demonstrations", "desirable", "ranking", "ratings"}


def check_format(layout: Format, row: Row) -> Group:
    """Fail unless ``layout`` recognises ``row`` and makes a sound group of it; the group, to look at.

    Args:
        layout: the format to check.
        row: a row that it should read.

    Raises:
        AssertionError: if a promise is broken.

    Example:
        >>> from lit_align.data.formats.alpaca import Alpaca
        >>> check_format(Alpaca(), {"instruction": "Name a bird.", "output": "Owl."}).responses
        [[{'role': 'assistant', 'content': 'Owl.'}]]
    """
    name = type(layout).__name__
    require(bool(layout.label_kinds) and layout.label_kinds <= LABELS, f"{name}.gives is wrong")
    require(layout.recognises(row) is True, f"{name} does not recognise the row")
    require(layout.recognises({}) is False, f"{name} recognises a row without columns")
    before = repr(row)
    group = layout(row)
    require(repr(row) == before, f"{name} changes the row it is given")
    require(layout(row) == group, f"{name} makes another group of the same row")
    require(
        bool(group.prompt) or group.prompt == "", f"{name} leaves the messages of the prompt empty"
    )
    require(
        bool(group.responses) and all(group.responses), f"{name} gives no response, or an empty one"
    )
    count = len(group.responses)
    for pair in group.pairs:
        check_pair(name, pair, count)
    require(
        len(group.desirable) in (0, count),
        f"{name} gives {len(group.desirable)} thumbs to {count} responses",
    )
    require(
        not group.pairs or "pairs" in layout.label_kinds,
        f"{name} gives pairs, but {name}.gives does not say so",
    )
    require(
        not group.desirable or "desirable" in layout.label_kinds,
        f"{name} gives thumbs, but {name}.gives does not say so",
    )
    return group


def check_pair(name: str, pair: Pair, count: int) -> None:
    """Fail unless ``pair`` is of two of ``count`` responses, the likelier way round; ``name`` gave it."""
    sides = {pair.better, pair.worse}
    require(
        len(sides) == 2 and sides <= set(range(count)),
        f"{name} compares {pair}, of {count} responses",
    )
    require(
        0.5 < pair.probability <= 1,
        f"{name} gives {pair} a probability that is not over 0.5 and up to 1",
    )
