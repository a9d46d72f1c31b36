"""Read the rows of a data set on the Hugging Face hub, named ``name/config:split@revision``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lit_align.data.formats.base import LocatedRow
from lit_align.errors import DataError

NAME = re.compile(
    r"(?P<name>[\w-][\w.-]*(/[\w-][\w.-]*)?)(?P<config>/[\w-][\w.-]*)?"
    r"(:(?P<split>[\w.\[\]%:-]+))?(@(?P<revision>[\w./-]+))?"
)
MAX_REASON = 300  # characters


def is_hub_name(path: str) -> bool:
    """Whether the path could name a data set on the hub.

    Example:
        >>> is_hub_name("openai/gsm8k/main:train@v1.0"), is_hub_name("data/my pairs")
        (True, False)
    """
    return bool(NAME.fullmatch(path)) and not path.startswith(".")


def read_hub(path: str) -> Iterator[LocatedRow]:
    """The rows of a data set; the split is ``train`` by default.

    Args:
        path: ``name``, followed by ``/config`` (a configuration, or a folder in the data set), ``:split`` and
            ``@revision``, each of which may be left out.

    Raises:
        DataError: if there is no such data set, configuration or split.
    """
    match = NAME.fullmatch(path)
    if match is None:
        raise DataError(f"{path!r} names no data set on the hub")
    config = (match["config"] or "").removeprefix("/") or None
    split = match["split"] or "train"
    rows = _load(match["name"], config, split, match["revision"])
    name = match["name"] + (match["config"] or "")
    for number, row in enumerate(rows, 1):
        yield f"{name}:{split}:{number}", row


def _load(name: str, config: str | None, split: str, revision: str | None) -> Any:
    import datasets

    try:
        try:
            return datasets.load_dataset(name, config, split=split, revision=revision)
        except ValueError as error:
            if config is None or "BuilderConfig" not in str(error):
                raise
            return datasets.load_dataset(name, data_dir=config, split=split, revision=revision)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        place = f"{name}{f', configuration {config}' if config else ''} (split {split})"
        raise DataError(
            f"{place} is neither a file nor a data set on the hub: {reason}; correct it (a data set is named "
            "name/config:split@revision) or give a file"
        ) from error
