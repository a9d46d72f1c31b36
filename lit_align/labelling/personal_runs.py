"""Runs that are for one annotator alone, by what their settings say, and other settings that name the annotator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_align.annotators import PERSONAL_SETTINGS, annotator_key, is_same
from lit_align.errors import ConfigError
from lit_align.run_report.record import CONFIG
from lit_align.run_report.status import STATUS


class PersonalRuns(NamedTuple):
    """What settings say of an annotator.

    Args:
        policies: folders of the runs that are for this annotator alone, each with the folder that was looked through.
        mentions: other files of settings with the name, such as those of an evaluation.
    """

    policies: dict[Path, Path]
    mentions: list[Path]


def is_run(folder: Path) -> bool:
    """Whether a training run has written the folder: a number, with settings and a status in it."""
    has_files = (folder / CONFIG).is_file() and (folder / STATUS).is_file()
    return has_files and folder.resolve().name.isdigit()


def find_personal_runs(roots: Sequence[Path], name: str) -> PersonalRuns:
    """Look for an annotator in the settings of all runs.

    Args:
        roots: folders to look through.
        name: of the annotator, or the hash of it.

    Raises:
        ConfigError: if a run is for several people, of whom this is one.
    """
    policies: dict[Path, Path] = {}
    mentions: dict[Path, None] = {}
    for root in roots:
        for config in sorted(root.rglob(CONFIG)):
            people = _read_people(config, name)
            if not any(is_same(person, name) for person in people):
                continue
            run = config.parent
            if not is_run(run):
                mentions[config] = None
                continue
            if len({annotator_key(person) for person in people}) > 1:
                raise ConfigError(
                    f"{run} is for several people, {', '.join(sorted(people))}, and nothing is deleted so far; delete "
                    "that run or move it out of the folders that --runs names, and repeat the command"
                )
            policies[run] = root
    is_deleted = {run.resolve() for run in policies}
    kept = [config for config in mentions if is_deleted.isdisjoint(config.resolve().parents)]
    return PersonalRuns(policies, kept)


def _read_people(config: Path, name: str) -> set[str]:
    """Whom the settings name; of a file that is no YAML, the annotator whose name is anywhere in it."""
    text = config.read_text("utf-8", errors="replace")
    try:
        return {str(person) for person in _people_in(yaml.safe_load(text))}
    except (yaml.YAMLError, ValueError):  # the latter of a date that does not exist
        return {name} if name in text or annotator_key(name) in text else set()


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
