"""The settings in which runs differ, and short names and texts for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

IGNORED = {
    "run",
    "answers",
    "ckpt_path",
    "weights_only",
    "seed_everything",
    "samples",
    "save_every",
    "plugin_timeout",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.default_root_dir",
}
"""Settings that say where a run writes or what it shows, and not what it learns."""


NOTHING = "-"
"""What stands in a table for null."""


class Absent(Enum):
    """The value of a setting that a run does not have, since it names another class."""

    ABSENT = auto()


ABSENT = Absent.ABSENT


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The value in each run of the settings that are not the same in all of them, by path.

    A class stands as its name, and its settings are compared where several runs have them. A setting that only another
    class has is None.

    Args:
        configs: the settings of each run, as in its ``config.yaml``.

    Example:
        >>> dpo = {"objective": {"class_path": "lit_align.objectives.dpo.DPO", "init_args": {"beta": 0.1}}}
        >>> ipo = {"objective": {"class_path": "lit_align.objectives.ipo.IPO", "init_args": {"beta": 0.5}}, "run": "x"}
        >>> differing_settings([dpo, ipo])
        {'objective': ['DPO', 'IPO'], 'objective.beta': [0.1, 0.5]}
    """
    differences: dict[str, list[Any]] = {}
    _compare("", list(configs), differences)
    return differences


def _compare(path: str, values: list[Any], differences: dict[str, list[Any]]) -> None:
    """Add what differs at a path and below it."""
    present = [value for value in values if value is not ABSENT]
    if path in IGNORED or not present:
        return
    if not all(isinstance(value, Mapping) for value in present):
        _record(path, values, differences)
        return
    has_same_class = True
    if any("class_path" in value for value in present):
        names = [_class_name(value) for value in values]
        _record(path, names, differences)
        has_same_class = path not in differences
        values = [_arguments(value) for value in values]
    for key in _keys(values):
        missing = None if has_same_class else ABSENT
        below = [ABSENT if value is ABSENT else value.get(key, missing) for value in values]
        _compare(f"{path}.{key}" if path else key, below, differences)


def _record(path: str, values: list[Any], differences: dict[str, list[Any]]) -> None:
    texts = {setting_text(value) for value in values if value is not ABSENT}
    if len(texts) > 1:
        differences[path] = [None if value is ABSENT else value for value in values]


def _class_name(value: Any) -> Any:
    if value is ABSENT:
        return ABSENT
    return str(value.get("class_path")).rpartition(".")[2]


def _arguments(value: Any) -> Any:
    if value is ABSENT:
        return ABSENT
    return {**(value.get("init_args") or {}), **(value.get("dict_kwargs") or {})}


def _keys(values: Sequence[Any]) -> list[str]:
    """The keys of all values, in the order in which they come first."""
    keys: dict[str, None] = {}
    for value in values:
        if value is not ABSENT:
            keys.update(dict.fromkeys(value))
    return list(keys)


def setting_text(value: Any) -> str:
    """A value in few characters; settings that are null or empty are left out.

    Example:
        >>> setting_text({"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-05, "foreach": None}})
        'SGD(lr 1e-05)'
        >>> setting_text({"shape": "cosine", "warmup": 0.05}), setting_text(["a", 2]), setting_text(None)
        ('shape cosine, warmup 0.05', 'a, 2', '-')
    """
    if value is None:
        return NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(map(setting_text, value)) or NOTHING
    if not isinstance(value, Mapping):
        return str(value)
    if "class_path" in value:
        inside = setting_text(_arguments(value))
        name = str(_class_name(value))
        return name if inside == NOTHING else f"{name}({inside})"
    parts = []
    for name, setting in value.items():
        text = setting_text(setting)
        if text != NOTHING:
            parts.append(f"{name} {text}")
    return ", ".join(parts) or NOTHING


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """For each path its last words, as many as tell it from the others.

    Example:
        >>> short_names(["model.optimizer.lr", "model.seed", "data.seed"])
        {'model.optimizer.lr': 'lr', 'model.seed': 'model.seed', 'data.seed': 'data.seed'}
    """
    names = {}
    for path in paths:
        words = path.split(".")
        for count in range(1, len(words) + 1):
            name = ".".join(words[-count:])
            ends = [other for other in paths if f".{other}".endswith(f".{name}")]
            if len(ends) == 1:
                break
        names[path] = name
    return names
