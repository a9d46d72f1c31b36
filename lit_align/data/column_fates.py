"""What becomes of the columns that a format did not read: read for every format, counted, or a reason to set aside."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from lit_align.annotators import AnnotatorFilter
from lit_align.data.cell_text import contents, squeeze
from lit_align.data.formats import known_columns
from lit_align.data.formats.fields import wrong_type
from lit_align.data.formats.known_columns import holds_something, plain_name
from lit_align.data.formats.shared_columns import parse_template_kwargs, parse_tools
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, Message, Text

SYSTEM_ROLES = ("system", "developer")
SPEAKER_KEYS = ("role", "from")
SWITCHES = ("on", "off")
SHORT_TEXT = 20  # characters; a shorter text may occur in another one by chance


@dataclass(frozen=True)
class ColumnSettings:
    """What the settings and the run say about columns.

    Args:
        names: the file's column for each column of a format that it names differently.
        ignored: columns that are not read, although their names say that they change what is learned.
        read: columns that the run itself reads, such as the answers that a reward compares with.
        annotators: which annotators' rows are used.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ignored: Collection[str] = ()
    read: Collection[str] = ()
    annotators: AnnotatorFilter = field(default_factory=AnnotatorFilter)


def columns_read_by(*readers: object) -> set[str]:
    """Columns that rewards, judges and callbacks read: their settings ``column``, and their ``read_columns``.

    Args:
        readers: each with settings that may be readers too; None is no reader.
    """
    columns: set[str] = set()
    for reader in readers:
        if isinstance(reader, list | tuple):
            columns |= columns_read_by(*reader)
            continue
        columns.update(getattr(reader, "read_columns", ()))
        column = getattr(reader, "column", None)
        if isinstance(column, str):
            columns.add(column)
        if is_dataclass(reader):
            columns |= columns_read_by(
                *(getattr(reader, setting.name) for setting in fields(reader))
            )
    return columns


def read_shared_columns(group: Group, ignored: Collection[str]) -> Group:
    """The group with the system text, the functions and the template's arguments that its format left unread.

    Raises:
        Malformed: if one of them is broken.
        SetAside: if the group has no place for one.
    """
    for name, value in group.extra.items():
        plain = plain_name(name)
        if name in ignored or not holds_something(value):
            continue
        if plain in known_columns.SYSTEM:
            group = _drop(_add_system(group, name, value), name)
        elif plain in known_columns.TOOLS:
            group = _drop(_add_tools(group, name, value), name)
        elif plain in known_columns.TEMPLATE_ARGUMENTS:
            arguments = parse_template_kwargs(value, name)
            group = _drop(group._replace(template_kwargs=arguments), name)
    return group


def unread_columns(group: Group, settings: ColumnSettings) -> list[str]:
    """The columns of a group that hold something and that nothing reads.

    Raises:
        SetAside: if one of them changes what is learned, by its name, and does not only repeat what was read.
    """
    unread = []
    for name, value in group.extra.items():
        if name in settings.read or not holds_something(value):
            continue
        changes_learning = plain_name(name) in known_columns.LEARNED and not _is_neutral(
            name, value
        )
        if changes_learning and name not in settings.ignored and not repeats(value, group):
            raise SetAside(
                f"nothing reads the column '{name}', which changes what is learned; rename it with data.columns, or "
                "list it in data.ignore_columns"
            )
        unread.append(name)
    return unread


def repeats(value: Any, group: Group) -> bool:
    """Whether all texts in a value are in the group's prompt or responses already."""
    texts = {squeeze(text) for text in _all_contents(group)}
    parts = [squeeze(text) for text in _strings(value)]
    return bool(parts) and all(_is_within(part, texts) for part in parts)


def _all_contents(group: Group) -> Iterator[str]:
    yield from contents(group.prompt)
    for response in group.responses:
        yield from contents(response)
    for tool in group.tools:
        yield from _strings(tool)


def _is_within(part: str, texts: Collection[str]) -> bool:
    if part in texts:
        return True
    return len(part) >= SHORT_TEXT and any(part in text for text in texts)


def _strings(value: Any) -> Iterator[str]:
    """The texts in a value, those that name a speaker aside."""
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in SPEAKER_KEYS:
                yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _is_neutral(name: str, value: Any) -> bool:
    """Whether a weight says that the row is learned as any other, or a column of thoughts is only a switch."""
    plain = plain_name(name)
    if plain in known_columns.THOUGHTS:
        return isinstance(value, bool) or str(value).lower() in SWITCHES
    return plain in known_columns.WEIGHTS and value in (1, True, "1", "true", "True")


def _drop(group: Group, name: str) -> Group:
    """The group without a column that has been read."""
    return group._replace(extra={key: item for key, item in group.extra.items() if key != name})


def _add_system(group: Group, name: str, value: Any) -> Group:
    if not isinstance(value, str):
        raise wrong_type(f"'{name}'", "text", value)
    text = value.strip()
    if not text:
        return group
    if group.continues:
        raise SetAside(
            f"the column '{name}' has a system text, but the row is plain text without a prompt"
        )
    prompt = _as_turns(group.prompt, "user")
    if prompt and prompt[0]["role"] in SYSTEM_ROLES:
        if str(prompt[0]["content"]).strip() == text:
            return group
        raise SetAside(f"the column '{name}' and the system turn of the conversation differ")
    responses: list[Text] = [_as_turns(response, "assistant") for response in group.responses]
    return group._replace(
        prompt=[{"role": "system", "content": value}, *prompt], responses=responses
    )


def _as_turns(text: Text, role: str) -> list[Message]:
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def _add_tools(group: Group, name: str, value: Any) -> Group:
    if _lists_tools(group, value):
        return group
    tools = parse_tools(value, name)
    if tools and group.continues:
        raise SetAside(
            f"the column '{name}' offers functions, but the row is plain text without a prompt"
        )
    return group._replace(tools=(*group.tools, *tools))


def _lists_tools(group: Group, value: Any) -> bool:
    """Whether the first turn is a system text that lists the functions itself, as Hermes' data do."""
    first = group.prompt[0] if isinstance(group.prompt, list) and group.prompt else None
    if first is None or first["role"] not in SYSTEM_ROLES:
        return False
    text = str(first["content"])
    return "<tools>" in text and all(name in text for name in _function_names(value))


def _function_names(value: Any) -> list[str]:
    try:
        return [str(tool["function"].get("name")) for tool in parse_tools(value)]
    except Malformed:
        return []
