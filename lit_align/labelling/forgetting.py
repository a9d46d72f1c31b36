"""Forget an annotator: votes, heads and policies are deleted, and what was trained on the votes too is named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from lit_align.data.annotators import annotator_key, is_same
from lit_align.errors import ConfigError
from lit_align.labelling.store import Store
from lit_align.models.personal_head import ANNOTATORS_FILE, load_shifts, save_shifts

CONFIG = "config.yaml"
PERSONAL_SETTINGS = ("only_annotator", "annotator")
"""Settings that name the one person whom a run is for."""
TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'votes'"


class Forgotten(NamedTuple):
    """What was deleted, and what is left to do.

    Args:
        num_answers: answers that the store had, those that were replaced or taken back included.
        policies: folders of runs for this person alone, which are gone.
        reward_models: runs whose head for this person is gone, with their checkpoints.
    """

    num_answers: int
    policies: list[Path]
    reward_models: list[Path]

    def describe(self, name: str, store: str) -> str:
        """In lines: what was deleted, and what has to be trained again."""
        lines = [f"{self.num_answers} answers of {name} are deleted from {store}"]
        lines += [
            f"{run} was trained for {name} alone, and is deleted with its adapter"
            for run in self.policies
        ]
        for run in self.reward_models:
            lines.append(
                f"{run}: the head of {name} is deleted, and the checkpoints, which had it too; its adapter and its "
                f"mean head learned from these votes: export the labels again and run lit-align fit -c {run / CONFIG}"
            )
        lines.append(
            "Copies are yours to delete: backups, files that were exported before, adapters that were pushed. A model "
            "that was trained on the labels of all has to be trained again on a new export"
        )
        return "\n".join(lines)


def forget(store: Store, name: str, folders: Sequence[str]) -> Forgotten:
    """Delete all that is one annotator's alone.

    Args:
        store: of the votes.
        name: of the annotator.
        folders: of runs, which are looked through.

    Raises:
        ConfigError: if the store has no such annotator, or a folder is none.
    """
    for folder in folders:
        if not Path(folder).expanduser().is_dir():
            raise ConfigError(
                f"--runs names {folder}, which is no folder; give the folders of the runs that used these votes"
            )
    num_answers = forget_votes(store, name)
    policies, reward_models = [], []
    for folder in folders:
        root = Path(folder).expanduser()
        for config in sorted(root.rglob(CONFIG)):
            if _is_for(yaml.safe_load(config.read_text("utf-8")), name):
                shutil.rmtree(config.parent)
                policies.append(config.parent)
        reward_models += forget_heads(root, name)
    return Forgotten(num_answers, policies, reward_models)


def forget_votes(store: Store, name: str) -> int:
    """Delete an annotator from a store, whose file is then written anew, so that nothing is left in it.

    Args:
        store: that others may have open.
        name: of the annotator.

    Returns:
        How many answers that were, history included.

    Raises:
        ConfigError: if there is no such annotator.
    """
    with store.transaction() as db:
        row = store.fetch_one("SELECT id FROM people WHERE name = ? AND NOT admin", name)
        if row is None:
            raise ConfigError(f"{store.path} has no annotator {name!r}; correct the name")
        triggers = db.execute(TRIGGERS).fetchall()
        for trigger, _ in triggers:  # they keep votes from being deleted
            db.execute(f"DROP TRIGGER {trigger}")
        num_answers = db.execute("DELETE FROM votes WHERE person = ?", row).rowcount
        for table in ("shown", "sessions"):
            db.execute(f"DELETE FROM {table} WHERE person = ?", row)
        db.execute("DELETE FROM people WHERE id = ?", row)
        db.execute(
            "UPDATE tasks SET taken = (SELECT count(*) FROM shown WHERE task = tasks.id AND state = 'voted')"
        )
        for _, statement in triggers:
            db.execute(statement)
    store.db.execute("VACUUM")
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return int(num_answers)


def forget_heads(root: Path, name: str) -> list[Path]:
    """Delete an annotator's head from all reward models under a folder, and their checkpoints.

    Returns:
        The folders of the runs that had such a head.
    """
    key = annotator_key(name)
    runs: dict[Path, None] = {}
    for file in sorted(root.rglob(ANNOTATORS_FILE)):
        shifts, annotators = load_shifts(file.parent)
        if key not in annotators.keys:
            continue
        is_other = [other != key for other in annotators.keys]
        with TemporaryDirectory(dir=file.parent) as temporary:
            save_shifts(Path(temporary), shifts[is_other], annotators.without(key))
            Path(temporary, ANNOTATORS_FILE).replace(file)
        runs[_run_of(file)] = None
    for run in runs:
        for checkpoint in run.rglob("*.ckpt"):
            checkpoint.unlink()
    return list(runs)


def _run_of(file: Path) -> Path:
    """The folder of the run that a file is in; its own folder if there is none."""
    for folder in file.parents:
        if (folder / CONFIG).is_file():
            return folder
    return file.parent


def _is_for(settings: Any, name: str) -> bool:
    """Whether a run's settings name this person as the one whom it is for."""
    return any(is_same(str(person), name) for person in _people_in(settings))


def _people_in(settings: Any) -> Iterator[Any]:
    if isinstance(settings, list):
        for item in settings:
            yield from _people_in(item)
    if not isinstance(settings, dict):
        return
    for setting, value in settings.items():
        if setting in PERSONAL_SETTINGS and isinstance(value, str | int):
            yield value
        elif setting != "columns":  # there the name is that of a column
            yield from _people_in(value)
