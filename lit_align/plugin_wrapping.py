"""Rewards, sources of feedback and judge models that ask others: what holds of those holds of them.

A wrapper names what it asks, once, in `Wrapping.wrapped`; the rest follows, also what a later version adds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lit_align.plugin_contracts import name_of

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase
    from lit_align.models.adapter_set import AdapterSet

KNOWLEDGE = ("trained_prompts", "step_separators")
"""Methods of `Wrapping` that join what those say that the answers follow."""


class Wrapping:
    """What may ask others for its answers: the base of rewards, sources of feedback and judge models."""

    def wrapped(self) -> Sequence[Wrapping]:
        """The rewards, sources of feedback and judge models that it asks; none unless it says otherwise.

        They are attached with it, it can be split if all of them can, and it was trained on what `decided_by` were.
        """
        return ()

    def decided_by(self) -> Sequence[Wrapping]:
        """Those of `wrapped` that its answers follow; all, unless some are only logged, or teach the others."""
        return self.wrapped()

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        """Get access to the model in memory, as do those that it asks; called once, before the first answer.

        Args:
            adapters: the base model and its adapters.
            tokenizer: the base's, with its chat template.
        """
        for part in self.wrapped():
            part.attach(adapters, tokenizer)

    def trained_prompts(self) -> frozenset[str]:
        """Hashes of the prompts that it was trained on, by `prompt_key`; empty if there are none, or nobody knows."""
        return _union(part.trained_prompts() for part in self.decided_by())

    def step_separators(self) -> frozenset[str]:
        """Texts at which it divides a response into the steps that it scores; empty if it reads no steps."""
        return _union(part.step_separators() for part in self.decided_by())

    def can_split(self) -> bool:
        """Whether processes may each ask for a share: an answer depends on its group or question alone, for free.

        Otherwise the first process asks for all, so that calls and costs are those of a single process.
        """
        parts = self.wrapped()
        return bool(parts) and all(part.can_split() for part in parts)


def wrapping_fault(plugin: Wrapping) -> str:
    """What a wrapper hides of those that it asks; empty if it hides nothing, or asks nobody.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> from lit_align.rewards.weighted import Weighted
        >>> wrapping_fault(Weighted([Length(max_words=9)], [1.0]))
        ''
    """
    name, parts = name_of(plugin), list(plugin.wrapped())
    deciding = list(plugin.decided_by())
    for part in deciding:
        if not _is_among(part, parts):
            return f"{name}.decided_by names {name_of(part)}, which {name}.wrapped does not; name it in both"
    attributes = _parts_by_attribute(plugin)
    if _attaches_itself(type(plugin)):
        parts = deciding = [part for _, part in attributes]
    for attribute, part in attributes:
        if not _is_among(part, parts):
            return (
                f"{name}.{attribute} has a {name_of(part)}, which {name}.wrapped does not name; return it there, so "
                "that it is attached and asked what it was trained on"
            )
    fault = _splitting_fault(plugin, parts) or _knowledge_fault(plugin, deciding)
    return fault or next(filter(None, map(wrapping_fault, parts)), "")


def _splitting_fault(plugin: Wrapping, parts: Iterable[Wrapping]) -> str:
    """Whether a wrapper lets processes share out what one of those that it asks does not."""
    if plugin.can_split():
        name = name_of(plugin)
        for part in parts:
            if not part.can_split():
                return f"{name}.can_split is true, and that of its {name_of(part)} is false; return what it returns"
    return ""


def _knowledge_fault(plugin: Wrapping, parts: Iterable[Wrapping]) -> str:
    """What those say that decide, and the wrapper does not."""
    cls = type(plugin)
    for method in KNOWLEDGE:
        if _attaches_itself(cls) and _overrides(cls, method):
            continue  # it may know that some of them decide nothing
        own: frozenset[str] = getattr(plugin, method)()
        for part in parts:
            missing = getattr(part, method)() - own
            if missing:
                return f"{cls.__name__}.{method} lacks {len(missing)} of its {name_of(part)}; return those too"
    return ""


def _attaches_itself(cls: type[Wrapping]) -> bool:
    """Whether a class attaches those that it asks itself, as all did before there was `Wrapping.wrapped`."""
    return _overrides(cls, "attach") and not _overrides(cls, "wrapped")


def _overrides(cls: type[Wrapping], method: str) -> bool:
    return getattr(cls, method) is not getattr(Wrapping, method)


def _parts_by_attribute(plugin: Wrapping) -> list[tuple[str, Wrapping]]:
    """What can be asked in each attribute; the fields of a dataclass with slots are not in ``vars``."""
    values = dict(vars(plugin))
    if dataclasses.is_dataclass(plugin):
        for field in dataclasses.fields(plugin):
            values[field.name] = getattr(plugin, field.name, None)
    return [(name, part) for name, value in values.items() for part in _wrapping_in(value)]


def _wrapping_in(value: object) -> Iterator[Wrapping]:
    """What an attribute holds that can be asked: itself, or in a list or a mapping."""
    if isinstance(value, Wrapping):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _wrapping_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _wrapping_in(item)


def _is_among(part: Wrapping, parts: Iterable[Wrapping]) -> bool:
    return any(part is other for other in parts)


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)
