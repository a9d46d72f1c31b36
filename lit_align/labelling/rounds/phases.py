"""The phases of a round: answers, labels, a reward model, a policy; each leaves a file, and is not done twice.

Models are loaded in processes of their own, so that a phase leaves no memory behind, and each command can be given by
hand as well.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import yaml

from lit_align.cli.run_folder import numbered_runs
from lit_align.data.formats.groups import as_row
from lit_align.errors import ConfigError, TrainingError
from lit_align.jsonl import to_line
from lit_align.labelling.aggregation import labelled_groups
from lit_align.labelling.rounds.children import run_command, running
from lit_align.labelling.rounds.configs import for_round, read_config, reads_prompts
from lit_align.labelling.rounds.settings import Rounds
from lit_align.labelling.store import UNFINISHED_QUERY, Store
from lit_align.labelling.task_files import answer_groups, load_task_groups
from lit_align.labelling.votes import read_votes
from lit_align.models.atomic_folder import atomic_folder, replace_file
from lit_align.plugins import load_plugins
from lit_align.rewards.base import response_text
from lit_align.types import Group

POLL = 1.0
"""Seconds between looks at the votes."""


class Round(NamedTuple):
    """One round of a campaign.

    Args:
        folder: of the campaign.
        number: of the round, from 1 on.
        settings: of the campaign.
    """

    folder: Path
    number: int
    settings: Rounds

    @property
    def home(self) -> Path:
        """Folder of the round."""
        return self.folder / f"round-{self.number}"

    @property
    def answers(self) -> Path:
        """The prompts with two answers each."""
        return self.home / "answers.jsonl"

    @property
    def labels(self) -> Path:
        """The answers, compared."""
        return self.home / "labels.jsonl"

    @property
    def all_labels(self) -> list[str]:
        """Labels of this round and those before it."""
        rounds = (self._replace(number=number) for number in range(1, self.number + 1))
        return [str(each.labels) for each in rounds]

    @property
    def policies(self) -> list[Path]:
        """Runs of the newest two policies when the round began, the newest first; the first round has one."""
        runs = [Path(self.settings.initial).expanduser()]
        for number in range(1, self.number):
            run = trained(self._replace(number=number).home / "policy")
            if run is None:
                raise ConfigError(f"round {number} has no policy; go on with that round first")
            runs.append(run)
        return runs[:-3:-1]

    @property
    def reward_model(self) -> Path | None:
        """Adapter of the round's reward model; None if there is none yet."""
        run = trained(self.home / "reward")
        return None if run is None else run / "adapter"


def trained(runs: Path) -> Path | None:
    """The newest run in ``runs`` that was trained to its end, which wrote its adapter; None if there is none."""
    finished = [run for run in numbered_runs(runs) if (run / "adapter").is_dir()]
    return finished[-1] if finished else None


def finish(current: Round, groups: list[Group]) -> None:
    """Do what is left of a round.

    Args:
        current: the round.
        groups: its prompts.
    """
    current.home.mkdir(exist_ok=True)
    settings = current.settings
    if not current.answers.exists():
        _sample(current, groups)
    if not current.labels.exists():
        if settings.judge:
            _judge(current, settings.judge)
        else:
            _ask_people(current, str(settings.label))
    if not current.labels.read_text("utf-8").strip():
        remedy = "name another judge" if settings.judge else f"raise votes in {settings.label}"
        raise TrainingError(
            f"no answer of round {current.number} was preferred to another, so there is nothing to learn; {remedy}, "
            f"delete {current.labels}, and resume"
        )
    if settings.reward:
        _train(current, "reward", settings.reward)
    _train(current, "policy", settings.policy)


def _sample(current: Round, groups: list[Group]) -> None:
    """Write the prompts, and then the answers of the newest policies; prompts with an empty answer are left out."""
    runs = [str(path) for path in current.policies]
    _say(current, f"answers of {' and '.join(runs)} to {len(groups)} prompts")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        answered = pool.submit(_answer, groups, runs).result()
    whole = [group for group in answered if all(map(response_text, group.responses))]
    if len(whole) < len(answered):
        print(f"{len(answered) - len(whole)} prompts are left out: a policy gave an empty answer")
    if not whole:
        raise TrainingError("every prompt got an empty answer; raise max_new_tokens of the policy")
    prompts = (to_line(as_row(group._replace(responses=[]))) for group in whole)
    replace_file(current.home / "prompts.jsonl", "".join(prompts))
    replace_file(current.answers, "".join(to_line(as_row(group)) for group in whole))


def _answer(groups: list[Group], runs: list[str]) -> list[Group]:
    load_plugins()
    return answer_groups(groups, runs)


def _judge(current: Round, config: str) -> None:
    _say(current, f"labels by the judge of {config}")
    runs = current.home / "judge"
    data = ("--data", str(current.answers), "--label_kind", "pairs", "--run", str(runs))
    run_command("judge", "-c", config, *data)
    replace_file(current.labels, (numbered_runs(runs)[-1] / "labelled.jsonl").read_text("utf-8"))


def _ask_people(current: Round, config: str) -> None:
    """Serve the page until every task has its votes or the campaign is ended there, and export the labels."""
    file = current.home / "labels.db"
    store = Store(file, read_config(config).get("votes"))
    try:
        if not store.has_tasks:
            store.add_tasks(load_task_groups([str(current.answers)]), "compare")
        if not _all_voted(store):
            _say(
                current,
                f"labels by people; the page of {config} is open until {store.votes} have answered each task, or "
                "its admin page ends the campaign",
            )
            with running("label", "-c", config, "--store", str(file)) as page:
                while not _all_voted(store):
                    if page.poll() is not None:
                        raise TrainingError(
                            f"the page ended with {page.returncode}; its own message is above"
                        )
                    time.sleep(POLL)
    finally:
        store.db.close()
    labelled = labelled_groups(read_votes(file))
    replace_file(current.labels, "".join(to_line(as_row(group)) for _, group in labelled))


def _all_voted(store: Store) -> bool:
    """Whether nothing is left to ask, or the page was told to take no more answers."""
    (unfinished,) = store.fetch_one(UNFINISHED_QUERY, store.votes)
    return store.has_ended or not unfinished


def _train(current: Round, name: str, config_file: str) -> None:
    """Train the reward model or the policy of the round, from where an interrupted run stopped."""
    runs = current.home / name
    if trained(runs):
        return
    config = read_config(config_file)
    samples = reads_prompts(config)
    train = [str(current.home / "prompts.jsonl")] if samples else current.all_labels
    adapter, judge = None, None
    if name == "policy":
        adapter = str(current.policies[0] / "adapter")
        judge = str(current.reward_model) if current.reward_model else None
    config = for_round(config, runs, train, adapter, judge)
    file = current.home / f"{name}.yaml"
    replace_file(file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    _say(current, f"{name} on {', '.join(train)}")
    begun = [run for run in numbered_runs(runs) if (run / "checkpoints/last.ckpt").exists()]
    more = ("--ckpt_path", str(begun[-1] / "checkpoints/last.ckpt")) if begun else ()
    run_command("fit", "-c", str(file), *more)
    if trained(runs) is None:
        keep_last_adapter(begun)


def keep_last_adapter(begun: list[Path]) -> None:
    """The adapter of a run that was killed after its last step: resumed, it has nothing left to do.

    Raises:
        TrainingError: if there is none.
    """
    adapters = [run / "checkpoints/last.adapter" for run in begun]
    if not adapters or not adapters[-1].is_dir():
        raise TrainingError("the fit wrote no adapter; its own messages are above")
    with atomic_folder(begun[-1] / "adapter") as folder:
        shutil.copytree(adapters[-1], folder, dirs_exist_ok=True)


def _say(current: Round, text: str) -> None:
    print(f"\nRound {current.number} of {current.settings.rounds}: {text}", flush=True)
