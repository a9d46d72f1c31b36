"""``lit-align label``: a web page where people compare answers."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lit_align.cli.command import check_port_free, parse_arguments, settings_parser
from lit_align.errors import ConfigError
from lit_align.labelling.campaign import ALL_ADDRESSES, Campaign
from lit_align.labelling.store_commands import COMMANDS, run_store_command
from lit_align.labelling.votes import TASK_KINDS

if TYPE_CHECKING:
    from lit_align.labelling.introduction import Introduction
    from lit_align.labelling.store import Store
    from lit_align.types import Group


class TaskGroups(NamedTuple):
    """What tasks are made of: groups to ask about, and groups with a known answer."""

    tasks: list[Group]
    gold: list[Group]


def run(arguments: list[str]) -> None:
    """Add the tasks, print the links, and serve the page until it is stopped; or run a command on a store."""
    if arguments and not arguments[0].startswith("-"):
        run_store_command(arguments[0], arguments[1:])
        return
    campaign = parse_campaign(arguments)
    try:
        import uvicorn

        from lit_align.labelling.app import build_app
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; the page needs pip install 'lit-align[label]'"
        ) from error
    check_port_free(campaign.host, campaign.port)
    is_new = not Path(campaign.store).exists()
    # a store that cannot be used is refused before runs answer, and none is made before the tasks are checked
    store = None if is_new else _open_store(campaign)
    kind = _choose_kind(store, campaign)
    introduction = _load_introduction(campaign, kind)
    groups = _load_groups(campaign, kind, has_tasks=store is not None and store.has_tasks)
    store = store or _open_store(campaign)
    _add_tasks(store, campaign, kind, groups)
    store.set_state("flags", campaign.flags)  # for exports while no page is open
    _print_links(store, campaign)
    # no access log: the first request of each annotator has the token in its address
    options: dict[str, Any] = {"host": campaign.host, "port": campaign.port, "access_log": False}
    app = build_app(store, campaign, introduction)
    uvicorn.run(app, log_level="warning", server_header=False, **options)


def _choose_kind(store: Store | None, campaign: Campaign) -> str:
    """How tasks and examples of the settings are answered.

    Raises:
        ConfigError: if the store says otherwise, or does not say and the settings neither.
    """
    from lit_align.labelling.administration import choose_kind

    has_own = campaign.tasks or campaign.gold or campaign.examples
    if store is None or (campaign.ask is None and not has_own):
        return campaign.ask or TASK_KINDS[0]
    return choose_kind(store, campaign.ask)


def _open_store(campaign: Campaign) -> Store:
    from lit_align.labelling.store import Store

    store = Store(campaign.store, None, campaign.gold_every, campaign.session_days)
    _choose_kind(store, campaign)  # refused before anything is written
    if campaign.votes not in (None, store.votes):
        if store.has_tasks:
            print(f"{campaign.votes} votes per task instead of {store.votes}")
        store.votes = campaign.votes
    return store


def parse_campaign(arguments: list[str]) -> Campaign:
    """The settings of a page.

    Raises:
        ConfigError: if they are not valid.
    """
    commands = f"Commands on its store: lit-align label {{{','.join(COMMANDS)}}} --help."
    parser = settings_parser("lit-align label", f"{__doc__.partition(': ')[2]} {commands}")
    parser.add_class_arguments(Campaign)
    _, settings = parse_arguments(parser, arguments, [field.name for field in fields(Campaign)])
    values = settings.as_dict()
    values.pop("config", None)
    return Campaign(**values)


def _load_introduction(campaign: Campaign, kind: str) -> Introduction:
    """What annotators read and try first."""
    from lit_align.labelling.introduction import (
        EXPLANATION,
        Introduction,
        make_examples,
        read_guidelines,
    )
    from lit_align.labelling.task_files import load_task_groups

    guidelines = read_guidelines(campaign.guidelines)
    if not campaign.examples:
        return Introduction(guidelines)
    groups = load_task_groups(campaign.examples, [EXPLANATION])
    return Introduction(guidelines, make_examples(groups, kind))


def _load_groups(campaign: Campaign, kind: str, has_tasks: bool) -> TaskGroups:
    """The groups of the tasks and of the gold tasks, answered by the campaign's runs if it has any.

    Raises:
        ConfigError: if no task can be made of them, and there is none yet.
    """
    from lit_align.labelling.task_files import answer_groups, check_tasks, load_task_groups

    if not has_tasks and not campaign.tasks and not campaign.gold:
        raise ConfigError(f"{campaign.store} has no tasks; give a file of them with --tasks")
    if not Path(campaign.store).resolve().parent.is_dir():
        raise ConfigError(
            f"{campaign.store} is in a folder that does not exist; make it, or name another file"
        )
    gold = load_task_groups(campaign.gold)
    if campaign.gold:
        check_tasks(gold, kind, ", ".join(campaign.gold), gold=True)
    groups = load_task_groups(campaign.tasks, [campaign.uncertainty])
    if campaign.runs:  # two answers of one run, or one of each of two
        groups = answer_groups(groups, campaign.runs)
    if campaign.tasks:
        check_tasks(groups, kind, _source(campaign), uncertainty=campaign.uncertainty)
    return TaskGroups(groups, gold)


def _source(campaign: Campaign) -> str:
    """Where the tasks come from, in words."""
    source = ", ".join(campaign.tasks)
    return f"{source}, answered by {' and '.join(campaign.runs)}" if campaign.runs else source


def _add_tasks(store: Store, campaign: Campaign, kind: str, groups: TaskGroups) -> None:
    if campaign.tasks:
        count = store.add_tasks(groups.tasks, kind, uncertainty=campaign.uncertainty)
        print(f"{count} tasks from {_source(campaign)}")
    if campaign.gold:
        count = store.add_tasks(groups.gold, kind, gold=True)
        print(f"{count} gold tasks from {', '.join(campaign.gold)}")


def _print_links(store: Store, campaign: Campaign) -> None:
    if store.has_ended:
        print(
            "The campaign has ended: answers are shown and not recorded until the admin page opens it again."
        )
    if campaign.host in ALL_ADDRESSES and not campaign.public_url:
        print(
            "The links name this machine; --public_url gives another address that others reach it by."
        )
    print(f"admin: {campaign.link(store.invite('admin', admin=True))}")
    for name in campaign.annotators:
        token = store.invite_once(name)
        if token:
            print(f"{name}: {campaign.link(token)}")
        elif store.has_ended_link(name):
            print(f"{name}: the link was ended; the admin page makes another")
        else:
            print(f"{name}: has a link; the admin page makes another")
    print(
        "A link is shown once and is valid until it is replaced. Ctrl-C stops; every vote is saved.",
        flush=True,
    )
