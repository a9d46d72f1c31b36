"""From files to trees, with the fate of every row on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from lit_align.data.formats import Format, Row, recognise
from lit_align.data.ledger import Ledger
from lit_align.data.readers import Found, read
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import DataError, Malformed, Overlong, SetAside
from lit_align.types import UNRANKED, Group, Pair, Text, Tree


def prepare(
    paths: Sequence[str],
    format: Format | None,
    chat: ChatTokenizer,
    label_kind: str,
    max_malformed: float,
    formats: Sequence[Format] = (),
    show: Callable[[Ledger], object] = lambda ledger: None,
    attributes: Sequence[str] = (),
) -> tuple[list[Tree], Ledger]:
    """Read, understand and tokenise all rows of all files.

    Args:
        paths: files or hub data sets.
        format: the layout of the rows; None finds it, for each path, from the first row that has one.
        chat: turns groups into ids.
        label_kind: the label that is trained on: ``"pairs"``, ``"demonstrations"``, ``"desirable"``, ``"ranking"``,
            ``"ratings"``, ``"prompts"``, or ``"responses"`` for the groups as they are.
        max_malformed: largest share of malformed rows, of all paths together.
        formats: the layouts to choose from if ``format`` is None.
        show: is given the ledger before it is checked: it is needed most when the data are refused.
        attributes: which ratings are trained on; any if empty.

    Raises:
        DataError: if a path, or the data as a whole, cannot be used.
    """
    select = (
        partial(rated, attributes=attributes) if label_kind == "ratings" else SELECT[label_kind]
    )
    ledger = Ledger(", ".join(paths))
    trees: list[Tree] = []
    for path in paths:
        rows = list(read(path))
        layout = format or _layout(rows, formats, path)
        if not layout.label_kinds & FROM[label_kind]:
            raise DataError(
                f"{path} has the layout {type(layout).__name__}, which gives {' and '.join(sorted(layout.label_kinds))}, but "
                f"{label_kind} are needed; use other data or another objective"
            )
        ledger.rows += len(rows)
        for source, row in rows:
            _enter(source, row, layout, select, chat, trees, ledger)
    show(ledger)
    ledger.check(max_malformed)
    return trees, ledger


def _layout(rows: list[Found], formats: Sequence[Format], path: str) -> Format:
    """The layout of the first row that has one."""
    sound = [row for _, row in rows if not isinstance(row, Malformed)]
    if not sound:
        raise DataError(
            f"none of the {len(rows)} rows of {path} can be read{_why(rows)}; correct the file"
        )
    for row in sound:
        if any(layout.recognises(row) for layout in formats):
            return recognise(row, formats)
    return recognise(sound[0], formats)


def _why(rows: list[Found]) -> str:
    return f" (the first, {rows[0][0]}, is {rows[0][1]})" if rows else ""


def _enter(
    source: str,
    row: Row | Malformed,
    layout: Format,
    select: Callable[[Group], Group],
    chat: ChatTokenizer,
    trees: list[Tree],
    ledger: Ledger,
) -> None:
    """Take one row as far as it goes, and write down where that was."""
    try:
        if isinstance(row, Malformed):
            raise row
        group = layout(row)._replace(source=source)
        selected = select(group)
        encoded = chat.encode(selected)
    except Malformed as reason:
        ledger.add(source, "malformed", str(reason))
    except SetAside as reason:
        ledger.add(source, "set aside", str(reason))
    except Overlong as reason:
        ledger.add(source, "overlong", str(reason))
    else:
        if encoded.cut:
            lost = f"{encoded.ends_lost} of {len(selected.responses)} responses lost the end"
            ledger.add(
                source, "truncated", f"{lost}: longer than max_length, and overlong is truncate"
            )
        else:
            better = select is imitable and len(selected.responses) < len(group.responses)
            ledger.add(
                source,
                "kept",
                "only the better response of a comparison is imitated" if better else "",
            )
        ledger.measure(*encoded)
        trees.append(encoded.tree)


def likelier(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Comparisons the likelier way round, without those that are a coin toss."""
    return tuple(
        pair
        if pair.probability > 0.5
        else Pair(pair.worse, pair.better, 1 - pair.probability, -pair.margin)
        for pair in pairs
        if pair.probability != 0.5
    )


def compared(group: Group) -> Group:
    """The responses that are compared, and what they are all to be held to, if there is such a one."""
    pairs = group.pairs or _implied(group.ranking)
    if not pairs:
        raise SetAside("no comparison")
    keep = {i for pair in pairs for i in (pair.better, pair.worse)}
    keep |= set() if group.target is None else {group.target}
    return _only(group._replace(pairs=pairs, desirable=(), ranking=(), ratings=()), keep)


def imitable(group: Group) -> Group:
    """The responses worth imitating: liked, if they were judged, and the worse of no comparison."""
    worse = {pair.worse for pair in likelier(group.pairs)}
    liked = group.desirable or (True,) * len(group.responses)
    best = min(filter(None, group.ranking), default=0)
    first = [place == best for place in group.ranking] or [True] * len(group.responses)
    worth = {i for i, likes in enumerate(liked) if likes and first[i] and i not in worse}
    if not worth:
        raise SetAside("no response worth imitating")
    return _only(group._replace(pairs=(), desirable=(), ranking=(), ratings=(), target=None), worth)


def held_up(group: Group) -> Text:
    """The answer: the target, else the first response worth imitating."""
    return (
        group.responses[group.target] if group.target is not None else imitable(group).responses[0]
    )


def judged(group: Group) -> Group:
    """The responses with thumbs: their own, or up for what is only ever the better of a pair and down for the worse."""
    if group.desirable:
        return group._replace(pairs=(), ranking=(), ratings=(), target=None)
    pairs = likelier(group.pairs) or _implied(group.ranking)
    better, worse = {pair.better for pair in pairs}, {pair.worse for pair in pairs}
    if not better ^ worse:
        raise SetAside("no thumb up or down")
    unpaired = tuple(i in better for i in range(len(group.responses)))
    return _only(
        group._replace(pairs=(), ranking=(), ratings=(), target=None, desirable=unpaired),
        better ^ worse,
    )


def ranked(group: Group) -> Group:
    """The group, if it has a ranking that says anything; one comparison of two responses is one."""
    ranking = group.ranking
    pairs = likelier(group.pairs)
    if not ranking and len(pairs) == 1 and len(group.responses) == 2:
        ranking = (1, 2) if pairs[0].better == 0 else (2, 1)
    if not ranking:
        raise SetAside("no ranking")
    if len(set(ranking)) == 1:
        raise SetAside("a ranking that ties all responses")
    return group._replace(pairs=(), desirable=(), target=None, ranking=ranking, ratings=())


def rated(group: Group, attributes: Sequence[str] = ()) -> Group:
    """The responses that were rated in one of ``attributes``; in any if none is named."""
    keep = {
        i
        for i, one in enumerate(group.ratings)
        if (one.keys() & set(attributes) if attributes else one)
    }
    if not keep:
        raise SetAside(f"no rating of {' or '.join(attributes)}" if attributes else "no rating")
    return _only(group._replace(pairs=(), desirable=(), ranking=(), target=None), keep)


def asked(group: Group) -> Group:
    """The prompt alone; what the row holds besides is kept for rewards."""
    return group._replace(responses=[], pairs=(), desirable=(), ranking=(), ratings=(), target=None)


SELECT: dict[str, Callable[[Group], Group]] = {
    "pairs": compared,
    "demonstrations": imitable,
    "desirable": judged,
    "ranking": ranked,
    "ratings": rated,
    "prompts": asked,
    "responses": lambda group: group,
}
"""What is kept of a group for each kind of label."""

ANY = {"prompts", "demonstrations", "pairs", "desirable", "ranking", "ratings"}

FROM = {
    "pairs": {"pairs", "ranking"},
    "demonstrations": {"demonstrations"},
    "desirable": {"desirable", "pairs", "ranking"},
    "ranking": {"ranking", "pairs"},
    "ratings": {"ratings"},
    "prompts": ANY,
    "responses": ANY,
}
"""The labels that each kind can be made from."""


def _implied(ranking: tuple[int, ...]) -> tuple[Pair, ...]:
    """Every comparison that a ranking implies; ties imply none."""
    places = [(i, place or UNRANKED) for i, place in enumerate(ranking)]
    return tuple(Pair(i, j) for i, a in places for j, b in places if a < b)


def _only(group: Group, keep: set[int]) -> Group:
    """The group with the responses ``keep``, renumbered."""
    number = {old: new for new, old in enumerate(sorted(keep))}
    return group._replace(
        responses=[group.responses[i] for i in number],
        pairs=tuple(Pair(number[p.better], number[p.worse], *p[2:]) for p in group.pairs),
        desirable=tuple(group.desirable[i] for i in number) if group.desirable else (),
        ranking=tuple(group.ranking[i] for i in number) if group.ranking else (),
        ratings=tuple(group.ratings[i] for i in number) if group.ratings else (),
        target=None if group.target is None else number[group.target],
    )
