"""Configurations of ``lit-align fit`` as each round needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_align.errors import ConfigError

SAMPLING = ("Prompts", "Online")
"""Data modules that read prompts and sample the responses; all others read labels."""
REWARD_MODEL = "RewardModelScore"

Config = dict[str, Any]


def read_config(path: str | Path) -> Config:
    """A configuration as it is written.

    Raises:
        ConfigError: if the file is none.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"there is no {path}; give a configuration that is on this machine")
    config = yaml.safe_load(file.read_text("utf-8"))
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds no settings; give a configuration")
    return config


def reads_prompts(config: Config) -> bool:
    """Whether it trains on prompts whose responses are sampled.

    Example:
        >>> reads_prompts({"data": {"class_path": "Prompts"}, "model": {"class_path": "RL"}})
        True
    """
    return _class_name(_part(config, "data")) in SAMPLING


def stage_name(config: Config) -> str:
    """Name of the stage, without the module."""
    return _class_name(_part(config, "model"))


def names_reward_model(config: Config) -> bool:
    """Whether one of its rewards is a reward model of a run."""
    return any(True for _ in _reward_models(config))


def for_round(
    config: Config,
    run: Path,
    train: Sequence[str],
    init_adapter: str | None = None,
    reward_model: str | None = None,
) -> Config:
    """The configuration with what a round gives it; the first is changed.

    Args:
        config: as `read_config` returns it.
        run: folder of the runs.
        train: files to train on.
        init_adapter: adapter to start from; None for what it says.
        reward_model: adapter of the reward model, for every reward that is one; None for what they say.
    """
    config["run"] = str(run)
    _part(config, "data").setdefault("init_args", {})["train"] = list(train)
    if init_adapter is not None:
        _part(config, "model").setdefault("init_args", {})["init_adapter"] = init_adapter
    if reward_model is not None:
        for reward in _reward_models(config):
            reward.setdefault("init_args", {})["path"] = reward_model
    return config


def _part(config: Config, name: str) -> Config:
    part = config.get(name)
    if not isinstance(part, dict) or "class_path" not in part:
        raise ConfigError(
            f"the configuration has no class_path in its {name}; write it as configs/dpo.yaml does"
        )
    return part


def _class_name(part: Config) -> str:
    return str(part["class_path"]).rpartition(".")[2]


def _reward_models(value: Any) -> Iterator[Config]:
    """Every reward of the configuration that is a reward model, wherever it is nested."""
    if isinstance(value, dict):
        if _class_name({"class_path": value.get("class_path", "")}) == REWARD_MODEL:
            yield value
        for part in value.values():
            yield from _reward_models(part)
    elif isinstance(value, list):
        for part in value:
            yield from _reward_models(part)
