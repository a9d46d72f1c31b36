"""Forget an annotator: votes, heads and policies are deleted, and what was trained on the votes too is named."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from lit_align.annotators import annotator_key
from lit_align.data.prepare import PREPARED_CACHE
from lit_align.data.prepared_files import prepared_with
from lit_align.errors import ConfigError
from lit_align.labelling.personal_runs import find_personal_runs, is_run
from lit_align.labelling.store import Store
from lit_align.models.personal_head import ANNOTATORS_FILE, load_shifts, save_shifts
from lit_align.run_report.record import CONFIG
from lit_align.run_report.status import STATUS

PERSON = "SELECT id FROM people WHERE name = ? AND NOT admin"
TRIGGERS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'votes'"


class Forgotten(NamedTuple):
    """What was deleted, and what is left to do.

    Args:
        num_answers: answers that the store had, those that were replaced or taken back included.
        policies: folders of runs for this person alone, which are gone.
        reward_models: runs whose head for this person is gone, with their checkpoints.
        prepared: folders of tokenised rows that held rows of this person, which are gone.
        mentions: files of settings that name this person and are of no training run.
    """

    num_answers: int
    policies: list[Path]
    reward_models: list[Path]
    prepared: list[Path]
    mentions: list[Path]

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
        lines += [
            f"{folder} held tokenised rows of {name}, and is deleted; the next run makes it again from its files"
            for folder in self.prepared
        ]
        lines += [
            f"{config} names {name} and is of no training run: it is left, and yours to delete"
            for config in self.mentions
        ]
        lines.append(
            "Copies are yours to delete: backups, files that were exported before, adapters that were pushed, "
            "tokenised rows in another folder that data.prepared_cache named. A model that was trained on the labels "
            "of all has to be trained again on a new export"
        )
        return "\n".join(lines)


def forget(store: Store, name: str, folders: Sequence[str]) -> Forgotten:
    """Delete all that is one annotator's alone; the votes last, so that what was interrupted can be repeated.

    Args:
        store: of the votes.
        name: of the annotator.
        folders: of runs, which are looked through.

    Raises:
        ConfigError: if neither the store nor a run has such an annotator, a folder is none, or a run is for several
            people. Nothing is deleted then.
    """
    for folder in folders:
        if not Path(folder).expanduser().is_dir():
            raise ConfigError(
                f"--runs names {folder}, which is no folder; give the folders of the runs that used these votes"
            )
    roots = [Path(folder).expanduser() for folder in folders]
    runs = find_personal_runs(roots, name)
    heads = _find_heads(roots, name)
    prepared = prepared_with(Path(PREPARED_CACHE).expanduser(), [name, annotator_key(name)])
    if not (runs.policies or heads or prepared) and store.fetch_one(PERSON, name) is None:
        raise ConfigError(
            f"{store.path} has no annotator {name!r}, and no run is for that person; correct the name"
        )
    for policy, root in runs.policies.items():
        _delete_run(policy, root)
    reward_models = _forget_heads(heads, name)
    for cached in prepared:
        shutil.rmtree(cached)
    num_answers = forget_votes(store, name)
    return Forgotten(num_answers, list(runs.policies), reward_models, prepared, runs.mentions)


def forget_votes(store: Store, name: str) -> int:
    """Delete an annotator from a store, whose file is then written anew, so that nothing is left in it.

    Args:
        store: that others may have open.
        name: of the annotator.

    Returns:
        How many answers that were, history included; 0 if there is no such annotator.
    """
    with store.transaction() as db:
        row = store.fetch_one(PERSON, name)
        if row is None:
            return 0
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


def _delete_run(run: Path, root: Path) -> None:
    """Delete a run, its settings last: they say whose it is. Folders of runs that are empty then go too."""
    if not run.exists():  # it was in a run that is deleted
        return
    for path in run.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (CONFIG, STATUS):
            path.unlink()
    shutil.rmtree(run)
    for folder in run.parents:
        if folder == root or not folder.is_relative_to(root) or any(folder.iterdir()):
            break
        folder.rmdir()


def _find_heads(roots: Sequence[Path], name: str) -> dict[Path, Path]:
    """The files of heads that have one of this annotator, each with the folder of its run."""
    key = annotator_key(name)
    runs: dict[Path, Path] = {}
    for root in roots:
        for file in sorted(root.rglob(ANNOTATORS_FILE)):
            _, annotators = load_shifts(file.parent)
            if key in annotators.keys:
                runs[file] = _run_of(file, root)
    return runs


def _forget_heads(runs: dict[Path, Path], name: str) -> list[Path]:
    """Delete the checkpoints and then an annotator's head, by which they would be found again."""
    key = annotator_key(name)
    kept = {file: run for file, run in runs.items() if file.exists()}  # not in a deleted run
    for run in dict.fromkeys(kept.values()):
        for checkpoint in run.rglob("*.ckpt"):
            checkpoint.unlink()
    for file in kept:
        shifts, annotators = load_shifts(file.parent)
        is_other = [other != key for other in annotators.keys]
        with TemporaryDirectory(dir=file.parent) as temporary:
            save_shifts(Path(temporary), shifts[is_other], annotators.without(key))
            Path(temporary, ANNOTATORS_FILE).replace(file)
    return list(dict.fromkeys(kept.values()))


def _run_of(file: Path, root: Path) -> Path:
    """The folder of the run that a file is in; its own folder if no run at or below ``root`` has it."""
    for folder in file.parents:
        if is_run(folder):
            return folder
        if folder == root:
            break
    return file.parent
