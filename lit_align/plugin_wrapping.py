"""Rewards, sources of feedback and judge models that ask others: what holds of those holds of them.

A wrapper names what it asks, once, in `Wrapping.wrapped`; the rest follows, also what a later version adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lit_align.plugin_contracts import name_of

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase
    from lit_align.models.adapter_set import AdapterSet

DERIVED = ("attach", "trained_prompts", "step_separators", "can_split")
"""Methods of `Wrapping` that follow from what is wrapped."""


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
    for part in plugin.decided_by():
        if not _is_among(part, parts):
            return f"{name}.decided_by names {name_of(part)}, which {name}.wrapped does not; name it in both"
    if not _forwards_itself(type(plugin)):
        for attribute, value in vars(plugin).items():
            for part in _wrapping_in(value):
                if not _is_among(part, parts):
                    return (
                        f"{name}.{attribute} has a {name_of(part)}, which {name}.wrapped does not name; return it "
                        "there, so that it is attached and asked what it was trained on"
                    )
    return _difference(plugin) or next(filter(None, map(wrapping_fault, parts)), "")


def _difference(plugin: Wrapping) -> str:
    """What a wrapper says of itself that does not hold of those that it asks."""
    name = name_of(plugin)
    for part in plugin.wrapped():
        if plugin.can_split() and not part.can_split():
            return f"{name}.can_split is true, and that of its {name_of(part)} is false; return what it returns"
    methods: dict[str, Callable[[Any], frozenset[str]]] = {
        "trained_prompts": lambda asked: asked.trained_prompts(),
        "step_separators": lambda asked: asked.step_separators(),
    }
    for method, call in methods.items():
        for part in plugin.decided_by():
            missing = call(part) - call(plugin)
            if missing:
                return (
                    f"{name}.{method} lacks {len(missing)} of its {name_of(part)}; return those too"
                )
    return ""


def _forwards_itself(cls: type[Wrapping]) -> bool:
    """Whether a class forwards everything itself, as before there was `Wrapping.wrapped`."""
    return all(getattr(cls, method) is not getattr(Wrapping, method) for method in DERIVED)


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
