"""Settings of a campaign of rounds, and what is refused before the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_align.checks import check_at_least
from lit_align.cli.command import command_parser, parse_arguments
from lit_align.cli.judge import SETTINGS as JUDGE_SETTINGS
from lit_align.errors import ConfigError
from lit_align.labelling.command import parse_campaign
from lit_align.labelling.rounds.configs import (
    names_reward_model,
    read_config,
    reads_prompts,
    stage_name,
)

SET_BY_ROUND = {
    "label": ("store", "tasks", "runs", "ask"),
    "judge": ("data", "run", "label_kind"),
}
"""What the configuration of a command may not say, because each round does."""


@dataclass(frozen=True)
class Rounds:
    """A campaign of rounds: answers of the newest two policies are compared, and the next policy learns from it.

    Args:
        prompts: files or hub data sets of prompts; each round takes the next of them.
        prompts_per_round: how many.
        rounds: how many rounds.
        initial: run whose policy answers and is trained first, such as an SFT run's folder.
        policy: configuration of ``lit-align fit`` that trains the policy. Its training data become the round's prompts
            where it samples, and the labels of all rounds where it learns from labels; it starts from the newest
            policy, and every RewardModelScore in it gets the newest reward model.
        reward: configuration of ``lit-align fit`` that trains the reward model on the labels of all rounds; null for a
            policy that learns from labels.
        judge: configuration of ``lit-align judge``, which labels the answers; null if people do.
        label: configuration of ``lit-align label``, by whose page people label them; null if a judge does.
        run: folder of runs; each one gets a number in it.
    """

    prompts: list[str]
    prompts_per_round: int
    rounds: int
    initial: str
    policy: str
    reward: str | None = None
    judge: str | None = None
    label: str | None = None
    run: str = "runs/campaign"

    def __post_init__(self) -> None:
        check_at_least("prompts_per_round", self.prompts_per_round, 1)
        check_at_least("rounds", self.rounds, 1)
        if (self.judge is None) == (self.label is None):
            raise ConfigError(
                f"judge is {self.judge} and label is {self.label}; give the one that labels, and not the other"
            )
        if not (Path(self.initial).expanduser() / "adapter").is_dir():
            raise ConfigError(
                f"initial is {self.initial}, in which there is no adapter/; give the numbered folder of a run"
            )
        for name in ("judge", "label"):
            _refuse_what_rounds_set(name, getattr(self, name))
        if self.judge is not None:
            parser = command_parser("lit-align judge", JUDGE_SETTINGS)
            parse_arguments(parser, ["-c", self.judge, "--data", "given"], JUDGE_SETTINGS)
        if self.label is not None:
            parse_campaign(["-c", self.label])
        self._check_policy()

    def _check_policy(self) -> None:
        config = read_config(self.policy)
        if self.reward is None:
            if reads_prompts(config) and names_reward_model(config):
                raise ConfigError(
                    f"{self.policy} is rewarded by a RewardModelScore, and reward is null; give the configuration "
                    "that trains it"
                )
            return
        reward = read_config(self.reward)
        if reads_prompts(reward):
            raise ConfigError(f"reward is {self.reward}, which samples; give a RewardModel")
        if stage_name(reward) == "PersonalRewardModel":
            raise ConfigError(
                f"reward is {self.reward}, a PersonalRewardModel, and rounds put the votes of all into one label; "
                "give a RewardModel"
            )
        if not names_reward_model(config):
            raise ConfigError(
                f"{self.policy} has no RewardModelScore, so the reward model of {self.reward} would not be used; name "
                "it there, or leave reward out"
            )


def _refuse_what_rounds_set(name: str, path: str | None) -> None:
    if path is None:
        return
    present = [key for key in SET_BY_ROUND[name] if key in read_config(path)]
    if present:
        raise ConfigError(
            f"{path} says {' and '.join(present)}, which each round sets itself; leave it out"
        )


def read_settings(folder: Path) -> Rounds:
    """The settings of a campaign that has begun.

    Raises:
        ConfigError: if there is none in the folder.
    """
    file = folder / "config.yaml"
    if not file.is_file() or not (folder / "round-1").is_dir():
        raise ConfigError(
            f"{folder} holds no campaign that has begun; give a numbered folder of its runs"
        )
    values: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return Rounds(**values)


def check_enough(prompts: Sequence[Any], settings: Rounds) -> None:
    """Refuse to begin rounds for which there are too few prompts.

    Raises:
        ConfigError: saying how many there are.
    """
    wanted = settings.prompts_per_round * settings.rounds
    if len(prompts) < wanted:
        raise ConfigError(
            f"{settings.rounds} rounds of {settings.prompts_per_round} prompts need {wanted}, and there are "
            f"{len(prompts)}; give more prompts, or fewer rounds"
        )
