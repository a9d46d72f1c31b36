"""``lit-align label COMMAND STORE``: what is done to a store from the command line, while the page is open or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser

from lit_align.checks import check_at_least, check_fraction
from lit_align.cli.command import Settings, parse_arguments
from lit_align.errors import ConfigError
from lit_align.jsonl import to_line
from lit_align.labelling.aggregation import AGGREGATORS, drop_unreliable, labelled_groups
from lit_align.labelling.personal_labels import personal_groups, with_hashed_names
from lit_align.labelling.social_choice import RANKINGS
from lit_align.labelling.votes import (
    TASK_KINDS,
    CampaignVotes,
    check_store_exists,
    read_flags,
    read_votes,
)

if TYPE_CHECKING:
    from lit_align.labelling.store import Store

MISSING = "the following arguments are required: "
FORMATS = ("labels", "annotators", "votes", "csv", "argilla", "label_studio")
NAMES = ("hashed", "clear")


@dataclass(frozen=True)
class StoreCommand:
    """A command with a store as its first argument.

    Args:
        description: what it does, in a sentence.
        run: called with the parsed arguments.
        arguments: its further arguments, by name.
    """

    description: str
    run: Callable[[Any], None]
    arguments: Settings = field(default_factory=dict)


def run_store_command(name: str, arguments: Sequence[str]) -> None:
    """Run one of `COMMANDS`.

    Raises:
        ConfigError: if there is no such command, or its arguments are not valid.
    """
    if name not in COMMANDS:
        raise ConfigError(
            f"label has no command {name!r}; there are {', '.join(COMMANDS)}, and without one it serves the page"
        )
    command = COMMANDS[name]
    parser = ArgumentParser(
        f"lit-align label {name}",
        description=command.description,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("store", type=str, help="File of lit-align label.")
    for argument, options in command.arguments.items():
        parser.add_argument(argument, **options)
    names = ["store", *(argument.lstrip("-") for argument in command.arguments)]
    try:
        parser.parse_args(list(arguments))
    except ArgumentError as error:
        _, is_missing, missing = str(error).partition(MISSING)
        if is_missing:
            raise ConfigError(
                f"lit-align label {name} needs {missing}; lit-align label {name} --help shows how"
            ) from error
    settings, _ = parse_arguments(parser, arguments, names)
    command.run(settings)


def _check_store(path: str) -> None:
    """Refuse what is no store, before anything is written to it."""
    check_store_exists(path)
    read_votes(path)


def _open_store(path: str) -> Store:
    from lit_align.labelling.store import Store

    _check_store(path)
    return Store(path)


def _end(settings: Any) -> None:
    from lit_align.labelling.administration import end_campaign

    end_campaign(_open_store(settings.store))
    print(f"{settings.store} takes no more answers; lit-align label reopen opens it again")


def _reopen(settings: Any) -> None:
    from lit_align.labelling.administration import reopen_campaign

    reopen_campaign(_open_store(settings.store))
    print(f"{settings.store} takes answers")


def _extend(settings: Any) -> None:
    check_at_least("votes", settings.votes, 1)
    store = _open_store(settings.store)
    previous = store.votes
    store.votes = settings.votes
    print(f"{settings.votes} votes per task instead of {previous}")
    if store.has_ended:
        print("The campaign has ended; lit-align label reopen lets them be given")


def _add(settings: Any) -> None:
    from lit_align.labelling.administration import add_new_tasks, describe_added, task_kind
    from lit_align.labelling.task_files import check_tasks, load_task_groups

    store = _open_store(settings.store)
    kind = settings.ask or task_kind(store)
    groups = load_task_groups(settings.tasks)
    check_tasks(groups, kind, ", ".join(settings.tasks))
    print(describe_added(add_new_tasks(store, groups, kind)))


def _remove(settings: Any) -> None:
    from lit_align.labelling.administration import remove_votes

    num_answers = remove_votes(_open_store(settings.store), settings.annotator)
    print(f"{num_answers} answers of {settings.annotator} no longer count; the link is ended")


def _import(settings: Any) -> None:
    from lit_align.labelling.vote_imports import import_votes, read_vote_file

    _check_store(settings.store)
    votes = read_vote_file(settings.file)
    imported = import_votes(_open_store(settings.store), votes)
    print(
        f"{imported.num_new} votes imported, {imported.num_known} were there already; "
        f"{imported.num_tasks} tasks were new"
    )


def _export(settings: Any) -> None:
    check_fraction(
        "min_gold_accuracy", settings.min_gold_accuracy, "it is a share of the gold tasks"
    )
    if settings.format == "annotators" and settings.aggregation:
        raise ConfigError(
            f"--aggregation is {settings.aggregation!r}, which makes one label of several people's votes, and --format "
            "annotators keeps them apart; leave --aggregation out, or export --format labels"
        )
    _check_store(settings.store)
    path = Path(settings.file)
    if path.exists():
        raise ConfigError(f"{path} is there already; name a file that is not")
    data = read_votes(settings.store)
    names = settings.names or NAMES[settings.format != "annotators"]
    if names == "hashed":
        data = with_hashed_names(data)
    text = _export_text(data, settings)
    try:
        path.write_text(text, "utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}; name another file") from error
    print(f"wrote {path}")


def _export_text(data: CampaignVotes, settings: Any) -> str:
    """What the file holds."""
    from lit_align.data.formats.groups import as_row
    from lit_align.labelling import vote_exports
    from lit_align.labelling.languages import usual_flags

    if settings.format == "votes":
        return "".join(map(to_line, vote_exports.vote_rows(data)))
    if settings.format == "csv":
        return "\ufeff" + vote_exports.vote_table(data, read_flags(settings.store) or usual_flags())
    if settings.format == "labels":
        reliable = drop_unreliable(data, settings.min_gold_accuracy)
        groups = labelled_groups(reliable, settings.aggregation or "share", settings.ranking)
        return "".join(to_line(as_row(group)) for _, group in groups)
    if settings.format == "annotators":
        reliable = drop_unreliable(data, settings.min_gold_accuracy)
        return "".join(
            to_line(as_row(group)) for _, group in personal_groups(reliable, settings.ranking)
        )
    to_rows = vote_exports.argilla_records
    if settings.format == "label_studio":
        to_rows = vote_exports.label_studio_tasks
    return json.dumps(to_rows(data), ensure_ascii=False, indent=1)


def _forget(settings: Any) -> None:
    from lit_align.labelling.forgetting import forget

    forgotten = forget(_open_store(settings.store), settings.annotator, settings.runs)
    print(forgotten.describe(settings.annotator, settings.store))


def _back_up(settings: Any) -> None:
    from lit_align.labelling.administration import back_up

    num_answers = back_up(settings.store, settings.copy)
    print(f"{num_answers} answers are in {settings.copy}")


COMMANDS = {
    "add": StoreCommand(
        "Add tasks to a campaign; rows that are asked about already are left out.",
        _add,
        {
            "tasks": {"type": str, "nargs": "+", "help": "Files of prompts with responses."},
            "--ask": {
                "type": str,
                "choices": list(TASK_KINDS),
                "help": "How people answer; as the other tasks if not given.",
            },
        },
    ),
    "backup": StoreCommand(
        "Copy a store that may be in use. Copying the file itself may lose the last votes, which are in its -wal file.",
        _back_up,
        {"copy": {"type": str, "help": "File to write, which must not exist."}},
    ),
    "end": StoreCommand("Take no more answers.", _end),
    "export": StoreCommand(
        "Write the labels or the votes to a file.",
        _export,
        {
            "file": {"type": str, "help": "File to write, which must not exist."},
            "--format": {
                "type": str,
                "choices": list(FORMATS),
                "default": "labels",
                "help": "Labels for training (JSON lines), those of each annotator apart (JSON lines), all votes (JSON "
                "lines), the votes that stand (CSV), or the votes for Argilla or Label Studio (JSON).",
            },
            "--names": {
                "type": str,
                "choices": list(NAMES),
                "help": "Whether annotators are named by salted hashes or in clear; if not given, hashed in the labels "
                "of each annotator and clear in votes, which other tools need.",
            },
            "--aggregation": {
                "type": str,
                "choices": list(AGGREGATORS),
                "help": "How several votes become a label; share if not given. The labels of each annotator apart are "
                "of one vote each.",
            },
            "--ranking": {
                "type": str,
                "choices": list(RANKINGS),
                "default": "borda",
                "help": "How comparisons of all of a group's responses become one ranking.",
            },
            "--min_gold_accuracy": {
                "type": float,
                "default": 0.0,
                "help": "Share of the gold tasks that an annotator must have right for the labels.",
            },
        },
    ),
    "extend": StoreCommand(
        "Ask for another number of votes per task.",
        _extend,
        {"--votes": {"type": int, "required": True, "help": "People that each task is shown to."}},
    ),
    "forget": StoreCommand(
        "Delete an annotator: all votes, for good, the heads of reward models, and the policies that were trained on "
        "these votes alone; says what to train again.",
        _forget,
        {
            "annotator": {"type": str, "help": "Name of the annotator."},
            "--runs": {
                "type": str,
                "nargs": "+",
                "default": ["runs"],
                "help": "Folders of runs to look through.",
            },
        },
    ),
    "import": StoreCommand(
        "Add votes that exist: votes.jsonl of the page, or a pairwise export of Argilla or Label Studio.",
        _import,
        {"file": {"type": str, "help": "File with the votes."}},
    ),
    "remove": StoreCommand(
        "Take all votes of an annotator back, and end the link; the history keeps them.",
        _remove,
        {"annotator": {"type": str, "help": "Name of the annotator."}},
    ),
    "reopen": StoreCommand("Take answers again after the end.", _reopen),
}
