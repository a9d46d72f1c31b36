"""The groups that tasks are made of: read from files, answered by runs, and checked before a store holds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import lit_align
from lit_align.data.column_fates import ColumnSettings
from lit_align.data.ledger import Ledger
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.errors import ConfigError, DataError
from lit_align.labelling.campaign import gold_answer, task_members, uncertainty_of
from lit_align.plugins import load_plugins
from lit_align.stages.answering import add_responses
from lit_align.types import Group, LabelKind


def print_ledger(ledger: Ledger) -> None:
    """Print what became of the rows."""
    print(ledger.table())


def load_task_groups(
    paths: Sequence[str],
    read: Sequence[str] = (),
    on_ledger: Callable[[Ledger], None] = print_ledger,
) -> list[Group]:
    """The groups of these files, with the labels that they have; none for no file.

    Args:
        paths: files or hub data sets.
        read: further columns that the caller reads.
        on_ledger: called with what became of the rows.
    """
    if not paths:
        return []
    source = DataSource(
        list(paths),
        LabelKind.RESPONSES,
        formats=load_plugins().formats.default_instances(),
        max_malformed=1.0,
        on_ledger=on_ledger,
        columns=ColumnSettings(read=set(filter(None, read))),
    )
    return load_groups(source)


def answer_groups(groups: Sequence[Group], runs: Sequence[str]) -> list[Group]:
    """The groups with two answers of one run, or one of each of two, instead of the responses that they have."""
    responders = (lit_align.load(run).responder for run in runs)
    return list(add_responses(responders, groups, 3 - len(runs)))


def check_tasks(
    groups: Sequence[Group], kind: str, source: str, gold: bool = False, uncertainty: str = ""
) -> None:
    """Refuse groups of which a store could make no task.

    Args:
        groups: what tasks are made of.
        kind: how the tasks are answered.
        source: where the groups come from, for the message.
        gold: whether the answers must be known.
        uncertainty: column that must hold a number.

    Raises:
        ConfigError: if nothing can be asked about, or the column holds something else.
        DataError: if a text cannot be stored.
    """
    num_tasks = 0
    for group in groups:
        if uncertainty:
            uncertainty_of(group, uncertainty)
        try:
            json.dumps([group.prompt, group.responses], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{group.source} has half of a surrogate pair; leave that row out"
            ) from error
        members = task_members(group, kind)
        if gold:
            members = [each for each in members if gold_answer(group, kind, each)]
        num_tasks += len(members)
    if not num_tasks:
        remedy = "give rows with labels" if gold else "give prompts with responses, or --runs"
        raise ConfigError(f"{source} has nothing to {kind}; {remedy}")
