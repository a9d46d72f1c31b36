"""Demonstrations whose prompts ask for the ratings that the responses have (SteerLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lit_align.chat.attribute_line import (
    RECORD,
    TEMPLATE,
    Steering,
    add_line,
    summarise,
    whole,
    write_line,
)
from lit_align.chat.plain_text import as_chat
from lit_align.data.datamodules import TextDataModule
from lit_align.data.text_module import TextModule
from lit_align.data.tokenize import ChatTokenizer, Encoded
from lit_align.errors import ConfigError, SetAside
from lit_align.types import Group, LabelKind


class RatedDemonstrations(TextDataModule):
    """Rated responses to imitate, under prompts that ask for such ratings.

    The last turn of the user, or a prompt in plain text, ends with a line such as "Attributes of the answer:
    helpfulness 4, verbosity 1". The adapter's provenance records that line and the values that were seen, so that
    ``lit-align chat --attributes verbosity=1`` writes the same (Dong et al., 2023, https://arxiv.org/abs/2310.05344).

    Args:
        train: rows with one rated response each, such as HelpSteer's.
        attributes: rated attributes that the line names, in this order; a response without a rating of one has none of
            it in its line. Ratings are rounded to whole numbers.
        requested: values to ask for in place of the row's, for ``predict``, one for each of ``attributes``; rows then
            need no ratings.
        settings: settings of all data modules.
    """

    label_kind = LabelKind.DEMONSTRATIONS

    def __init__(
        self,
        train: str | list[str],
        attributes: list[str],
        requested: dict[str, int] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(train, **settings)
        self.attributes, self.requested = tuple(attributes), requested
        if not attributes:
            raise ConfigError("attributes must name at least one attribute of the data, got none")
        for name in requested or {}:
            if name not in attributes:
                raise ConfigError(
                    f"requested has {name!r}, which is not one of attributes: {', '.join(attributes)}"
                )
        missing = [name for name in attributes if requested is not None and name not in requested]
        if missing:
            raise ConfigError(
                f"requested has no {', '.join(missing)}, and the line names all of attributes; "
                "add a whole number for each, such as its median in provenance.json"
            )

    def setup(self, stage: str) -> None:
        """Refuse to train on values that the responses do not have."""
        if stage == "fit" and self.requested is not None:
            raise ConfigError(
                "requested is set, and training asks for each row's own ratings; remove it"
            )
        super().setup(stage)

    def label_kind_for(self, split: str) -> LabelKind:
        """Ratings, which become a part of the prompt; prompts alone where other values are asked for."""
        return LabelKind.RATINGS if self.requested is None else LabelKind.PROMPTS

    def rated_attributes(self, module: TextModule) -> Sequence[str]:
        """Those that the line names."""
        return self.attributes

    def chat_tokenizer(self, module: TextModule, allow_empty: bool) -> ChatTokenizer:
        """What writes the line and tokenises."""
        plain = super().chat_tokenizer(module, allow_empty)
        return SteeredTokenizer(plain, self.attributes, self.requested)

    def provenance(self) -> dict[str, Any]:
        """The line and the values that were seen."""
        return {RECORD: self._steering._asdict()}

    @cached_property
    def _steering(self) -> Steering:
        rows = [_values(tree.group, self.attributes) for tree in self.trees["train"]]
        return Steering(TEMPLATE, summarise(rows, self.attributes))


class SteeredTokenizer(ChatTokenizer):
    """Writes the ratings of a response into its prompt, then tokenises.

    Args:
        plain: settings of the tokenizer.
        attributes: that are written.
        requested: values to write in place of the ratings, one for each attribute.
    """

    def __init__(
        self, plain: ChatTokenizer, attributes: Sequence[str], requested: Mapping[str, int] | None
    ) -> None:
        super().__init__(plain.tokenizer, **plain.settings())
        self.attributes, self.requested = tuple(attributes), requested

    def settings(self) -> dict[str, Any]:
        """With what is written."""
        own = {"attributes": self.attributes, "requested": self.requested, "line": TEMPLATE}
        return {**super().settings(), **own}

    def encode(self, group: Group) -> Encoded:
        """The group as a tree whose prompt has the line; it keeps the ratings.

        Raises:
            SetAside: if responses with ratings of their own would share a prompt.
        """
        if len(group.responses) > 1:
            raise SetAside(
                "several rated responses; write a row for each, so that each has its own prompt"
            )
        values = _values(group, self.attributes)
        if self.requested is not None:
            values = {name: self.requested[name] for name in self.attributes}
        # marks of turns are read first: the line would stand after the last of them
        chat = as_chat(group) if self.as_chat else None
        group = chat or group
        prompt = add_line(group.prompt, write_line(values))
        return super().encode(group._replace(prompt=prompt))._replace(from_text=chat is not None)


def _values(group: Group, attributes: Sequence[str]) -> dict[str, int]:
    """The whole ratings of the first response."""
    ratings = group.ratings[0] if group.ratings else {}
    return {name: whole(ratings[name]) for name in attributes if name in ratings}
