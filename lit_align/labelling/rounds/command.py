"""``lit-align campaign``: rounds of answers, labels, a reward model and a policy, as Llama 2 was aligned."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from lit_align.cli.command import parse_arguments, settings_parser
from lit_align.cli.run_folder import create_run_folder
from lit_align.errors import ConfigError
from lit_align.labelling.rounds.children import ended_by_sigterm
from lit_align.labelling.rounds.phases import Round, finish
from lit_align.labelling.rounds.report import report_round, write_report
from lit_align.labelling.rounds.settings import Rounds, check_enough, read_settings
from lit_align.labelling.task_files import load_task_groups
from lit_align.models.atomic_folder import replace_file
from lit_align.types import Group

DESCRIPTION = (
    "Rounds of answers, labels, a reward model and a policy, each from the newest of the round before (Touvron et al., "
    "2023, https://arxiv.org/abs/2307.09288, section 3.2). An interrupted campaign goes on with lit-align campaign "
    "--resume FOLDER, its numbered folder."
)


def run(arguments: list[str]) -> list[dict[str, Any]]:
    """Do all rounds, or what is left of them; returns the records of the rounds.

    Args:
        arguments: of the command line, after ``campaign``.

    Raises:
        ConfigError: if the settings are not valid.
        TrainingError: if a command of a round fails.
    """
    if "--resume" in arguments:
        folder = _resumed_folder(arguments)
        settings = read_settings(folder)
    else:
        settings = _parse(arguments)
        folder = Path()
    groups = load_task_groups(settings.prompts)
    check_enough(groups, settings)
    if folder == Path():
        folder = create_run_folder(Path(settings.run))
        replace_file(folder / "config.yaml", yaml.safe_dump(asdict(settings), sort_keys=False))
        (folder / "round-1").mkdir()
    try:
        with FileLock(folder / ".lock", timeout=0), ended_by_sigterm():
            return _all_rounds(folder, settings, groups)
    except Timeout as error:
        raise ConfigError(
            f"another process does the campaign in {folder}; wait for it, or end it"
        ) from error


def _all_rounds(folder: Path, settings: Rounds, groups: list[Group]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    table = ""
    for number in range(1, settings.rounds + 1):
        current = Round(folder, number, settings)
        last = number * settings.prompts_per_round
        finish(current, groups[last - settings.prompts_per_round : last])
        records.append(report_round(current))
        table = write_report(folder, records)
    print(f"\n{table}\nThe campaign is in {folder}: campaign.md, campaign.json, round-1 and on.")
    return records


def _resumed_folder(arguments: list[str]) -> Path:
    if len(arguments) != 2 or arguments[0] != "--resume":
        raise ConfigError(
            f"got {' '.join(arguments)}; --resume takes a campaign's folder and no other setting, which are in its "
            "config.yaml"
        )
    return Path(arguments[1])


def _parse(arguments: list[str]) -> Rounds:
    parser = settings_parser("lit-align campaign", DESCRIPTION)
    parser.add_class_arguments(Rounds)
    _, settings = parse_arguments(parser, arguments, [field.name for field in fields(Rounds)])
    values = settings.as_dict()
    values.pop("config", None)
    return Rounds(**values)
