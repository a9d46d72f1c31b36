"""The settings of a new YAML: those of a task's packaged config, with the base, the data and the sizes of a run."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_align.cli.init.sizes import Sizes
from lit_align.cli.tasks import Task
from lit_align.errors import ConfigError
from lit_align.plugins import load_plugins

WIDTH = 10**6  # of a line of YAML: a setting stays on its line


def start_settings(task: Task, base: str, objective: Any = None) -> dict[str, Any]:
    """The settings of the packaged config with this base and objective, without its data and its GPU.

    Args:
        task: whose config.
        base: as in ``model.base.path``.
        objective: its class and arguments; the config's own if None.
    """
    settings = copy.deepcopy(task.settings())
    settings["run"] = f"runs/{task.name}"
    trainer = settings["trainer"]
    del trainer["accelerator"]  # a GPU if there is one
    trainer.pop("val_check_interval", None)  # of an epoch, which may have fewer steps
    trainer["log_every_n_steps"] = 1
    model = settings["model"]["init_args"]
    model["base"] = {"path": base, "quantization": "nf4", "dtype": "auto"}
    model.pop("chat_template", None)
    if objective is not None:
        model["objective"] = objective
    return settings


def set_data(settings: dict[str, Any], train: Sequence[str], validation: Sequence[str]) -> None:
    """Name the files of the run."""
    data = settings["data"]["init_args"]
    del data["train"]
    data.pop("validation", None)
    files: dict[str, Any] = {"train": train[0] if len(train) == 1 else list(train)}
    if validation:
        files["validation"] = validation[0] if len(validation) == 1 else list(validation)
    settings["data"]["init_args"] = {**files, **data}


def set_sizes(settings: dict[str, Any], sizes: Sizes) -> None:
    """Write the sizes into the settings."""
    model, data = settings["model"]["init_args"], settings["data"]["init_args"]
    model["base"]["quantization"] = sizes.quantization
    model["lora"] |= {"r": sizes.r, "alpha": 2 * sizes.r}
    optimization = optimization_settings(model["optimizer"], sizes.lr)
    model |= optimization
    model["gradient_checkpointing"] = sizes.gradient_checkpointing
    if sizes.max_new_tokens:
        model["max_new_tokens"] = sizes.max_new_tokens
    for name in ("batch_size", "token_budget", "max_length"):
        data[name] = getattr(sizes, name)


def optimization_settings(optimizer: Mapping[str, Any], lr: float) -> dict[str, Any]:
    """How the adapter is optimised: the optimizer; a schedule of its learning rate would be an entry beside it."""
    return {"optimizer": {**optimizer, "init_args": {**optimizer["init_args"], "lr": lr}}}


def set_reward(
    settings: dict[str, Any], task: Task, option: str | None, columns: frozenset[str]
) -> str:
    """Put the reward of the run in the settings, and return a sentence about it.

    Args:
        settings: of the run.
        task: whose config names a reward.
        option: the folder of a reward model's adapter, the name of a reward, or its class and arguments as YAML; the
            packaged config's reward if None.
        columns: of the data.

    Raises:
        ConfigError: if the reward cannot be used.
        UnknownName: if there is no reward of that name.
    """
    model, data = settings["model"]["init_args"], settings["data"]["init_args"]
    parent = model if "reward" in model else data["feedback"]["init_args"]
    if option is None:
        _check_packaged_reward(parent["reward"], task, columns)
        reward = parent["reward"]
    else:
        reward = parent["reward"] = _parse_reward(option)
    path = reward["init_args"].get("path") if reward["class_path"] == "RewardModelScore" else None
    critic = model.get("critic")
    if critic and path:
        critic["init_from"] = path
    elif critic:
        critic.pop("init_from", None)
    return f"reward {reward['class_path']}{f' in {path}' if path else ''}"


def _check_packaged_reward(reward: dict[str, Any], task: Task, columns: frozenset[str]) -> None:
    """Refuse the packaged config's reward where its adapter or its column is missing."""
    arguments = reward["init_args"]
    has_adapter = reward["class_path"] == "RewardModelScore" and Path(arguments["path"]).is_dir()
    if has_adapter or arguments.get("column") in columns:
        return
    missing = f"column {arguments['column']}" if "column" in arguments else arguments.get("path")
    raise ConfigError(
        f"{task.name} needs a reward, and there is no {missing} for {reward['class_path']}; give --reward the adapter "
        "folder of a reward model (lit-align init reward trains one), the name of a reward (lit-align plugins "
        "rewards), or '{class_path: Length, init_args: {max_words: 50}}'"
    )


def _parse_reward(option: str) -> dict[str, Any]:
    """The class of a reward and its arguments."""
    if Path(option).expanduser().is_dir():
        return {"class_path": "RewardModelScore", "init_args": {"path": option}}
    value = yaml.safe_load(option)
    is_class = isinstance(value, dict) and isinstance(value.get("class_path"), str)
    reward: dict[str, Any] = value if is_class else {"class_path": option}
    reward.setdefault("init_args", {})
    name = reward["class_path"]
    if "/" in name:
        raise ConfigError(
            f"there is no folder {name!r}; give --reward the adapter folder of a reward model"
        )
    if "." in name:
        _check_class_path(reward)
    else:
        _check_arguments(load_plugins().rewards[name], reward["init_args"])
    return reward


def _check_class_path(reward: Mapping[str, Any]) -> None:
    """Import a reward that is named by its path, and refuse it with the sentence of ``fit``."""
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    from lit_align.cli.failures import explain_class_error
    from lit_align.rewards import Reward

    set_parsing_settings(import_path_allowlist=[])  # enforces the denylist, as fit does
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--reward", type=Reward)
    try:
        parser.parse_args([f"--reward={json.dumps(reward)}"])
    except (ArgumentError, ValueError) as error:
        raise ConfigError(explain_class_error(error)) from error


def _check_arguments(cls: type, arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(cls).parameters.values()
    missing = []
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in arguments:
            missing.append(parameter.name)
    if missing:
        example = ", ".join(f"{name}: ..." for name in missing)
        raise ConfigError(
            f"{cls.__name__} needs {' and '.join(missing)}; write --reward "
            f"'{{class_path: {cls.__name__}, init_args: {{{example}}}}}'"
        )


def to_yaml(settings: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Settings as YAML, one a line.

    Args:
        settings: with ``init_args`` in ``model`` and ``data``.
        comments: a line above a setting, by its name.

    Example:
        >>> print(to_yaml({"run": "runs/a", "model": {"class_path": "SFT", "init_args": {"seed": 1}}}, {"seed": "why"}))
        run: runs/a
        model:
          class_path: SFT
          init_args:
            # why
            seed: 1
        <BLANKLINE>
    """
    lines: list[str] = []
    _append_block(lines, settings, comments, "")
    return "\n".join(lines) + "\n"


def as_comment(lines: Sequence[str]) -> str:
    r"""Lines as comments of a YAML; a line break within one begins a comment too.

    Example:
        >>> as_comment(["a.csv: 3 rows", "b\nc"])
        '# a.csv: 3 rows\n# b\n# c\n'
    """
    comment_lines = [f"# {line}\n" for line in "\n".join(lines).splitlines()]
    return "".join(comment_lines)


def _append_block(
    lines: list[str], block: Mapping[str, Any], comments: Mapping[str, str], indent: str
) -> None:
    for key, value in block.items():
        if key in comments:
            lines.append(f"{indent}# {comments[key]}")
        if key in ("trainer", "model", "data", "init_args"):
            lines.append(f"{indent}{key}:")
            _append_block(lines, value, comments, f"{indent}  ")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=WIDTH)
            text = text.removesuffix("...\n")  # after a value that is neither list nor block
            lines.append(f"{indent}{key}: {text.strip()}")
