"""Read the YAML files of a command line before the parser does, to name file, line and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from lit_align.cli.sources import config_values
from lit_align.errors import ConfigError

SHOWN = 60  # characters of a line
NEEDS_QUOTES = "@`%*&!|>"
"""Characters with a meaning of their own at the beginning of a value."""

SPECIAL = ("cannot start any token", "undefined alias", "scanning an alias", "scanning an anchor")
"""What PyYAML says of such a value."""


def refuse_broken_files(arguments: Sequence[str]) -> None:
    """Check that each file after ``-c`` is YAML with settings by name, each set once.

    Args:
        arguments: of the command line.

    Raises:
        ConfigError: with the file, the line and what to write.
    """
    for value in config_values(arguments):
        if Path(value).is_file():
            _check_file(value)


def _check_file(path: str) -> None:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: byte {error.object[error.start]:#x} is not UTF-8; save the file as UTF-8"
        ) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_describe(path, text.splitlines(), error)) from error
    except yaml.YAMLError as error:  # a control character
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {reason}; remove that character") from error
    if root is None:
        raise ConfigError(
            f"{path} has no settings in it; write model:, data: and trainer:, or let lit-align init write them"
        )
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single text"
        raise ConfigError(
            f"{path} is {kind}, and settings have names; begin with model:, data: and trainer:, without dashes"
        )
    for sentence in _faults(root, set(), ()):
        raise ConfigError(f"{path}, {sentence}")
    try:
        yaml.constructor.SafeConstructor().construct_document(root)
    except yaml.MarkedYAMLError as error:  # what << or a tag stands before is not what it takes
        raise ConfigError(_describe(path, text.splitlines(), error)) from error
    except ValueError as error:  # a date that there is not
        raise ConfigError(f"{path} cannot be read: {error}; write it in quotes") from error


def _faults(node: yaml.Node, visited: set[int], outer: tuple[int, ...]) -> Iterator[str]:
    """A sentence for each value that is no plain one, and for each name that is written twice in one block."""
    line = node.start_mark.line + 1
    if id(node) in outer:
        yield f"line {line}: the block that begins here contains itself; write out what is meant instead of *"
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    outer = (*outer, id(node))
    if node.tag not in yaml.SafeLoader.yaml_constructors:
        yield f"line {line}: a value that begins with ! or is = needs quotes; write them around it"
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _faults(item, visited, outer)
    elif isinstance(node, yaml.MappingNode):
        yield from _faults_of_names(node)
        for _, value in node.value:
            yield from _faults(value, visited, outer)


def _faults_of_names(node: yaml.MappingNode) -> Iterator[str]:
    """A sentence for each name that is no text, or comes twice, where YAML would keep the last."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            yield f"line {line}: a list or a mapping stands where a name is needed; put the brackets after a name"
            continue
        if key.value != "<<" and key.tag not in yaml.SafeLoader.yaml_constructors:
            yield f"line {line}: a name that begins with ! or is = needs quotes; write them around it"
        if key.value in lines and key.value != "<<":
            yield (
                f"line {line}: {key.value} is set in line {lines[key.value]} already, and only the last would hold; "
                "remove one of them, or put their settings into one block"
            )
        lines[key.value] = line


def _describe(path: str, lines: Sequence[str], error: yaml.MarkedYAMLError) -> str:
    """One sentence for a mistake in the syntax."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{path} cannot be read: {error.problem}; correct it"
    line = lines[mark.line] if mark.line < len(lines) else ""
    place = f"{path}, line {mark.line + 1}"
    hint = _hint(lines, error, mark, line)
    if hint:
        return f"{place}: {hint}"
    reason = " ".join(filter(None, (error.context, error.problem)))
    return f"{place} is no YAML at {_shown(line[mark.column :])}: {reason}; correct it"


def _hint(
    lines: Sequence[str], error: yaml.MarkedYAMLError, mark: yaml.Mark, line: str
) -> str | None:
    """What is wrong with the line and what to write; None if it is not known."""
    problem, context, start = error.problem or "", error.context or "", error.context_mark
    begin = mark if start is None or start.line != mark.line else start
    rest = line[begin.column :]
    if "\t" in line[: mark.column + 1] and not line[: mark.column].strip():
        return "a tab is no indentation in YAML; use spaces"
    is_special = any(phrase in f"{problem} {context}" for phrase in SPECIAL)
    if is_special and rest and rest[0] in NEEDS_QUOTES:
        return f"a value that begins with {rest[0]} needs quotes; write {rest.strip()!r}"
    if "quoted scalar" in context and start is not None:
        return (
            f"the quotes that open in line {start.line + 1} do not end; close them after the value"
        )
    if "flow" in context and start is not None:
        place = f"in line {start.line + 1}"
        return f"a bracket that opens {place} is not closed before this; close it, or separate with commas"
    if "mapping values are not allowed" in problem:
        return _misplaced_value(lines, mark.line, line)
    if "could not find expected ':'" in problem and start is not None:
        text = "".join(lines[start.line : start.line + 1])
        return f"{_shown(text)} in line {start.line + 1} has no colon; write a colon after the name"
    if "another document" in problem:
        return "a second document begins with ---; remove that line"
    if "block" in context and start is not None:
        return (
            f"{_shown(line)} is indented by {mark.column}, and the block that began in line {start.line + 1} by "
            f"{start.column}; give lines of one block the same indentation"
        )
    return None


def _misplaced_value(lines: Sequence[str], number: int, line: str) -> str:
    """Why a name with a colon cannot stand in a line: its own value has a colon, or the line before is wrong."""
    if len(re.findall(r":\s", line)) > 1:
        return f"{_shown(line)} has two colons; put the value in quotes"
    before, line_number = "", number
    while not before.strip() and line_number > 0:
        line_number -= 1
        before = lines[line_number]
    is_inside = len(line) - len(line.lstrip()) > len(before) - len(before.lstrip())
    if ":" not in before and not is_inside:
        return (
            f"{_shown(before)} in line {line_number + 1} has no colon; write a colon after the name"
        )
    if re.fullmatch(r"\s*(- )?[\w.]+:\S.*", before):
        return f"the line before, {_shown(before)}, has no blank after its colon; write one"
    return (
        f"{_shown(line)} is indented more than {_shown(before)} before it, which has a value; give lines of one "
        "block the same indentation"
    )


def _shown(line: str) -> str:
    return repr(line.strip()[:SHOWN])
