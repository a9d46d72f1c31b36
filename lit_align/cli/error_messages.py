"""One sentence for each mistake in a YAML or on the command line, with a suggestion.

jsonargparse answers a mistake with its whole usage, or with the types it tried. The cause is in its message, and this
module reads it from there. The wording is that of the pinned version, and a test covers each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from inspect import isabstract
from typing import Any

from lit_align.cli.setting_names import (
    all_names,
    command_names,
    fitting_names,
    import_class,
    parameters_of,
    settings_of_section,
)
from lit_align.coming_from_trl import translation
from lit_align.errors import AmbiguousName
from lit_align.plugins import load_plugins
from lit_align.registry import closest_name

SECTIONS = ("trainer", "model", "data", "lora", "base", "optimizer", "lr_scheduler")
RUN_SETTINGS = (
    "run",
    "save_every",
    "samples",
    "plugin_timeout",
    "trainer",
    "model",
    "data",
    "ckpt_path",
)
MAX_LISTED = 20  # a longer list of names is no help
SEEDS = ("seed", "random_seed", "data_seed")
IN_YAML = "set it in the YAML or on the command line"


def explain(message: str, settings: Iterable[str] = RUN_SETTINGS) -> str:
    """The mistake and a suggestion, or the message as it is.

    Args:
        message: of jsonargparse.
        settings: names of the command's own settings.
    """
    sentences = list(_explanations(message, settings)) or list(_explain_union(message))
    return "\n".join(dict.fromkeys(sentences)) or message


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


def _explanations(message: str, settings: Iterable[str]) -> Iterator[str]:
    for pattern, explain_match in RULES:
        for match in re.finditer(pattern, message):
            yield from explain_match(match)
    unknown_key = (
        r"(Group '[\w.]+' )?(?:does not accept option '|unrecognized arguments: --)([\w.]+)"
    )
    for group, key in re.findall(unknown_key, message):
        if not group:  # a group has a rule
            yield _explain_unknown_key(key, settings)


# ---------------------------------------------------------------- one function for each kind of message


def _explain_option(match: re.Match[str]) -> Iterator[str]:
    """A class has no such setting."""
    if match["option"] == "class_path":  # settings beside it hide that it names a class
        key, _ = _key_and_types(match.string)
        yield _beside_class_path(key, match.string) or f"{key} names no class that fits; correct it"
        return
    path, option = match["path"], match["option"]
    names = parameters_of(import_class(path))
    yield f"{_short(path)} takes no {option!r}{_foreign(option) or suggestion(option, names)}"


def _explain_group_option(match: re.Match[str]) -> Iterator[str]:
    """A group of settings, such as those of LoRA, has no such setting."""
    group, option = match["group"].rpartition(".")[2], match["option"]
    names = settings_of_section(f"{group}.{option}")
    yield f"{group} takes no {option!r}{suggestion(option, names)}"


def _foreign(name: str) -> str:
    """What a name is called here that another library uses; empty if it is not known."""
    if name in SEEDS:
        return "; set model.seed (of weights, dropout and sampling) and data.seed (of the order of steps)"
    here = translation(name)
    return f"; TRL's {name} is {here} here" if here else ""


def _explain_required_key(match: re.Match[str]) -> Iterator[str]:
    yield f"{_short(match['path'])} needs {match['key']!r}; {IN_YAML}"


def _explain_required(match: re.Match[str]) -> Iterator[str]:
    yield f"{_short(match['path'])} needs {match['keys']}; {IN_YAML}"


def _explain_missing(match: re.Match[str]) -> Iterator[str]:
    """A part of the settings of a command is missing."""
    keys = [option.rpartition(".")[2] for option in match["options"].split(", ")]
    hint = (
        " (lit-align init writes one)" if "model" in keys else ""
    )  # else of a command that does not train
    yield f"there is no {' and '.join(keys)}; give a YAML that sets it with -c FILE{hint}"


def _explain_command(match: re.Match[str]) -> Iterator[str]:
    command = match["command"]
    yield f"there is no command {command!r}{suggestion(command, command_names())}"


def _explain_no_command(_: re.Match[str]) -> Iterator[str]:
    commands = ", ".join(command_names())
    yield f"the command is missing; start with one of {commands}, as in lit-align fit -c FILE"


def _explain_ambiguous(match: re.Match[str]) -> Iterator[str]:
    """Several classes have the name."""
    name, paths = match["name"], match["paths"].split(", ")
    for registry in load_plugins().registries.values():
        try:
            registry.get(name)
        except AmbiguousName as error:
            yield str(error)
            return
    yield f"{name} is the name of several classes; use {' or '.join(paths)}"


def _explain_short_name(match: re.Match[str]) -> Iterator[str]:
    """A short name is of no class that fits."""
    name, before = match["name"], match.string[: match.start()]
    key, types = _key_and_types(before)
    basic_type = re.search(r"<class '(float|int|bool|str)'>", types)
    words = re.findall(r"'(\w+)'", " ".join(re.findall(r"Literal\[(.+?)\]", types)))
    if words:
        yield f"{key} is {name!r}{suggestion(name, words)}"
        return
    if basic_type:
        yield f"{key} is {name!r}, which is no {basic_type[1]}; correct it"
        return
    settings = _settings_of_dataclass(types)
    if settings and name not in all_names():
        yield f"{key} is {name!r}, and takes settings by name: {', '.join(settings)}"
        return
    fitting = fitting_names(key, before)
    objectives = load_plugins().objectives
    if name not in all_names():
        yield f"nothing is called {name!r}{suggestion(name, fitting or all_names())}"
    elif key == "objective" and name in objectives:
        objective: Any = objectives[name]
        yield f"{name} learns from {objective.label_kind}; use the stage {_stage_for(objective)}"
    else:
        others = suggestion("", fitting) or "; `lit-align plugins` lists the kinds"
        yield f"{name} is of another kind than what is needed here{others}"


def _settings_of_dataclass(types: str) -> list[str]:
    """The settings of the only class among the types, if it is no base class of others."""
    paths = re.findall(r"<class '([\w.]+\.\w+)'>", types)
    if len(paths) != 1:
        return []
    cls: Any = import_class(paths[0])
    is_group = is_dataclass(cls) and not cls.__subclasses__() and not isabstract(cls)
    return [field.name for field in fields(cls)] if is_group else []


def _stage_for(objective: Any) -> str:
    """The stage that trains an objective."""
    if objective.label_kind == "demonstrations":
        return "SFT"
    if objective.label_kind == "prompts":
        return "RL"
    return "RewardModel" if objective.for_reward_model else "Preference"


def _explain_no_module(match: re.Match[str]) -> Iterator[str]:
    yield (
        f"{match['path']} cannot be imported: there is no module {match['module']!r}; install it, or put its folder on "
        "PYTHONPATH"
    )


def _explain_no_attribute(match: re.Match[str]) -> Iterator[str]:
    module, name = match["module"], match["name"]
    names = [candidate for candidate in vars(import_module(module)) if candidate[0].isupper()]
    yield f"{module} has no {name!r}{suggestion(name, names)}"


def _explain_wrong_base(match: re.Match[str]) -> Iterator[str]:
    yield f"{match['path']} is no {match['base']}; name a class that derives from it"


def _explain_denied(match: re.Match[str]) -> Iterator[str]:
    path = match["path"]
    yield f"{path} may not be named in settings, since it can run anything; remove it"


def _explain_type(match: re.Match[str]) -> Iterator[str]:
    yield f"{match['key']} is {match['value'].strip()!r}, which is no {match['type']}; correct it"


def _explain_choice(match: re.Match[str]) -> Iterator[str]:
    yield f"{match['key']} is {match['value'].strip()!r}; choose from {match['choices']}"


def _explain_class_error(match: re.Match[str]) -> Iterator[str]:
    """The sentence that a class raised for its own settings."""
    yield match["sentence"]


def _beside_class_path(key: str, message: str) -> str | None:
    """What is said of settings that stand beside the name of their class; None if none do."""
    given = re.search(r"Given value: \{'class_path': '[\w.]+', '(\w+)'", message)
    if given is None or given[1] == "init_args":
        return None
    return f"the settings of {key}, such as {given[1]}, stand beside its class_path; indent them under {key}.init_args"


def _explain_no_class(match: re.Match[str]) -> Iterator[str]:
    misplaced = _beside_class_path(match["key"], match.string)
    if misplaced:
        yield misplaced
        return
    yield (
        f"{match['key']} has no class yet; name it before its settings, as in --model=Preference --data=Comparisons"
    )


def _explain_no_file(match: re.Match[str]) -> Iterator[str]:
    yield f"there is no file {match['file']}; check the path after -c"


def _explain_yaml(match: re.Match[str]) -> Iterator[str]:
    reason = " ".join(match["reason"].split()).replace('in "<unicode string>", ', "at ")
    if "character that cannot start any token" in reason and not re.search(r"[%@`]", reason):
        reason += "; a tab is no indentation in YAML, use spaces"
    yield f"the YAML cannot be read: {reason}; correct it"


def _explain_unknown_key(key: str, settings: Iterable[str]) -> str:
    if key.split(".")[0] not in SECTIONS:
        key = key.split(".")[0]
    name = key.rsplit(".", 1)[-1]
    names = settings_of_section(key) or settings
    return f"unknown key {key!r}{_foreign(name) or suggestion(name, names)}"


def _explain_union(message: str) -> Iterator[str]:
    """A value has none of several types."""
    key, types = _key_and_types(message)
    values = re.findall(r"Given value: (.+)", message.rpartition('Parser key "')[2])
    pattern = r"Literal\[(.+?)\]|<class '(?:\w+\.)*(\w+)'>|((?:list|dict)\[.+?\])(?:,|\])"
    names: list[str] = []
    for groups in re.findall(pattern, types):
        names += [name for name in groups if name and name != "NoneType"]
    if names and values:
        yield f"{key} is {values[0]}, which is none of {', '.join(names)}; correct it"


CLASS_PATH = r"class_path '(?P<path>[\w.]+)'"
PARSER_KEY = r"Parser key \"(?P<key>[\w.]+)\":\s+"

RULES: tuple[tuple[str, Callable[[re.Match[str]], Iterator[str]]], ...] = (
    (rf"{CLASS_PATH}:\s+Option '(?P<option>[\w.]+)' is not accepted", _explain_option),
    (
        r"Option '(?P<option>\w+)' is not accepted\. Got value: \w+\(class_path='(?P<path>[\w.]+)'",
        _explain_option,
    ),
    (
        r"Group '(?P<group>[\w.]+)' does not accept option '(?P<option>\w+)'",
        _explain_group_option,
    ),
    (
        rf"Problem with given {CLASS_PATH}:\s+.*?Key '(?P<key>[\w.]+)' is required",
        _explain_required_key,
    ),
    (rf"{CLASS_PATH}:\s+the following arguments are required: (?P<keys>.+)", _explain_required),
    (
        r"(?s)callable class: the following arguments are required: (?P<keys>[\w, ]+).*?"
        r"class_path='(?P<path>[\w.]+)'",
        _explain_required,
    ),
    (r"\A *the following arguments are required: (?P<options>.+)", _explain_missing),
    (r"argument subcommand: invalid choice: '(?P<command>[^']*)'", _explain_command),
    (
        r"Multiple subclasses with name (?P<name>\w+)\. .*ambiguity:\s+(?P<paths>.+)\.",
        _explain_ambiguous,
    ),
    (r'expected "subcommand" to be one of', _explain_no_command),
    (r"Expected a dot import path string: (?P<name>\S+)", _explain_short_name),
    (
        rf"Problem with given {CLASS_PATH}:\s+No module named '(?P<module>[\w.]+)'",
        _explain_no_module,
    ),
    (r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'", _explain_no_attribute),
    (
        r"Import path (?P<path>[\w.]+) does not correspond to a subclass of (?P<base>\w+)",
        _explain_wrong_base,
    ),
    (r"Importing '(?P<path>[\w.]+)' is not allowed", _explain_denied),
    (
        rf"{PARSER_KEY}Expected an? <class '(?P<type>\w+)'>. Got value: (?P<value>.+)",
        _explain_type,
    ),
    (
        rf"{PARSER_KEY}Expected a typing\.Literal\[(?P<choices>.+)\]\. Got value: (?P<value>.+)",
        _explain_choice,
    ),
    (
        r"Errors:\n *- (?!Expected|Problem|Type |Multiple )(?P<sentence>.+)\n *- Expected a <class 'NoneType'>",
        _explain_class_error,
    ),
    (
        r"Parser key \"(?P<key>\w+)\":[^']+'[\w.]+'[^']+'NoneType'[^']+but [\w.]+ is abstract",
        _explain_no_class,
    ),
    (r"File does not exist: '(?P<file>[^']+)'", _explain_no_file),
    (r"(?s)Problems parsing config: (?P<reason>.+)", _explain_yaml),
)
"""What jsonargparse says, and the function that explains it."""


def _key_and_types(before: str) -> tuple[str, str]:
    """The key that the end of a message is about, and the types that were tried for it."""
    _, separator, after = before.rpartition('Parser key "')
    key = after.partition('"')[0] if separator else ""
    types = re.findall(r"Subtypes: (.+)", after)
    return key, types[-1] if types else ""


def _short(path: str) -> str:
    return path.rpartition(".")[2]
