"""``lit-align label``: a web page where people compare answers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lit_align.cli.command import check_free, parse, reader
from lit_align.errors import ConfigError
from lit_align.labelling.campaign import Campaign


def run(arguments: list[str]) -> None:
    """Take up the tasks, print the links, and serve until it is stopped."""
    parser = reader("lit-align label", __doc__.partition(": ")[2])
    parser.add_class_arguments(Campaign)
    _, settings = parse(parser, arguments, [field.name for field in fields(Campaign)])
    campaign = Campaign(
        **{name: value for name, value in settings.as_dict().items() if name != "config"}
    )
    try:
        import uvicorn

        from lit_align.labelling.app import build
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; the page needs pip install 'lit-align[label]'"
        ) from error
    import lit_align
    from lit_align.callbacks.predictions import answered
    from lit_align.evaluation.reward_bench import whole_groups
    from lit_align.labelling.store import Store

    check_free(campaign.host, campaign.port)
    store = Store(campaign.store, campaign.votes, campaign.gold_every)
    for paths, gold in ((campaign.tasks, False), (campaign.gold, True)):
        if not paths:
            continue
        what = ", ".join(paths)
        groups = whole_groups(paths, None, "responses", 1.0, lambda ledger: print(ledger.table()))
        if campaign.runs and not gold:  # two answers of one run, or one of each of two
            groups = answered(map(lit_align.load, campaign.runs), groups, 3 - len(campaign.runs))
            what += f", answered by {' and '.join(campaign.runs)}"
        count = store.add(groups, campaign.ask, gold, "" if gold else campaign.uncertainty)
        if not count:
            raise ConfigError(
                f"{what} has nothing to {campaign.ask}; give prompts with responses, or --runs"
            )
        print(f"{count} {'gold ' * gold}tasks from {what}")
    if not store.db.execute("SELECT 1 FROM tasks").fetchone():
        raise ConfigError(f"{campaign.store} has no tasks; give a file of them with --tasks")
    address = f"http://{campaign.host}:{campaign.port}/in/"
    print(f"admin: {address}{store.invite('admin', admin=True)}")
    for name in campaign.annotators:
        token = store.invite(name, renew=False)
        print(
            f"{name}: {address}{token}"
            if token
            else f"{name}: has a link; the admin page makes another"
        )
    print(
        "A link is shown once and let in until it is replaced. Ctrl-C stops; every vote is kept.",
        flush=True,
    )
    # no access log: the first request of each annotator has the token in its address
    listen: dict[str, Any] = {"host": campaign.host, "port": campaign.port, "access_log": False}
    uvicorn.run(build(store, campaign), log_level="warning", server_header=False, **listen)
