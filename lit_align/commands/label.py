"""``lit-align label``: a web page where people compare answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.batches import Group
from lit_align.errors import ConfigError
from lit_align.labelling.campaign import Campaign

if TYPE_CHECKING:
    from lit_align.data.formats import Format


def run(arguments: list[str]) -> None:
    """Take up the tasks, print the links, and serve until it is stopped.

    Raises:
        ConfigError: if there is nothing to ask, or the settings are not sound.
        DataError: if the tasks cannot be read.
    """
    campaign = _campaign(arguments)
    try:
        import uvicorn

        from lit_align.labelling.page import build
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; the page needs pip install 'lit-align[label]'") from error
    from lit_align.labelling.store import Store
    from lit_align.labelling.tasks import load
    from lit_align.plugins import load_plugins

    formats = [layout() for layout in load_plugins().registries["register_formats"].values()]
    store = Store(campaign.store, campaign.votes, campaign.gold_every)
    column = campaign.uncertainty if campaign.order == "disagreement" else ""
    for paths, gold in ((campaign.tasks, False), (campaign.gold, True)):
        if not paths:
            continue
        sampled = campaign.runs and not gold
        groups = answered(campaign.runs, paths, formats) if sampled else load(paths, formats)
        count = store.add(groups, campaign.ask, gold, "" if gold else column)
        if not count:
            raise ConfigError(
                f"{', '.join(paths)} has nothing to {campaign.ask}; give prompts with responses, or --runs"
            )
        print(f"{count} {'gold ' * gold}tasks from {', '.join(paths)}")
    if not store.db.execute("SELECT 1 FROM tasks").fetchone():
        raise ConfigError(f"{campaign.store} has no tasks; give a file of them with --tasks")
    address = f"http://{campaign.host}:{campaign.port}/in/"
    print(f"admin: {address}{store.invite('admin', admin=True)}")
    for name in campaign.annotators:
        token = store.invite(name, renew=False)
        print(f"{name}: {address}{token}" if token else f"{name}: has a link; the admin page makes another")
    print("A link is shown once and let in until it is replaced. Ctrl-C stops; every vote is kept.", flush=True)
    # no access log: the first request of each annotator has the token in its address
    quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    uvicorn.run(build(store, campaign), host=campaign.host, port=campaign.port, **quiet)


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


def answered(runs: Sequence[str], paths: Sequence[str], formats: Sequence[Format]) -> list[Group]:
    """The prompts of ``paths`` with two answers: both of one run, or one of each of two.

    Args:
        runs: folders of one run or two.
        paths: files of prompts; what they hold besides is kept but not shown.
        formats: layouts to choose from.
    """
    import lit_align
    from lit_align.data.chat import Chat
    from lit_align.data.prepare import prepare
    from lit_align.rewards.base import answer
    from lit_align.stages.answers import ask

    made: dict[str, Group] = {}
    for run in runs:
        stage = lit_align.load(run)
        chat = Chat(stage.tokenizer, max_length=2048)
        trees, _ = prepare(paths, None, chat, "prompts", 0.01, formats, lambda ledger: print(ledger.table()))
        said = ask(stage, [tree.prompt for tree in trees], samples=3 - len(runs), temperature=stage.temperature or 1.0)
        for tree, several in zip(trees, said, strict=True):
            group = made.setdefault(tree.group.source, tree.group)
            given = [answer(group, text) for text, _ in several]
            made[group.source] = group._replace(responses=[*group.responses, *given])
        print(f"{len(trees)} prompts answered by {Path(run)}")
    kept = [group for group in made.values() if len({str(one) for one in group.responses}) > 1]
    if len(kept) < len(made):
        print(f"{len(made) - len(kept)} prompts are left out, which did not get two different answers")
    return kept
