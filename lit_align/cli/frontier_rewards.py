"""Which of the rewards that a run has recorded are the gold and the proxy that are asked for: class and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from lit_align.errors import AmbiguousName, ConfigError, UnknownName
from lit_align.plugins import load_plugins
from lit_align.rewards import Reward
from lit_align.run_report.record import CONFIG, RunRecord, read_config, read_optional

PLACES = {"RL": ("model", "reward"), "best-of-n": ("model", "best_of", "reward")}
"""Where the configuration of a run has its reward."""


class Rewards(NamedTuple):
    """The two rewards of a frontier.

    Args:
        gold: what is wanted.
        proxy: what was optimised; None: what the run was trained on.
    """

    gold: Reward
    proxy: Reward | None

    @property
    def gold_part(self) -> str:
        """The name under which runs log the gold reward, if it is a part of their own."""
        return type(self.gold).__name__

    @property
    def proxy_part(self) -> str | None:
        """Likewise of the proxy."""
        return None if self.proxy is None else type(self.proxy).__name__


class RecordedRewards:
    """The rewards that a run has recorded, and their settings if the run has written its configuration.

    Args:
        folder: of the run.
        method: ``RL`` or ``best-of-n``.
        parts: names under which the run has logged rewards.
    """

    def __init__(self, folder: Path, method: str, parts: Sequence[str]) -> None:
        self.folder, self.parts = folder, parts
        record = RunRecord(folder, config=read_config(folder / CONFIG))
        self.whole = _as_settings(record.setting(*PLACES[method]))
        self.settings = _part_settings(self.whole)
        self.whole_class = _class_name(self.whole) or _class_in_text(folder)

    def gold(self, rewards: Rewards, can_compute: bool = False) -> str | None:
        """The name of the part that is gold; None if there is none.

        Args:
            rewards: that are asked for.
            can_compute: whether another gold than the recorded one can be computed from texts.

        Raises:
            ConfigError: if the run has recorded a reward of the class with other settings, or several that cannot be
                told apart.
        """
        return self._find(rewards.gold, "gold", rewards, can_compute)

    def proxy(self, rewards: Rewards) -> str | None:
        """The name of the part that is the proxy; None if that is the run's own score.

        Raises:
            ConfigError: as for gold, and if the run has recorded only others.
        """
        if rewards.proxy is None:
            return None
        part = self._find(rewards.proxy, "proxy", rewards)
        if part is not None:
            return part
        if self.whole_class == rewards.proxy_part or (not self.whole_class and not self.parts):
            if self.whole:
                self._refuse_others([self.whole], rewards.proxy, "proxy")
            return None
        raise ConfigError(
            f"{self.folder} has recorded no {rewards.proxy_part}, only "
            f"{', '.join(self.parts) or self.whole_class}; leave proxy out to take the score that the run was trained "
            "on, or name a reward that it recorded"
        )

    def _find(
        self, reward: Reward, role: str, rewards: Rewards, can_compute: bool = False
    ) -> str | None:
        name = type(reward).__name__
        alike = [part for part in self.parts if re.fullmatch(rf"{re.escape(name)}\d*", part)]
        by_part = {part: self.settings[part] for part in alike if part in self.settings}
        if len(by_part) < len(alike):
            self._refuse_ambiguous(alike, name, rewards)
            return alike[0]
        equal = [part for part, settings in by_part.items() if not differences(settings, reward)]
        if not equal and alike and not can_compute:
            self._refuse_others(list(by_part.values()), reward, role)
        return equal[0] if equal else None

    def _refuse_ambiguous(self, alike: Sequence[str], name: str, rewards: Rewards) -> None:
        """Without settings, parts have the names of their classes only: of two of one class nobody knows which."""
        if len(alike) > 1:
            raise ConfigError(
                f"{self.folder} has recorded {', '.join(alike)}, and which of them is the {name} that is asked for "
                f"cannot be told without its {CONFIG}; give data and the folder of a run that recorded none of them, "
                "or a table of kl, proxy and gold"
            )
        if rewards.gold_part == rewards.proxy_part:
            raise ConfigError(
                f"{self.folder} has recorded {name}, and gold and proxy are both of that class, so that they cannot be "
                f"told apart without its {CONFIG}; leave proxy out to take the score that the run recorded, or give a "
                "table of kl, proxy and gold"
            )

    def _refuse_others(
        self, recorded: Sequence[Mapping[str, Any]], reward: Reward, role: str
    ) -> None:
        unequal = [differences(settings, reward) for settings in recorded]
        if not all(unequal):
            return
        sentences = " and ".join(", ".join(names) for names in unequal)
        raise ConfigError(
            f"{self.folder} has recorded {type(reward).__name__} with {sentences}: another reward than the {role} that "
            f"is asked for; give {role} the settings of the run, or leave the run out"
        )


def differences(recorded: Mapping[str, Any], reward: Any) -> list[str]:
    """Settings in which a recorded reward differs from one that is asked for, each in words.

    Args:
        recorded: ``class_path`` and ``init_args``, as configurations have them.
        reward: a reward, or what it is made of.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> differences({"class_path": "Length", "init_args": {"max_words": 4, "min_words": 0}}, Length(8))
        ['max_words 4 (not 8)']
    """
    class_name = _class_name(recorded)
    if class_name != type(reward).__name__:
        return [f"{class_name} (not {type(reward).__name__})"]
    written = recorded.get("init_args") or {}
    unequal = []
    for name, default in _defaults(reward).items():
        value, wanted = written.get(name, default), getattr(reward, name)
        if is_dataclass(wanted) and isinstance(value, Mapping):
            unequal += [f"{name}.{part}" for part in differences(value, wanted)]
        elif not _is_equal(value, wanted):
            unequal.append(f"{name} {value!r} (not {_shown(wanted)})")
    return unequal


def trained_on(path: str) -> dict[str, Any] | None:
    """The settings of the reward on which a run was trained or its best answers chosen; None if it has none written."""
    record = RunRecord(Path(path), config=read_config(Path(path) / CONFIG))
    for place in reversed(PLACES.values()):
        settings = _as_settings(record.setting(*place))
        if settings:
            return settings
    return None


def is_same_reward(first: Any, second: Any) -> bool:
    """Whether two recorded settings are of one reward: what only one of them has written is as by default in the other.

    Args:
        first: a reward as configurations have it, or a value in one.
        second: of another run, perhaps of a version that had fewer settings.

    Example:
        >>> first = {"class_path": "Length", "init_args": {"max_words": 4}}
        >>> second = {"class_path": "Length", "init_args": {"max_words": 4, "min_words": 0}}
        >>> is_same_reward(first, second), is_same_reward(first, {**second, "init_args": {"max_words": 8}})
        (True, False)
    """
    if isinstance(first, list) and isinstance(second, list):
        pairs = zip(first, second, strict=False)
        return len(first) == len(second) and all(is_same_reward(*pair) for pair in pairs)
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return _is_equal(first, second)
    if "class_path" not in first or "class_path" not in second:
        return first == second
    if _class_name(first) != _class_name(second):
        return False
    defaults = _defaults(_reward_class(_class_name(first)))
    arguments = [_as_settings(settings.get("init_args")) for settings in (first, second)]
    return all(
        _is_same_argument(
            [written[name] for written in arguments if name in written], defaults, name
        )
        for name in {**arguments[0], **arguments[1]}
    )


def _is_same_argument(written: Sequence[Any], defaults: Mapping[str, Any], name: str) -> bool:
    if len(written) == 2:
        return is_same_reward(*written)
    return name in defaults and _is_equal(written[0], defaults[name])


def _reward_class(name: str) -> type | None:
    """The reward of that name; None if it is not installed, or several are."""
    try:
        return load_plugins().rewards[name]
    except (UnknownName, AmbiguousName):
        return None


def in_words(settings: Mapping[str, Any]) -> str:
    """A recorded reward with the settings that are written."""
    arguments = dict(settings.get("init_args") or {})
    if "rewards" in arguments and "weights" in arguments:
        weighted = zip(arguments["rewards"], arguments["weights"], strict=True)
        return " + ".join(
            f"{weight} {in_words(_as_settings(reward))}" for reward, weight in weighted if weight
        )
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{_class_name(settings)}({written})"


def _part_settings(summed: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The settings of the rewards that a weighted sum logs, under the names that it gives them."""
    by_name: dict[str, Mapping[str, Any]] = {}
    for index, reward in enumerate((summed.get("init_args") or {}).get("rewards") or []):
        settings = _as_settings(reward)
        name = _class_name(settings)
        while name in by_name:
            name = f"{name}{index}"
        by_name[name] = settings
    return by_name


def _as_settings(value: Any) -> dict[str, Any]:
    """A class with its settings; of a name alone there are none."""
    if isinstance(value, str):
        return {"class_path": value}
    return dict(value) if isinstance(value, Mapping) else {}


def _class_name(settings: Mapping[str, Any]) -> str:
    return str(settings.get("class_path") or "").rpartition(".")[2]


def _class_in_text(folder: Path) -> str:
    """The class of the reward in what best-of-n has written."""
    return str(read_optional(folder / "best_of.json").get("reward", "").partition("(")[0])


def _defaults(reward: Any) -> dict[str, Any]:
    """The settings of a dataclass with their defaults."""
    if not is_dataclass(reward):
        return {}
    defaults = {}
    for field in fields(reward):
        default = None if field.default is MISSING else field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        defaults[field.name] = default
    return defaults


def _is_equal(written: Any, wanted: Any) -> bool:
    """Whether a value of a configuration stands for that of a reward."""
    if isinstance(wanted, Enum):
        return written in (wanted.value, wanted.name)
    if isinstance(wanted, list | tuple) and isinstance(written, list | tuple):
        pairs = zip(written, wanted, strict=False)
        return len(written) == len(wanted) and all(_is_equal(*pair) for pair in pairs)
    if is_dataclass(wanted):
        return not differences(_as_settings(written), wanted)
    if isinstance(written, str | Path) and isinstance(wanted, str | Path):
        return str(written) == str(wanted) or Path(written).resolve() == Path(wanted).resolve()
    return bool(written == wanted)


def _shown(wanted: Any) -> str:
    return repr(wanted.value if isinstance(wanted, Enum) else wanted)
