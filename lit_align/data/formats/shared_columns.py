"""Columns that mean the same in every format: functions to call, and arguments of the chat template."""

from __future__ import annotations

from typing import Any

from lit_align.data.formats.base import Row
from lit_align.errors import Malformed
from lit_align.literals import parse_literal
from lit_align.types import Group


def parse_tools(value: Any, name: str = "tools") -> tuple[dict[str, Any], ...]:
    """The functions in a column: a list of JSON schemas, or its text in JSON or Python; a schema may be text too.

    Flat schemas are wrapped as OpenAI's are. Nulls are left out, since Arrow writes every key of any schema into all.

    Raises:
        Malformed: if it is no such list.

    Example:
        >>> parse_tools('[{"name": "add"}]')
        ({'type': 'function', 'function': {'name': 'add'}},)
    """
    entries = parse_text(value, name)
    if entries is None:
        return ()
    if isinstance(entries, dict):
        entries = [entries]
    if not isinstance(entries, list):
        raise _no_functions(name)
    return tuple(_parse_tool(parse_text(entry, name), name) for entry in entries)


def parse_template_kwargs(value: Any, name: str = "chat_template_kwargs") -> dict[str, Any]:
    """The arguments of the chat template in a column: an object, or its JSON text; nulls are left out.

    Raises:
        Malformed: if it is no object.
    """
    arguments = parse_text(value, name)
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise Malformed(f"'{name}' is not an object of arguments")
    return {key: argument for key, argument in arguments.items() if argument is not None}


def read_shared(row: Row, group: Group) -> Group:
    """The group with the functions and template arguments of its row, for rows that this package wrote."""
    return group._replace(
        tools=parse_tools(row.get("tools")),
        template_kwargs=parse_template_kwargs(row.get("chat_template_kwargs")),
    )


def parse_text(value: Any, name: str) -> Any:
    """The value of a column that may be written as text, in JSON or in Python; None for an empty one.

    Raises:
        Malformed: if it is text that is neither.
    """
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return parse_literal(value)
    except ValueError as error:
        raise Malformed(f"'{name}' is text that is neither JSON nor a Python literal") from error


def _parse_tool(entry: Any, name: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise _no_functions(name)
    schema: dict[str, Any] = _without_nulls(entry)
    if isinstance(schema.get("function"), dict):
        return schema
    if "name" not in schema:
        raise _no_functions(name)
    return {"type": "function", "function": schema}


def _no_functions(name: str) -> Malformed:
    return Malformed(f"'{name}' is not a list of functions")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
