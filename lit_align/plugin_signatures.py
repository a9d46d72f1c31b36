"""Whether the methods of a run's parts can be called as they will be: looked up before anything is loaded."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from lit_align.errors import PluginError
from lit_align.plugin_contracts import kinds_fault, name_of
from lit_align.types import LabelKind

NAMED_INPUTS = ("target", "margin", "entropy", "divergence")
"""What an objective is called with by name, each if its ``needs_NAME`` is true."""

NAMING_METHODS = ("wrapped", "decided_by")
"""Methods by which a part names others that it asks."""

TRL_REWARD = {"prompts", "completions"}
"""Parameters of a reward function of TRL."""


def check_signatures(*parts: Any) -> None:
    """Look through parts of a run, and through the parts in their fields.

    Args:
        parts: objectives, rewards, feedback sources, formats and others; None is passed over.

    Raises:
        PluginError: naming the class, what its method takes and what it is called with.
    """
    for part in _with_fields(parts):
        fault = signature_fault(part) or label_kinds_fault(part)
        if fault:
            raise PluginError(fault)


def signature_fault(part: object) -> str:
    """What is wrong with the parameters of a part's methods; empty if nothing is, or its interface is not known.

    Example:
        >>> from lit_align.objectives.dpo import DPO
        >>> signature_fault(DPO()), signature_fault(3)
        ('', '')
    """
    interface = _interface(type(part))
    if interface is None:
        return ""
    if fault := _field_fault(part, interface):
        return fault
    for method in sorted(interface.__abstractmethods__):  # type: ignore[attr-defined]
        own, expected = getattr(type(part), method), getattr(interface, method)
        if not callable(own) or own is expected:
            continue
        parameters = inspect.signature(expected).parameters.values()
        if any(parameter.kind == parameter.VAR_POSITIONAL for parameter in parameters):
            continue  # the family says with what
        names = [parameter.name for parameter in parameters if parameter.name != "self"]
        extra = _extra_keywords(part, method)
        try:
            signature = inspect.signature(getattr(part, method))
            signature.bind(*names, **dict.fromkeys(extra))
        except TypeError:
            return _describe(part, interface, method, [*names, *extra])
        except ValueError:  # a method of an extension module
            continue
    return ""


def _field_fault(part: object, interface: type) -> str:
    """Whether a field has the name of a method, which it would hide; a setting is no answer to a call."""
    if not dataclasses.is_dataclass(part):
        return ""
    for field in dataclasses.fields(part):
        if inspect.isfunction(getattr(interface, field.name, None)):
            remedy = "give the field another name"
            if field.name in NAMING_METHODS:
                remedy += f", and return what it has from def {field.name}(self)"
            method = f"a method of each {interface.__name__}"
            return f"{name_of(part)} has a field {field.name}, and that is {method}; {remedy}"
    return ""


def label_kinds_fault(part: object) -> str:
    """What is wrong with the label kinds that a format or a source of feedback says it has; empty if nothing is."""
    kinds = getattr(type(part), "label_kinds", None)
    if _interface(type(part)) is None or not isinstance(kinds, frozenset | set):
        return ""
    return kinds_fault(part, kinds, [kind.value for kind in LabelKind])


def _describe(part: object, interface: type, method: str, names: list[str]) -> str:
    own = inspect.signature(getattr(part, method))
    taken = [str(parameter) for parameter in own.parameters.values()]
    hint = ""
    if set(own.parameters) >= TRL_REWARD:
        hint = "; that is a reward of TRL: loop over the groups, and over the responses of each"
    listed = ", ".join(names)
    return (
        f"{name_of(part)}.{method} takes ({', '.join(taken)}), and a {interface.__name__} is called with ({listed}); "
        f"write def {method}(self, {listed}){hint}"
    )


def _extra_keywords(part: object, method: str) -> list[str]:
    """What an objective is given by name because it says that it needs it."""
    if method != "__call__":
        return []
    return [name for name in NAMED_INPUTS if getattr(part, f"needs_{name}", False)]


def _interface(cls: type) -> type | None:
    """The nearest abstract parent of a class that is part of lit_align; its abstract methods are what is called."""
    for parent in cls.__mro__[1:]:
        is_own = parent.__module__.partition(".")[0] == "lit_align"
        if is_own and getattr(parent, "__abstractmethods__", None):
            return parent
    return None


def _with_fields(parts: Iterable[Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _with_fields(part)
        elif part is not None and not isinstance(part, str | int | float | type):
            yield part
            if dataclasses.is_dataclass(part):
                names = [field.name for field in dataclasses.fields(part)]
                yield from _with_fields([getattr(part, name, None) for name in names])
