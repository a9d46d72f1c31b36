"""One sentence for each mistake in a YAML or on the command line, with what was probably meant.

jsonargparse answers a mistake with its whole usage, or with the types it tried; what it found is in the message, and
this module reads it from there. The wording is that of the pinned version, and a test holds each.
"""

from __future__ import annotations

import collections.abc
import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from lit_align.errors import AmbiguousName
from lit_align.plugins import load_plugins
from lit_align.registry import closest

COMMANDS = (
    "fit",
    "validate",
    "test",
    "predict",
    "inspect",
    "judge",
    "evaluate",
    "export",
    "chat",
    "plugins",
)
SECTIONS = ("trainer", "model", "data", "lora", "base", "optimizer", "lr_scheduler")
BASES = {
    "model": "lit_align.stages.base.Stage",
    "data": "lightning.pytorch.LightningDataModule",
    "reward": "lit_align.rewards.Reward",
    "feedback": "lit_align.feedback.Feedback",
}
RUN = ("run", "save_every", "trainer", "model", "data", "ckpt_path")
LISTED = 20  # more names than this are no help


def explain(message: str, settings: Iterable[str] = RUN) -> str:
    """What is wrong and what was probably meant of the command's ``settings``, or the message as it is."""
    return (
        "\n".join(dict.fromkeys(_sentences(message, settings)))
        or "\n".join(_unfit(message))
        or message
    )


def _sentences(message: str, settings: Iterable[str]) -> Iterator[str]:
    for path, option in re.findall(
        r"class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", message
    ):
        yield f"{path.rsplit('.', 1)[1]} takes no {option!r}{near(option, _parameters(path))}"
    for option, path in re.findall(
        r"Option '(\w+)' is not accepted\. Got value: \w+\(class_path='([\w.]+)'", message
    ):
        yield f"{path.rsplit('.', 1)[1]} takes no {option!r}{near(option, _parameters(path))}"
    for path, option in re.findall(
        r"Problem with given class_path '([\w.]+)':\s+.*?Key '([\w.]+)' is required", message
    ):
        yield f"{path.rsplit('.', 1)[1]} needs {option!r}; set it in the YAML or on the command line"
    for path, options in re.findall(
        r"class_path '([\w.]+)':\s+the following arguments are required: (.+)", message
    ):
        yield f"{path.rsplit('.', 1)[1]} needs {options}; set it in the YAML or on the command line"
    for options in re.findall(r"\A *the following arguments are required: (.+)", message):
        needed = " and ".join(option.rpartition(".")[2] for option in options.split(", "))
        yield f"there is no {needed}; give a YAML that says it with -c FILE"
    for command in re.findall(r"argument subcommand: invalid choice: '([^']*)'", message):
        yield f"there is no command {command!r}{near(command, COMMANDS)}"
    for name, paths in re.findall(
        r"Multiple subclasses with name (\w+)\. .*ambiguity:\s+(.+)\.", message
    ):
        yield (
            _clash(name)
            or f"{name} is the name of several classes; use {' or '.join(paths.split(', '))}"
        )
    if 'expected "subcommand" to be one of' in message:
        yield f"the command is missing; start with one of {', '.join(COMMANDS)}, as in lit-align fit -c FILE"
    for found in re.finditer(r"Expected a dot import path string: (\S+)", message):
        yield from _misnamed(found[1], message[: found.start()])
    yield from _unimportable(message)
    for key in re.findall(
        r"(?:does not accept option '|unrecognized arguments: --)([\w.]+)", message
    ):
        key = key if key.split(".")[0] in SECTIONS else key.split(".")[0]
        yield f"unknown key {key!r}{near(key.rsplit('.', 1)[-1], _settings(key) or settings)}"
    for key, kind, value in re.findall(
        r"Parser key \"([\w.]+)\":\s+Expected an? <class '(\w+)'>. Got value: (.+)", message
    ):
        yield f"{key} is {value.strip()!r}, which is no {kind}; correct it"
    for key, choices, value in re.findall(
        r"Parser key \"([\w.]+)\":\s+Expected a typing\.Literal\[(.+)\]\. Got value: (.+)", message
    ):
        yield f"{key} is {value.strip()!r}; choose from {choices}"
    # what a class said of its own settings
    yield from re.findall(
        r"Errors:\n *- (?!Expected|Problem|Type )(.+)\n *- Expected a <class 'NoneType'>", message
    )
    for key in re.findall(
        r"Parser key \"(\w+)\":[^']+'[\w.]+'[^']+'NoneType'[^']+but [\w.]+ is abstract", message
    ):
        yield f"{key} has no class yet; name it before its settings, as in --model=Preference --data=Comparisons"
    for file in re.findall(r"File does not exist: '([^']+)'", message):
        yield f"there is no file {file}; check the path after -c"
    for why in re.findall(r"Problems parsing config: (.+)", message, re.DOTALL):
        yield f"the YAML cannot be read: {' '.join(why.split())}; correct it"


def _misnamed(name: str, before: str) -> Iterator[str]:
    """What to say of a short name that does not resolve; ``before`` is the message up to it."""
    key, types = _asked(before)
    if kind := re.search(r"<class '(float|int|bool|str)'>", types):
        yield f"{key} is {name!r}, which is no {kind[1]}; correct it"
        return
    fitting = _fitting(key, before)
    if name not in _names():
        yield f"nothing is called {name!r}{near(name, fitting or _names())}"
    elif key == "objective" and name in load_plugins().objectives:
        objective: Any = load_plugins().objectives[name]
        scores = "RewardModel" if objective.for_reward_model else "Preference"
        stage = {"demonstrations": "SFT", "prompts": "RL"}.get(objective.label_kind, scores)
        yield f"{name} learns from {objective.label_kind}; use the stage {stage}"
    else:
        others = near("", fitting) or "; `lit-align plugins` says what is what"
        yield f"{name} is of another kind than what is asked for here{others}"


def _unimportable(message: str) -> Iterator[str]:
    """What to say of a full path that does not lead to what is asked for."""
    for path, module in re.findall(
        r"Problem with given class_path '([\w.]+)':\s+No module named '([\w.]+)'", message
    ):
        yield f"{path} cannot be imported: there is no module {module!r}; install it, or put its folder on PYTHONPATH"
    for module, name in re.findall(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        yield f"{module} has no {name!r}{near(name, (one for one in vars(import_module(module)) if one[0].isupper()))}"
    for path, kind in re.findall(
        r"Import path ([\w.]+) does not correspond to a subclass of (\w+)", message
    ):
        yield f"{path} is no {kind}; name a class that derives from it"
    for path in re.findall(r"Importing '([\w.]+)' is not allowed", message):
        yield f"{path} may not be named in settings, since it can run anything; remove it"


def _unfit(message: str) -> Iterator[str]:
    """What to say of a value that is none of several types."""
    key, types = _asked(message)
    value = re.findall(r"Given value: (.+)", message.rpartition('Parser key "')[2])
    choices = re.findall(
        r"Literal\[(.+?)\]|<class '(?:\w+\.)*(\w+)'>|((?:list|dict)\[.+?\])(?:,|\])", types
    )
    names = [name for choice in choices for name in choice if name and name != "NoneType"]
    if names and value:
        yield f"{key} is {value[0]}, which is none of {', '.join(names)}; correct it"


def near(name: str, known: Iterable[str]) -> str:
    """A suggestion, or what there is.

    Example:
        >>> near("dpo", ["DPO", "IPO"]), near("beta", ["gamma"]), near("x", [])
        ('; did you mean DPO?', '; there are gamma', '')
    """
    known = sorted(set(known))
    if one := closest(name, known):
        return f"; did you mean {one}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= LISTED else ""


def _asked(before: str) -> tuple[str, str]:
    """The key that the end of ``before`` is about, and the types that were tried for it."""
    _, found, rest = before.rpartition('Parser key "')
    key = rest.partition('"')[0] if found else ""
    types = re.findall(r"Subtypes: (.+)", rest)
    return key, types[-1] if types else ""


def _fitting(key: str, before: str) -> list[str]:
    """Names of the classes that a key takes, if they are few or it is known which."""
    owners = re.findall(r"Problem with given class_path '([\w.]+)'", before)
    if key in BASES:
        bases = [_load(BASES[key])]
    elif key.startswith("trainer."):
        bases = _annotated(_load("lightning.pytorch.Trainer"), key.removeprefix("trainer."))
    else:
        bases = _annotated(_load(owners[-1]), key) if owners else []
    names = {
        cls.__name__ for base in bases for cls in _subclasses(base) if not inspect.isabstract(cls)
    }
    return sorted(name for name in names if not name.startswith("_"))


def _annotated(cls: type, key: str) -> list[type]:
    """The classes in the annotation of a setting."""
    for parent in cls.__mro__[:-1]:
        if key in inspect.signature(parent.__init__).parameters:  # type: ignore[misc]
            try:
                return list(_classes(typing.get_type_hints(parent.__init__)[key]))  # type: ignore[misc]
            except (
                NameError,
                KeyError,
            ):  # a stranger's class may import its types for the type checker alone
                return []
    return []


def _classes(annotation: Any) -> Iterator[type]:
    inside = typing.get_args(annotation)
    for one in inside[-1:] if typing.get_origin(annotation) is collections.abc.Callable else inside:
        yield from _classes(one)
    if not inside and inspect.isclass(annotation) and annotation.__module__ != "builtins":
        yield annotation


def _clash(name: str) -> str | None:
    """Who offers ``name``, if it is plugins that do."""
    for registry in load_plugins().registries.values():
        try:
            registry.get(name)
        except AmbiguousName as error:
            return str(error)
    return None


def _names() -> list[str]:
    """Everything that a YAML may call by its short name."""
    kinds = (
        *BASES.values(),
        "lit_align.orca.distances.DatasetDistance",
        "lit_align.orca.modalities.Modality",
    )
    classes = [cls.__name__ for kind in kinds for cls in _subclasses(_load(kind))]
    return [name for registry in load_plugins().registries.values() for name in registry] + classes


def _subclasses(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def _settings(key: str) -> list[str]:
    """What stands at the level of a key: settings of the trainer, an adapter or a base; none at the command's own."""
    if key.startswith("trainer."):
        return list(inspect.signature(_load("lightning.pytorch.Trainer")).parameters)
    if key.startswith("lora."):
        return list(_parameters("lit_align.models.adapter_set.Lora"))
    if key.startswith("base."):
        return list(_parameters("lit_align.models.load.Base"))
    return []


def _parameters(path: str) -> set[str]:
    """Names of the settings of a class, those of its parents included."""
    own = (vars(cls)["__init__"] for cls in _load(path).__mro__[:-1] if "__init__" in vars(cls))
    return {name for init in own for name in inspect.signature(init).parameters} - {
        "self",
        "settings",
        "args",
        "kwargs",
    }


def _load(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(import_module(module), name)
    return found
