"""The phases of a round: answers, labels, a reward model, a policy; each leaves a file, and is not done twice.

Models are loaded in processes of their own, so that a phase leaves no memory behind, and each command can be given by
hand as well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_align.data.formats.groups import as_row
from lit_align.errors import ConfigError, TrainingError
from lit_align.jsonl import to_line
from lit_align.labelling.aggregation import labelled_groups
from lit_align.labelling.rounds.configs import for_round, read_config, reads_prompts
from lit_align.labelling.rounds.settings import Rounds
from lit_align.labelling.store import UNFINISHED_QUERY, Store
from lit_align.labelling.task_files import load_task_groups
from lit_align.labelling.votes import read_votes
from lit_align.types import Group

COMMAND = (sys.executable, "-m", "lit_align")
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
    """The run in ``runs`` that was trained to its end; None if there is none."""
    done = runs / "done.txt"
    return Path(done.read_text("utf-8")) if done.is_file() else None


def finish(current: Round, groups: list[Group]) -> None:
    """Do what is left of a round.

    Args:
        current: the round.
        groups: its prompts.
    """
    current.home.mkdir(exist_ok=True)
    settings = current.settings
    if not current.answers.exists():
        names = " and ".join(map(str, current.policies))
        _say(current, f"answers of {names} to {len(groups)} prompts")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            runs = [str(path) for path in current.policies]
            answered = pool.submit(_answer, groups, runs).result()
        write_whole(current.answers, "".join(to_line(as_row(group)) for group in answered))
        prompts = (to_line(as_row(group._replace(responses=[]))) for group in answered)
        write_whole(current.home / "prompts.jsonl", "".join(prompts))
    if not current.labels.exists():
        if settings.judge:
            _judge(current, settings.judge)
        else:
            _ask_people(current, str(settings.label))
    if not current.labels.read_text("utf-8").strip():
        raise TrainingError(
            f"no answer of round {current.number} was preferred to another, so there is nothing to learn; delete "
            f"{current.labels} and ask for more votes, or ask another judge"
        )
    if settings.reward:
        _train(current, "reward", settings.reward)
    _train(current, "policy", settings.policy)


def write_whole(file: Path, text: str) -> None:
    """Write a file that is there with all of its text or not at all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.write_text(text, "utf-8")
    unfinished.replace(file)


def _answer(groups: list[Group], runs: list[str]) -> list[Group]:
    from lit_align.labelling.task_files import answer_groups
    from lit_align.plugins import load_plugins

    load_plugins()
    return answer_groups(groups, runs)


def _judge(current: Round, config: str) -> None:
    _say(current, f"labels by the judge of {config}")
    runs = current.home / "judge"
    _run("judge", "-c", config, "--data", str(current.answers), "--run", str(runs))
    newest = max(runs.iterdir(), key=lambda folder: int(folder.name))
    write_whole(current.labels, (newest / "labelled.jsonl").read_text("utf-8"))


def _ask_people(current: Round, config: str) -> None:
    """Serve the page until every task has its votes or the campaign is ended there, and export the labels."""
    file = current.home / "labels.db"
    store = Store(file)
    if not store.has_tasks:
        store.add_tasks(load_task_groups([str(current.answers)]), "compare")
    _say(current, f"labels by people; the page of {config} is open until every task has its votes")
    page = subprocess.Popen([*COMMAND, "label", "-c", config, "--store", str(file)])
    try:
        while not _all_voted(store):
            if page.poll() is not None:
                raise TrainingError(
                    f"the page ended with {page.returncode}; its own message is above"
                )
            time.sleep(POLL)
    finally:
        store.db.close()
        page.send_signal(signal.SIGINT)
        page.wait()
    labelled = labelled_groups(read_votes(file))
    write_whole(current.labels, "".join(to_line(as_row(group)) for _, group in labelled))


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
    write_whole(file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    _say(current, f"{name} on {', '.join(train)}")
    interrupted = _interrupted(runs)
    if interrupted is None:
        _run("fit", "-c", str(file))
    else:
        checkpoint = interrupted / "checkpoints/last.ckpt"
        _run("fit", "-c", str(interrupted / "config.yaml"), "--ckpt_path", str(checkpoint))
    write_whole(runs / "done.txt", str(_newest(runs)))


def _interrupted(runs: Path) -> Path | None:
    """The newest run, if it left a checkpoint."""
    newest = _newest(runs)
    if newest is None or not (newest / "checkpoints/last.ckpt").exists():
        return None
    return newest


def _newest(runs: Path) -> Path | None:
    """The run with the highest number."""
    numbered = [path for path in runs.glob("*") if path.name.isdigit()]
    return max(numbered, key=lambda path: int(path.name), default=None)


def _say(current: Round, text: str) -> None:
    print(f"\nRound {current.number} of {current.settings.rounds}: {text}", flush=True)


def _run(*arguments: str) -> None:
    """A command of ``lit-align`` in a process of its own.

    Raises:
        TrainingError: if it fails.
    """
    environment: dict[str, Any] = {**os.environ}
    environment.pop("LIT_ALIGN_RUN", None)
    done = subprocess.run([*COMMAND, *arguments], env=environment, check=False)
    if done.returncode:
        raise TrainingError(
            f"lit-align {' '.join(arguments)} ended with {done.returncode}; its own message is above"
        )
