"""``lit-align label``: a web page where people compare answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lit_align.cli.command import check_port_free, parse_arguments, settings_parser
from lit_align.errors import ConfigError
from lit_align.labelling.campaign import Campaign

if TYPE_CHECKING:
    from lit_align.labelling.store import Store


def run(arguments: list[str]) -> None:
    """Add the tasks, print the links, and serve the page until it is stopped."""
    campaign = _parse_campaign(arguments)
    try:
        import uvicorn

        from lit_align.labelling.app import build_app
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; the page needs pip install 'lit-align[label]'"
        ) from error
    from lit_align.labelling.store import Store

    check_port_free(campaign.host, campaign.port)
    store = Store(campaign.store, campaign.votes, campaign.gold_every, campaign.session_days)
    _add_tasks(store, campaign, campaign.tasks, gold=False)
    _add_tasks(store, campaign, campaign.gold, gold=True)
    if not store.fetch_one("SELECT 1 FROM tasks"):
        raise ConfigError(f"{campaign.store} has no tasks; give a file of them with --tasks")
    _print_links(store, campaign)
    # no access log: the first request of each annotator has the token in its address
    options: dict[str, Any] = {"host": campaign.host, "port": campaign.port, "access_log": False}
    uvicorn.run(build_app(store, campaign), log_level="warning", server_header=False, **options)


def _parse_campaign(arguments: list[str]) -> Campaign:
    parser = settings_parser("lit-align label", __doc__.partition(": ")[2])
    parser.add_class_arguments(Campaign)
    _, settings = parse_arguments(parser, arguments, [field.name for field in fields(Campaign)])
    values = settings.as_dict()
    values.pop("config", None)
    return Campaign(**values)


def _add_tasks(store: Store, campaign: Campaign, paths: Sequence[str], gold: bool) -> None:
    """Add the tasks of these files, answered by the campaign's runs if it has any."""
    if not paths:
        return
    import lit_align
    from lit_align.data.column_fates import ColumnSettings
    from lit_align.data.read_groups import DataSource, load_groups
    from lit_align.plugins import load_plugins
    from lit_align.stages.answering import add_responses
    from lit_align.types import LabelKind

    source = ", ".join(paths)
    groups = load_groups(
        DataSource(
            paths,
            LabelKind.RESPONSES,
            formats=load_plugins().formats.default_instances(),
            max_malformed=1.0,
            on_ledger=lambda ledger: print(ledger.table()),
            columns=ColumnSettings(read={campaign.uncertainty}),
        )
    )
    if campaign.runs and not gold:  # two answers of one run, or one of each of two
        responders = (lit_align.load(run).responder for run in campaign.runs)
        groups = add_responses(responders, groups, 3 - len(campaign.runs))
        source += f", answered by {' and '.join(campaign.runs)}"
    uncertainty = "" if gold else campaign.uncertainty
    num_tasks = store.add_tasks(groups, campaign.ask, gold, uncertainty)
    if not num_tasks:
        raise ConfigError(
            f"{source} has nothing to {campaign.ask}; give prompts with responses, or --runs"
        )
    print(f"{num_tasks} {'gold ' if gold else ''}tasks from {source}")


def _print_links(store: Store, campaign: Campaign) -> None:
    print(f"admin: {campaign.link(store.invite('admin', admin=True))}")
    for name in campaign.annotators:
        token = store.invite_once(name)
        if token:
            print(f"{name}: {campaign.link(token)}")
        else:
            print(f"{name}: has a link; the admin page makes another")
    print(
        "A link is shown once and is valid until it is replaced. Ctrl-C stops; every vote is saved.",
        flush=True,
    )
