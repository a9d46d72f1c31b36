"""What one can start with: the tasks of ``lit-align init TASK`` and ``lit-align fit --task TASK``. Imports little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_align.cli.packaged_configs import config_names
from lit_align.errors import ConfigError, UnknownName
from lit_align.package_files import packaged_folder
from lit_align.registry import closest_name


@dataclass(frozen=True)
class Task:
    """One way to train, or another thing to start.

    Args:
        name: as it is typed.
        summary: what it does, in one line.
        config: the packaged config that it starts from; empty for what is not trained on text.
        label_kind: what its rows must hold.
        needs_reward: whether the settings must name a reward.
    """

    name: str
    summary: str
    config: str = ""
    label_kind: str = ""
    needs_reward: bool = False

    @property
    def columns(self) -> str:
        """Columns of the simplest rows that fit."""
        return COLUMNS[self.label_kind]

    def settings(self) -> dict[str, Any]:
        """The settings of its packaged config."""
        settings: dict[str, Any] = _read_config(self.config)
        return settings


COLUMNS = {
    "demonstrations": "prompt and completion, or messages",
    "pairs": "prompt, chosen and rejected",
    "desirable": "prompt, completion and label (true or false)",
    "ranking": "prompt, responses and ranking (1 for the best)",
    "prompts": "prompt",
    "responses": "prompt and responses, or chosen and rejected",
    "examples": "a file of images, series or sound, or a table with the column target",
}
"""Columns of the simplest rows with each kind of label."""

SIMPLEST = {
    "demonstrations": ("prompt", "completion"),
    "pairs": ("prompt", "chosen", "rejected"),
    "desirable": ("prompt", "completion", "label"),
    "ranking": ("prompt", "responses", "ranking"),
    "prompts": ("prompt",),
}
"""The names of these columns, for tasks that train on text."""

TASKS = (
    Task("sft", "imitate conversations or completions", "sft", "demonstrations"),
    Task("reward", "train a reward model on pairs", "reward", "pairs"),
    Task("dpo", "learn from pairs: one response is better than another", "dpo", "pairs"),
    Task("kto", "learn from binary labels: good or bad", "kto", "desirable"),
    Task("ranking", "learn from rankings of several responses", "ranking", "ranking"),
    Task("ppo", "reinforcement learning with a reward and a critic", "ppo", "prompts", True),
    Task("grpo", "reinforcement learning with a reward, no critic", "grpo", "prompts", True),
    Task("rlaif", "PPO with a language model's scores as the reward", "rlaif_ppo", "prompts"),
    Task("online-dpo", "DPO on the model's own responses, judged", "online_dpo", "prompts"),
    Task("online-kto", "KTO on the model's own responses", "online_kto", "prompts", True),
    Task(
        "rejection-sampling",
        "SFT on the best of the model's own responses",
        "rejection_sampling",
        "prompts",
        True,
    ),
    Task("spin", "prefer the data's responses to the model's own", "spin", "demonstrations"),
    Task("self-rewarding", "DPO; the model judges itself", "self_rewarding", "prompts"),
)
"""Tasks that train on text."""

OTHER_TASKS = (
    Task("label", "a web page where people compare responses", "", "responses"),
    Task("orca", "train on data that are not text", "", "examples"),
    Task("plugin", "a package with a loss or a reward of your own: init plugin NAME"),
)

EXAMPLE = "lit-align init dpo --base Qwen/Qwen3-8B --data my.csv --card 24"


def list_tasks() -> str:
    """One line for each task, and what to type next."""
    tasks = (*TASKS, *OTHER_TASKS)
    width = max(len(task.name) for task in tasks)
    lines = ["lit-align init TASK writes a YAML for your model, data and GPU. The tasks are", ""]
    for task in tasks:
        rows = f"; rows with {task.columns}" if task.label_kind else ""
        lines.append(f"  {task.name:<{width}}  {task.summary}{rows}")
    lines += ["", f"For example: {EXAMPLE}", "lit-align init --help lists the options."]
    return "\n".join(lines)


def find_task(name: str, tasks: Sequence[Task] = (*TASKS, *OTHER_TASKS)) -> Task:
    """The task of that name.

    Raises:
        UnknownName: with what was probably meant.

    Example:
        >>> find_task("dpo").label_kind
        'pairs'
        >>> find_task("simpo")
        Traceback (most recent call last):
        lit_align.errors.UnknownName: 'simpo' is an objective and no task; add --objective SimPO to the task dpo
    """
    by_name = {task.name: task for task in tasks}
    if name in by_name:
        return by_name[name]
    lower = name.lower().replace("_", "-")
    if lower in by_name:
        return by_name[lower]
    objective = _objective_task(name)
    if objective:
        raise UnknownName(objective)
    closest = closest_name(name, by_name)
    config = _config_called(name)
    if config:
        raise UnknownName(
            f"no task is called {name!r}, but a packaged config is; begin with {config}"
        )
    hint = f"did you mean {closest}? There are" if closest else "there are"
    raise UnknownName(f"no task is called {name!r}; {hint} {', '.join(by_name)}")


def _config_called(name: str) -> str:
    """The options that name a packaged config, with the tiny one of it; empty if there is none of that name."""
    names = config_names()
    lower = name.lower().replace("-", "_")
    if lower not in names:
        return ""
    tiny = f" (-c tiny/{lower} on a CPU)" if f"tiny/{lower}" in names else ""
    return f"lit-align fit -c {lower}{tiny}"


def objective_settings(task: Task, name: str) -> Any:
    """An objective with all its arguments, from its packaged config.

    Args:
        task: that it is for.
        name: of the objective; letter case does not matter.

    Raises:
        ConfigError: if there is none of that name, or it learns from other data than the task.

    Example:
        >>> objective_settings(find_task("dpo"), "simpo")
        {'class_path': 'SimPO', 'init_args': {'beta': 2.0, 'gamma': 1.0}}
    """
    names = _objective_names()
    if name.lower() not in names:
        closest = closest_name(name, names)
        listed = ", ".join(sorted(names.values()))
        hint = f"did you mean {names[closest]}?" if closest else f"there are {listed}"
        raise ConfigError(f"no packaged objective is called {name!r}; {hint}")
    objective = names[name.lower()]
    settings, model = task.settings(), _read_objective(objective)["model"]
    usual = _read_config(_usual_config(objective))["data"]["class_path"]
    is_same_stage = model["class_path"] == settings["model"]["class_path"]
    if not is_same_stage or settings["data"]["class_path"] not in (usual, "Online"):
        raise ConfigError(
            f"{objective} is trained by {model['class_path']} on {usual}, and the task {task.name} is "
            f"{settings['model']['class_path']} on {settings['data']['class_path']}; choose another one of the two"
        )
    return model["init_args"]["objective"]


def _objective_task(name: str) -> str:
    """A sentence for a name that is one of an objective; empty for others."""
    objective = _objective_names().get(name.lower())
    if objective is None:
        return ""
    config = _usual_config(objective)
    task = Path(config).stem
    if task not in {task.name for task in TASKS}:
        return f"{name!r} is an objective and no task; start from the packaged config: lit-align fit -c {config}"
    return f"{name!r} is an objective and no task; add --objective {objective} to the task {task}"


def _objective_names() -> dict[str, str]:
    """Names of the objectives with a packaged config, by their names in lower case."""
    names = {}
    for config in config_names():
        folder, _, name = config.rpartition("/")
        if folder == "objectives":
            names[name.lower()] = name
    return names


def _usual_config(objective: str) -> str:
    """The config that an objective's own one is laid over, as its first line says."""
    path = packaged_folder("configs") / "objectives" / f"{objective}.yaml"
    words = path.read_text("utf-8").split("\n")[0].split()
    return words[words.index("-c") + 1].removeprefix("configs/").removesuffix(".yaml")


def _read_objective(objective: str) -> Any:
    return _read_config(f"objectives/{objective}")


def _read_config(name: str) -> Any:
    path = packaged_folder("configs") / f"{name}.yaml"
    return yaml.safe_load(path.read_text("utf-8"))
