"""What jsonargparse says of a value that has no type that fits: the key, the types that it tried, what to write."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from lit_align.cli.setting_homes import suggestion
from lit_align.cli.setting_names import fitting_names, import_class, parameters_of

REMEDIES = {
    "list[str]": "write a list of texts",
    "int": "write a whole number",
    "float": "write a number",
    "bool": "write true or false",
    "str": "write a text",
    "list": "write a list, as in [a, b]",
    "tuple": "write a list, as in [a, b]",
    "Iterable": "write a list, as in [a, b]",
    "dict": "write settings by name, as in {a: b}",
}
"""What to write for a type."""

KEY = re.compile(r"(?m)^( *).*?Parser key \"([\w.]+)\"")
TYPES = re.compile(r"Literal\[(.+?)\]|<class '((?:\w+\.)*\w+)'>|((?:list|dict)\[[\w, ]+\])(?:,|\])")
GOT_VALUE = r"(?P<value>.+?)(?:\. Got value: .+)?(?=\n|\Z)"
"""A value in a message, without the whole block that a callable class repeats behind it."""

NESTED = re.compile(r"\W?NestedArg\(key='([\w.]+)', val=(.+)\)\W?")
"""An option below a setting, as in ``--run.x=3``."""


def key_path(message: str, end: int | None = None) -> str:
    r"""The dotted path of the key that a message is about at a position: each level is indented under the one above.

    Args:
        message: of jsonargparse.
        end: position up to which the message is read; None is its end.

    Example:
        >>> key_path('Parser key "model":\n  Parser key "lora.r":\n    Expected')
        'model.lora.r'
    """
    levels: list[tuple[int, str]] = []
    for match in KEY.finditer(message[:end]):
        indentation, key = len(match[1]), match[2]
        levels = [level for level in levels if level[0] < indentation]
        if not levels or levels[-1][1] != key:
            levels.append((indentation, key))
    return ".".join(key for _, key in levels)


def innermost_types(message: str) -> str:
    """The types that were tried for the last key of a message, as they are written there."""
    types = re.findall(r"Subtypes: (.+)", message.rpartition('Parser key "')[2])
    return types[-1] if types else ""


def unknown_below(key: str, value: str) -> str:
    """The sentence for an option below a setting that has none below it; empty for another value.

    Example:
        >>> unknown_below("run", "NestedArg(key='x', val='3')"), unknown_below("run", "fast")
        ("unknown key 'run.x'; run has no settings below it", '')
    """
    nested = NESTED.fullmatch(value.strip())
    return f"unknown key '{key}.{nested[1]}'; {key} has no settings below it" if nested else ""


def remedy_for(type_name: str) -> str:
    """What to write where a type is needed."""
    return REMEDIES.get(type_name, f"write a {type_name}")


def describe_value(message: str) -> Iterator[str]:
    """A sentence for a value that has none of several types; nothing for another message."""
    last_part = message.rpartition('Parser key "')[2]
    values = re.findall(rf"Given value: {GOT_VALUE}", last_part)
    key, types = key_path(message), innermost_types(message)
    if not values or not key or not types:
        return
    value = values[0]
    nested = NESTED.fullmatch(value)
    if nested:
        key, value = f"{key}.{nested[1]}", nested[2]
    names, classes = _names_of(types)
    choices = ", ".join([*names, *(name.rpartition(".")[2] for name in classes)])
    remedy = _remedy(names) if names else _class_remedy(key, classes[0], message)
    yield f"{key} is {value}, which is none of {choices}; {remedy}"


def _remedy(names: list[str]) -> str:
    """What to write where one of several plain types is needed."""
    words = [name.strip("'") for name in names if name.startswith("'")]
    if words:
        return f"write one of {', '.join(words)}"
    phrases = [remedy_for(name).removeprefix("write ") for name in names]
    return f"write {' or '.join(dict.fromkeys(phrases))}"


def _class_remedy(key: str, path: str, message: str) -> str:
    """What to write where a class is needed."""
    cls = import_class(path)
    if not inspect.isabstract(cls) and path.startswith("lit_align."):
        return f"write its settings by name: {', '.join(sorted(parameters_of(cls)))}"
    names = fitting_names(key.rpartition(".")[2], message)
    choices = f", {', '.join(names)}," if names else ""
    return f"write the name of a class{choices} as its class_path and settings under init_args"


def _names_of(types: str) -> tuple[list[str], list[str]]:
    """Names of plain types and words, and paths of classes, without repetitions."""
    names: list[str] = []
    classes: list[str] = []
    for words, path, container in TYPES.findall(types):
        if words:
            names += [word for word in words.split(", ") if word not in names]
        elif container and container not in names:
            names.append(container)
        elif "." in path and path not in classes:
            classes.append(path)
        elif path and path != "NoneType" and path not in names:
            names.append(path)
    return names, classes


def unlisted_word(key: str, name: str, types: str) -> str | None:
    """A sentence for a word that is none of those there are; None if the types list no words."""
    words = re.findall(r"'(\w+)'", " ".join(re.findall(r"Literal\[(.+?)\]", types)))
    return f"{key} is {name!r}{suggestion(name, words)}" if words else None
