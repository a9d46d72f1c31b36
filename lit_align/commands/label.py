"""``lit-align label``: a web page where people compare answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from lit_align.batches import Group
from lit_align.errors import ConfigError
from lit_align.labelling.campaign import Campaign


def run(arguments: list[str]) -> None:
    """Take up the tasks, print the links, and serve until it is stopped."""
    campaign = _campaign(arguments)
    try:
        import uvicorn

        from lit_align.labelling.page import build
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; the page needs pip install 'lit-align[label]'") from error
    from lit_align.evaluation.reward_bench import whole_groups
    from lit_align.labelling.store import Store

    store = Store(campaign.store, campaign.votes, campaign.gold_every)
    for paths, gold in ((campaign.tasks, False), (campaign.gold, True)):
        if not paths:
            continue
        what = ", ".join(paths)
        groups = whole_groups(paths, None, "responses", 0.01, lambda ledger: print(ledger.table()))
        if campaign.runs and not gold:
            groups = answered(campaign.runs, groups)
        count = store.add(groups, campaign.ask, gold, "" if gold else campaign.uncertainty)
        if not count:
            raise ConfigError(f"{what} has nothing to {campaign.ask}; give prompts with responses, or --runs")
        print(f"{count} {'gold ' * gold}tasks from {what}")
    if not store.db.execute("SELECT 1 FROM tasks").fetchone():
        raise ConfigError(f"{campaign.store} has no tasks; give a file of them with --tasks")
    address = f"http://{campaign.host}:{campaign.port}/in/"
    print(f"admin: {address}{store.invite('admin', admin=True)}")
    for name in campaign.annotators:
        token = store.invite(name, renew=False)
        print(f"{name}: {address}{token}" if token else f"{name}: has a link; the admin page makes another")
    print("A link is shown once and let in until it is replaced. Ctrl-C stops; every vote is kept.", flush=True)
    # no access log: the first request of each annotator has the token in its address
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    uvicorn.run(build(store, campaign), host=campaign.host, port=campaign.port, **settings)


def _campaign(arguments: Sequence[str]) -> Campaign:
    from jsonargparse import ArgumentError, ArgumentParser

    from lit_align.explain import explain

    parser = ArgumentParser("lit-align label", description=__doc__.partition(": ")[2], exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="YAML with these settings.")
    parser.add_class_arguments(Campaign)
    try:
        settings = parser.parse_args(list(arguments)).as_dict()
    except ArgumentError as error:
        raise ConfigError(explain(str(error), [field.name for field in fields(Campaign)])) from error
    return Campaign(**{name: value for name, value in settings.items() if name != "config"})


def answered(runs: Sequence[str], groups: Sequence[Group]) -> list[Group]:
    """The prompts of the groups with two answers: both of one run, or one of each of two; other columns are kept."""
    import lit_align
    from lit_align.data.prepare import SELECT
    from lit_align.rewards.base import answer
    from lit_align.stages.answers import replies

    made = [SELECT["prompts"](group) for group in groups]
    for run in runs:
        stage: Any = lit_align.load(run)
        said = replies(stage, groups, samples=3 - len(runs), temperature=stage.temperature or 1.0)
        made = [
            group._replace(responses=[*group.responses, *(answer(group, text) for text in several)])
            for group, several in zip(made, said, strict=True)
        ]
        print(f"{len(made)} prompts answered by {run}")
    return made
