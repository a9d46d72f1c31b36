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

from lit_align.cli.command_mistakes import explain_command, explain_missing
from lit_align.cli.misplaced_names import of_another_kind, what_else
from lit_align.cli.parser_messages import (
    GOT_VALUE,
    describe_value,
    innermost_types,
    key_path,
    remedy_for,
    unknown_below,
    unlisted_word,
)
from lit_align.cli.setting_homes import MAX_LISTED, RUN_SETTINGS, advice, suggestion
from lit_align.cli.setting_names import (
    all_names,
    command_names,
    fitting_names,
    import_class,
    parameters_of,
    settings_of_section,
)
from lit_align.errors import AmbiguousName
from lit_align.plugin_packages import where_to_get
from lit_align.plugins import load_plugins

FIRST_SETTINGS = {"base": "path", "lora": "r", "trainer": "accelerator", "schedule": "shape"}
"""The setting of a group that is probably meant where the group is a single value."""
DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
IN_YAML = "set it in the YAML or on the command line"


def explain(message: str, settings: Iterable[str] = RUN_SETTINGS) -> str:
    """The mistake and a suggestion, or the message as it is.

    Args:
        message: of jsonargparse.
        settings: names of the command's own settings.
    """
    sentences = list(_explanations(message, settings)) or list(describe_value(message))
    by_mistake: dict[str, str] = {}
    for sentence in sentences:  # a class and its base may refuse the same setting
        refused = re.search(r"takes no '\w+'", sentence)
        by_mistake.setdefault(refused[0] if refused else sentence, sentence)
    return "\n".join(by_mistake.values()) or message


def _explanations(message: str, settings: Iterable[str]) -> Iterator[str]:
    for pattern, explain_match in RULES:
        for match in re.finditer(pattern, message):
            yield from explain_match(match)
    unknown_key = (
        r"(Group '[\w.]+' )?(?:does not accept option '|unrecognized arguments: --)([\w.-]+)"
    )
    for group, key in re.findall(unknown_key, message):
        section = key_path(message)
        name = key.replace("-", "_")
        if not group and section:  # a setting of the stage or of the data on the command line
            yield _unknown_in(section, name)
        elif not group:  # a group has a rule
            yield explain_unknown_key(name, settings)


# ---------------------------------------------------------------- one function for each kind of message


def _explain_option(match: re.Match[str]) -> Iterator[str]:
    """A class has no such setting."""
    section = key_path(match.string, match.start())
    if match["option"] == "class_path":
        yield f"{section} names no class that fits; correct it"
        return
    path, option = match["path"], match["option"]
    names = parameters_of(import_class(path))
    yield f"{_short(path)} takes no {option!r}{advice(option, section, names)}"


def _explain_group_option(match: re.Match[str]) -> Iterator[str]:
    """A group of settings, such as those of LoRA, has no such setting."""
    section, option = key_path(match.string, match.start()), match["option"]
    group = match["group"].rpartition(".")[2]
    names = settings_of_section(f"{group}.{option}")
    yield f"{group} takes no {option!r}{advice(option, f'{section}.{group}'.lstrip('.'), names)}"


def _explain_group(match: re.Match[str]) -> Iterator[str]:
    """A group of settings, or a class, has a value that is neither."""
    key, value = key_path(match.string, match.start()), match["value"]
    group = key.rpartition(".")[2]
    names = sorted(settings_of_section(f"{group}."))
    choices = f" ({', '.join(names)})" if 0 < len(names) <= MAX_LISTED else ""
    example = f"{group}: {{{FIRST_SETTINGS.get(group, 'NAME')}: {value or '...'}}}"
    yield f"{key} is {value!r}, and is a group of settings{choices}; write {example}"


def _explain_abstract(match: re.Match[str]) -> Iterator[str]:
    """Settings of a class that has no name."""
    key = key_path(match.string, match.start())
    if key in ("model", "data"):  # another rule explains them
        return
    names = fitting_names(key.rpartition(".")[2], match.string[: match.start()])
    example = f"{{class_path: {names[0] if names else 'NAME'}, init_args: {{...}}}}"
    choices = f" ({', '.join(names)})" if 0 < len(names) <= MAX_LISTED else ""
    yield f"{key} has settings and no class; name one{choices} first, as in {example}"


def _explain_no_value(match: re.Match[str]) -> Iterator[str]:
    option = match["option"].rpartition("/")[2]
    example = f"{option} FILE" if option == "--config" else f"{option}=VALUE"
    yield f"{match['option']} has no value after it; write {example}"


def _explain_stray(match: re.Match[str]) -> Iterator[str]:
    """Words that follow no option."""
    words = match["words"].split()
    word = words[-1] if words[0].startswith("-") and "=" not in words[0] else words[0]
    if word.endswith((".yaml", ".yml")):
        yield f"{word} follows no option; write -c {word.partition('=')[2] or word}"
    elif "=" in word:
        yield f"{word} is no option; write --{word.lstrip('-')}"
    elif word.startswith("-"):
        yield f"there is no option {word}; options begin with two dashes, as in --trainer.max_steps=3"
    else:
        yield f"{word} follows no option; write several values as a list, as in --data.train='[a.csv, b.csv]'"


def _explain_required_key(match: re.Match[str]) -> Iterator[str]:
    yield f"{_short(match['path'])} needs {match['key']!r}; {IN_YAML}"


def _explain_required(match: re.Match[str]) -> Iterator[str]:
    yield f"{_short(match['path'])} needs {match['keys']}; {IN_YAML}"


def _explain_missing(match: re.Match[str]) -> Iterator[str]:
    """A part of the settings of a command is missing."""
    yield explain_missing([option.rpartition(".")[2] for option in match["options"].split(", ")])


def _explain_command(match: re.Match[str]) -> Iterator[str]:
    yield explain_command(match["command"], command_names())


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
    name, before = match["name"].partition(". Got value")[0], match.string[: match.start()]
    path, types = key_path(before), innermost_types(before)
    key = path if path.startswith("trainer.") else path.rpartition(".")[2]
    basic_type = re.search(r"<class '(float|int|bool|str)'>", types)
    unlisted = unlisted_word(path, name, types)
    if unlisted or basic_type:
        type_name = basic_type[1] if basic_type else ""
        yield unlisted or f"{path} is {name!r}, which is no {type_name}; {remedy_for(type_name)}"
        return
    settings = _settings_of_dataclass(types)
    if settings and name not in all_names():
        yield f"{key} is {name!r}, and takes settings by name: {', '.join(settings)}"
        return
    fitting = fitting_names(key, before)
    objectives = load_plugins().objectives
    if name not in all_names():
        place = where_to_get(name) or what_else(key, name, fitting)
        hint = suggestion(name, fitting or all_names()) or f"; {path} takes a path, as module.name"
        yield f"nothing is called {name!r}{f'; {place}' if place else hint}"
    elif key == "objective" and name in objectives:
        objective: Any = objectives[name]
        yield f"{name} learns from {objective.label_kind}; use the stage {_stage_for(objective)}"
    else:
        kind = of_another_kind(key, name)
        others = suggestion("", fitting) or "; `lit-align plugins` lists the kinds"
        hint = f"; {kind}" if kind else others
        yield f"{name} is of another kind than what is needed here{hint}"


def _settings_of_dataclass(types: str) -> list[str]:
    """The settings of the only class among the types, if it is no base class of others."""
    paths = re.findall(r"<class '([\w.]+\.\w+)'>", types)
    if len(paths) != 1:
        return []
    cls: type = import_class(paths[0])
    is_base = bool(cls.__subclasses__()) or isabstract(cls)
    return [field.name for field in fields(cls)] if is_dataclass(cls) and not is_base else []


def _stage_for(objective: Any) -> str:
    """The stage that trains an objective."""
    if objective.label_kind == "demonstrations":
        return "SFT"
    if objective.label_kind == "prompts":
        return "RL"
    if objective.label_kind == "steps":
        return "ProcessRewardModel"
    return "RewardModel" if objective.for_reward_model else "Preference"


def _explain_no_module(match: re.Match[str]) -> Iterator[str]:
    if match["path"].endswith(DATA_SUFFIXES):
        yield (
            f"{match['path']} is a file, and a class is needed here; write data: {{class_path: Comparisons, init_args: "
            f"{{train: {match['path']}}}}}"
        )
        return
    remedy = where_to_get(match["path"]) or "install it, or put its folder on PYTHONPATH"
    yield f"{match['path']} cannot be imported: there is no module {match['module']!r}; {remedy}"


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
    key, type_name = key_path(match.string, match.start("value")), match["type"]
    yield unknown_below(key, match["value"]) or (
        f"{key} is {match['value'].strip()!r}, which is no {type_name}; {remedy_for(type_name)}"
    )


def _explain_no_callable(match: re.Match[str]) -> Iterator[str]:
    key = key_path(match.string, match.start())
    names = fitting_names(key.rpartition(".")[2], match.string[: match.start()])
    yield f"{key} is {match['value']}, and names a class{suggestion('', names) or '; write its name'}"


def _explain_choice(match: re.Match[str]) -> Iterator[str]:
    key = key_path(match.string, match.start("value"))
    sentence = f"{key} is {match['value'].strip()!r}; choose from {match['choices']}"
    yield unknown_below(key, match["value"]) or sentence


def _explain_class_error(match: re.Match[str]) -> Iterator[str]:
    """The sentence that a class raised for its own settings; ours name them, and others are named here."""
    path = re.search(r"Given value: \[?Namespace\(class_path='([\w.]+)'", match.string)
    if path is None or path[1].startswith("lit_align."):
        yield match["sentence"]
    else:
        yield f"{_short(path[1])}: {match['sentence'].rstrip('.')}; correct its settings"


def _explain_no_class(match: re.Match[str]) -> Iterator[str]:
    yield (
        f"{match['key']} has no class yet; name it before its settings, as in --model=Preference --data=Comparisons"
    )


def _explain_no_file(match: re.Match[str]) -> Iterator[str]:
    yield f"there is no file {match['file']}; check the path after -c"


def _explain_yaml(match: re.Match[str]) -> Iterator[str]:
    """A value in braces on the command line; files are read before."""
    reason = " ".join(match["reason"].split()).replace('in "<unicode string>", ', "at ")
    yield f"the YAML on the command line cannot be read: {reason}; correct it"


def _unknown_in(section: str, key: str) -> str:
    """A setting at ``key`` of a section that has none of that name."""
    group, _, name = key.rpartition(".")
    path = f"{section}.{group}".rstrip(".")
    names = settings_of_section(f"{group.rpartition('.')[2]}.{name}")
    return f"unknown key '{section}.{key}'{advice(name, path, names)}"


def explain_unknown_key(key: str, settings: Iterable[str]) -> str:
    """The sentence for a key that is none of a command's settings.

    Args:
        key: with the keys above it, joined by dots.
        settings: names of the command's own settings.

    Example:
        >>> explain_unknown_key("trainner", ["trainer", "model"])
        "unknown key 'trainner'; did you mean trainer?"
    """
    if key.split(".")[0] not in ("trainer", "model", "data"):
        key = key.split(".")[0]
    section, _, name = key.rpartition(".")
    names = settings_of_section(key) or settings
    if tuple(settings) != RUN_SETTINGS:  # of a command that trains nothing
        return f"unknown key {key!r}{suggestion(name, names)}"
    return f"unknown key {key!r}{advice(name, section, names)}"


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
        rf"{PARSER_KEY}Expected an? <class '(?:\w+\.)*(?P<type>\w+)'>. Got value: {GOT_VALUE}",
        _explain_type,
    ),
    (
        rf"{PARSER_KEY}Expected a typing\.Literal\[(?P<choices>.+)\]\. Got value: {GOT_VALUE}",
        _explain_choice,
    ),
    (
        r"Expected an import path or a subclass spec, but got (?P<value>[^.\n]+)",
        _explain_no_callable,
    ),
    (r"Unable to load config '(?P<value>[^'\n]*)'", _explain_group),
    (
        r"Errors:\n *- (?!Expected|Problem|Type |Multiple |Not a valid|Parser key)(?P<sentence>.+)\n",
        _explain_class_error,
    ),
    (
        r"Parser key \"(?P<key>\w+)\":[^']+'[\w.]+'[^']+'NoneType'[^']+but [\w.]+ is abstract",
        _explain_no_class,
    ),
    (
        r"Expected an instantiatable class, but (?P<base>[\w.]+) is abstract(?!\.? )",
        _explain_abstract,
    ),
    (r"argument (?P<option>\S+): expected one argument", _explain_no_value),
    (r"\A *unrecognized arguments: (?P<words>(?!--).+)", _explain_stray),
    (r"File does not exist: '(?P<file>[^']+)'", _explain_no_file),
    (r"(?s)Problems parsing config: (?P<reason>.+)", _explain_yaml),
)
"""What jsonargparse says, and the function that explains it."""


def _short(path: str) -> str:
    return path.rpartition(".")[2]
