"""Where a setting belongs that stands at another place: by the classes whose settings a run has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from lit_align.cli.setting_names import parameters_of
from lit_align.coming_from_others import setting_elsewhere
from lit_align.package_files import packaged_folder
from lit_align.plugins import load_plugins
from lit_align.registry import closest_name

RUN_SETTINGS = (
    "run",
    "save_every",
    "samples",
    "float32_matmul_precision",
    "plugin_timeout",
    "trainer",
    "model",
    "data",
    "ckpt_path",
)
RUN_BLOCKS = ("trainer", "model", "data")
SEEDS = ("seed", "random_seed", "data_seed")
MAX_LISTED = 20  # a longer list of names is no help
FAR_AND_WIDE = 3  # places; a name with more of them is no hint

PARTS = ("model.objective", "model.reward", "data.feedback")
"""Sections whose settings are less probably meant than those of the run as a whole."""

SEED_ADVICE = (
    "; set model.seed (of weights, dropout and sampling) and data.seed (of the order of steps)"
)

Homes = dict[str, dict[str, list[str]]]
"""Setting -> section, such as ``model.lora`` -> names of the classes there that have it."""


def suggestion(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant, or the names there are, if they are few.

    Example:
        >>> suggestion("dpo", ["DPO", "IPO"]), suggestion("beta", ["gamma"]), suggestion("x", [])
        ('; did you mean DPO?', '; there are gamma', '')
    """
    names = sorted(set(names))
    closest = closest_name(name, names)
    if closest:
        return f"; did you mean {closest}?"
    return f"; there are {', '.join(names)}" if 0 < len(names) <= MAX_LISTED else ""


def advice(name: str, section: str, names: Iterable[str]) -> str:
    """What to do about a setting that is not known where it stands.

    Args:
        name: of the setting.
        section: dotted path of the settings that it stands among, without ``init_args``; empty at the top.
        names: of the settings there.

    Example:
        >>> advice("batch_size", "model", ["baseline_size"])
        '; write data.batch_size instead'
        >>> advice("max_step", "trainer", ["max_steps", "devices"])
        '; did you mean max_steps?'
        >>> advice("lora_rank", "", ["run"])
        '; write model.lora.r instead'
    """
    names = list(names)
    if name in SEEDS:
        return SEED_ADVICE
    if name in names:  # written with dashes
        return f"; write {_joined(section, name)}"
    if section.partition(".")[0] not in ("", *RUN_BLOCKS):
        return suggestion(name, names)  # of a command that trains nothing
    sections = {} if name in RUN_BLOCKS else dict(setting_homes().get(name, {}))
    if section in PARTS:  # a reward's setting is not what an objective lacks
        sections = {
            home: sections[home] for home in sections if home == section or home not in PARTS
        }
    if section in sections:
        return f"; it is a setting of {' and '.join(sections[section][:FAR_AND_WIDE])}"
    elsewhere = setting_elsewhere(name)
    if elsewhere:
        return f"; {elsewhere}"
    if sections and len(sections) <= FAR_AND_WIDE:
        return f"; write {' or '.join(_joined(home, name) for home in sections)} instead"
    if closest_name(name, names) is None:
        misspelled = closest_name(name, setting_homes())
        if misspelled and misspelled != name and len(setting_homes()[misspelled]) == 1:
            (home,) = setting_homes()[misspelled]
            if section not in PARTS or home not in PARTS:
                return f"; did you mean {_joined(home, misspelled)}?"
    return suggestion(name, names)


def advice_without_imports(name: str) -> str | None:
    """What `advice` says about a key at the top of a YAML, where it needs no class to know; None elsewhere.

    Args:
        name: of the key.

    Example:
        >>> advice_without_imports("trainner"), advice_without_imports("batch_size")
        ('; did you mean trainer?', None)
    """
    if name in SEEDS:
        return SEED_ADVICE
    elsewhere = setting_elsewhere(name)
    if elsewhere:
        return f"; {elsewhere}"
    closest = closest_name(name, RUN_SETTINGS)
    if closest is None or _is_in_a_config(name):
        return None
    return f"; did you mean {closest}?"


def _is_in_a_config(name: str) -> bool:
    """Whether a packaged config has such a setting somewhere: then it is no slip of the pen."""
    key = re.compile(rf"\b{re.escape(name)}:")
    paths = packaged_folder("configs").rglob("*.yaml")
    return any(key.search(path.read_text("utf-8")) for path in paths)


@cache
def setting_homes() -> Homes:
    """Every setting of a run and the sections that have it."""
    homes: Homes = {name: {"": ["the run"]} for name in RUN_SETTINGS}
    run_wide = {name for _, cls in _run_sections() for name in parameters_of(cls)}
    for section, cls in (*_run_sections(), *_part_sections()):
        for name in parameters_of(cls):
            if name in RUN_SETTINGS or (name in run_wide and section in PARTS):
                continue
            classes = homes.setdefault(name, {}).setdefault(section, [])
            if cls.__name__ not in classes:
                classes.append(cls.__name__)
    return homes


def _run_sections() -> Iterator[tuple[str, type]]:
    """Sections that every run has, and classes whose settings they are."""
    from lightning.pytorch import Trainer
    from torch.optim import AdamW

    from lit_align.data import datamodules
    from lit_align.data.labelled_steps import Steps
    from lit_align.data.rated_demonstrations import RatedDemonstrations
    from lit_align.models.load import Base
    from lit_align.models.lora import Lora
    from lit_align.online.datamodule import Online
    from lit_align.rl.critic import Critic
    from lit_align.rl.entropy_bonus import EntropyBonus
    from lit_align.rl.kl_control import KLControl
    from lit_align.rl.stage import RL
    from lit_align.stages.preference import Preference
    from lit_align.stages.reward_model import RewardModel
    from lit_align.stages.schedule import Schedule
    from lit_align.stages.sft import SFT

    yield "trainer", Trainer
    for stage in (SFT, Preference, RewardModel, RL):
        yield "model", stage
    yield from (("model.base", Base), ("model.lora", Lora), ("model.schedule", Schedule))
    yield from (("model.kl", KLControl), ("model.critic", Critic))
    yield "model.entropy_bonus", EntropyBonus
    yield "model.optimizer", AdamW
    for data in (datamodules.Comparisons, Steps, RatedDemonstrations, Online):
        yield "data", data


def _part_sections() -> Iterator[tuple[str, type]]:
    """Sections of the parts that a run is put together of."""
    plugins = load_plugins()
    for objective in plugins.objectives.classes():
        yield PARTS[0], objective
    for reward in plugins.rewards.classes():
        yield PARTS[1], reward
    for source in plugins.feedback.classes():
        yield PARTS[2], source


def _joined(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name
