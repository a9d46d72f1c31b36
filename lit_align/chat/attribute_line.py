"""The line of a prompt that says which attributes the answer shall have (Dong et al., 2023, SteerLM)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lit_align.errors import ConfigError
from lit_align.types import Text

TEMPLATE = "Attributes of the answer: {values}"
RECORD = "attributes"
"""Where ``provenance.json`` has the `Steering` of an adapter."""


class Steering(NamedTuple):
    """What an adapter was trained to be asked for, as its provenance records it.

    Args:
        template: of the line, with ``{values}`` in it.
        values: for each attribute, in the order of the line, its lowest, its median and its highest training value.
    """

    template: str
    values: dict[str, list[int]]

    @classmethod
    def of_provenance(cls, provenance: Mapping[str, Any]) -> Steering | None:
        """That of an adapter; None if it was trained without."""
        record = provenance.get(RECORD)
        return None if record is None else cls(**record)

    def line(self, requested: Mapping[str, int]) -> str:
        """The line that asks for these values; an attribute that is not asked for has its median.

        Args:
            requested: values by attribute.

        Raises:
            ConfigError: if an attribute is not known, or a value beyond those of training.

        Example:
            >>> Steering(TEMPLATE, {"helpfulness": [0, 3, 4], "verbosity": [0, 2, 4]}).line({"verbosity": 1})
            'Attributes of the answer: helpfulness 3, verbosity 1'
        """
        for name, value in requested.items():
            if name not in self.values:
                known = ", ".join(self.values)
                raise ConfigError(
                    f"the adapter was not trained on the attribute {name!r}; it knows {known}"
                )
            low, _, high = self.values[name]
            if not low <= value <= high:
                raise ConfigError(
                    f"{name} is {value}, and the adapter was trained on {low} to {high}; ask for one of these"
                )
        chosen = {}
        for name, (_, median, _) in self.values.items():
            chosen[name] = requested.get(name, median)
        return write_line(chosen, self.template)


def write_line(values: Mapping[str, int], template: str = TEMPLATE) -> str:
    """The line with these values.

    Example:
        >>> write_line({"helpfulness": 4, "verbosity": 1})
        'Attributes of the answer: helpfulness 4, verbosity 1'
    """
    return template.format(values=", ".join(f"{name} {value}" for name, value in values.items()))


def whole(value: float) -> int:
    """A rating as it is written: the nearest whole number, halves upwards.

    Example:
        >>> whole(2.5), whole(1.4)
        (3, 1)
    """
    return math.floor(value + 0.5)


def add_line(prompt: Text, line: str) -> Text:
    r"""The prompt with the line at the end of its last user turn, or of its text.

    Example:
        >>> add_line([{"role": "user", "content": "Name a bird."}], "verbosity 1")
        [{'role': 'user', 'content': 'Name a bird.\n\nverbosity 1'}]
    """
    if isinstance(prompt, str):
        return f"{prompt}\n\n{line}\n\n"
    turns = list(prompt)
    for place in reversed(range(len(turns))):
        if turns[place]["role"] == "user":
            turn = turns[place]
            turns[place] = {**turn, "content": f"{turn['content']}\n\n{line}"}
            return turns
    return [*turns, {"role": "user", "content": line}]


def parse_values(text: str) -> dict[str, int]:
    """Values as they are given on a command line.

    Raises:
        ConfigError: if they cannot be read.

    Example:
        >>> parse_values("verbosity=1, helpfulness=4")
        {'verbosity': 1, 'helpfulness': 4}
    """
    values = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([^=\s]+)\s*=\s*(-?\d+)\s*", part)
        if match is None:
            raise ConfigError(
                f"--attributes is {text!r}; give whole numbers by name, such as verbosity=1,helpfulness=4"
            )
        values[match[1]] = int(match[2])
    return values


def summarise(
    rated: Iterable[Mapping[str, int]], attributes: Iterable[str]
) -> dict[str, list[int]]:
    """Lowest value, median and highest value of each attribute.

    Example:
        >>> summarise([{"verbosity": 0}, {"verbosity": 3}, {"verbosity": 4}], ["verbosity"])
        {'verbosity': [0, 3, 4]}
    """
    rows = list(rated)
    summary = {}
    for name in attributes:
        values = sorted(row[name] for row in rows if name in row)
        if values:
            summary[name] = [values[0], values[len(values) // 2], values[-1]]
    return summary
