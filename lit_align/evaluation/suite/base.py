"""The interface of a task of the evaluation suite: it reads rows, asks a model, and grades the responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from lit_align.checks import check_at_least
from lit_align.data.readers import read_rows
from lit_align.errors import DataError, Malformed
from lit_align.types import Text

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase

Row = dict[str, Any]
"""What is asked: JSON-able, with the text ``prompt``, which names the item in results."""


class Item(NamedTuple):
    """What one prompt adds to the figures of a task.

    Args:
        prompt: of the item; items of one prompt are not independent of each other.
        sums: numerator and denominator of each figure, by its name; a figure is the ratio of their sums.
        details: what else is worth keeping, JSON-able: the answer, the verdicts.
        unread: verdicts of a judge that could not be read, so that a figure does not count them.
        resampled: figures that are no ratio of sums, on any item of their task: the number of prompts, and the value
            of all and of each bootstrap resample of them, with None where it is undefined.
        higher_is_better: of figures whose direction the task's class does not know, on any item; None: neither way.
    """

    prompt: str
    sums: dict[str, tuple[float, float]]
    details: dict[str, Any] = {}  # noqa: RUF012 - never written to
    unread: int = 0
    resampled: dict[str, tuple[int, list[float | None]]] = {}  # noqa: RUF012 - likewise
    higher_is_better: dict[str, bool | None] = {}  # noqa: RUF012 - likewise


class AskedModel(Protocol):
    """What a task may ask of a model, whichever it is."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of its base."""

    def answer(
        self,
        prompts: Sequence[Text],
        places: Sequence[int],
        *,
        as_chat: bool = True,
        **overrides: Any,
    ) -> list[list[str]]:
        """Sampled answers, ``[prompt][sample]``.

        Args:
            prompts: text or turns.
            places: of the prompts among all of the task: nothing depends on how they are shared out.
            as_chat: whether a plain prompt is a user's turn; otherwise the model continues the text.
            overrides: settings of a `SamplingRequest`; greedy without any.
        """

    def continuation_logps(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """The log-probability of each text after its prompt, in nats, summed over its tokens."""

    def active(self) -> AbstractContextManager[PreTrainedModel]:
        """A context in which the model in memory computes with the adapter; it yields the model."""


class Task(ABC):
    """One task of the suite: a frozen dataclass whose fields are its settings.

    ``respond`` needs the model, ``grade`` does not: a judge need not be in memory beside the model. Both get the rows
    in parts, and their results are kept on disk under everything that they depend on.

    Attributes:
        lower_is_better: names of figures that are better when they are lower; of all others more is better.
        part_size: rows that are asked at once, and then kept; None leaves it to the command.
        depends_on: what answers depend on besides the files of the class and its bases: paths, modules, and packages
            whose version counts. What is kept on disk is not used if one of them has changed.
        grades_depend_on: likewise what grades depend on besides.
    """

    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    part_size: ClassVar[int | None] = None
    depends_on: ClassVar[tuple[str, ...]] = ()
    grades_depend_on: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:  # noqa: B027 - most need nothing
        """Refuse what cannot be run here, before a model is loaded.

        Raises:
            ConfigError: if a package or a setting is missing.
        """

    @abstractmethod
    def read(self) -> list[Row]:
        """The rows that are asked, in order.

        Raises:
            DataError: naming a row that cannot be read: none is left out silently.
        """

    @abstractmethod
    def respond(self, model: AskedModel, rows: Sequence[Row], places: Sequence[int]) -> list[Any]:
        """What the model says to each row, JSON-able: texts or log-probabilities.

        Args:
            model: that is evaluated.
            rows: a part of those that were read.
            places: of these rows among all.
        """

    @abstractmethod
    def grade(self, rows: Sequence[Row], responses: Sequence[Any]) -> list[Item]:
        """The items of these rows; in the same order for every model, so that models can be compared by prompt."""


@dataclass(frozen=True)
class FileTask(Task):
    """A task whose rows are those of files or of data sets on the hub, one item each.

    Args:
        data: files, or data sets on the hub (``name/config:split@revision``, all but the name optional).
        limit: the first so many rows; null takes all.

    Raises:
        ConfigError: if limit is below 1.
    """

    data: list[str]
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_at_least("limit", self.limit, 1)

    def read(self) -> list[Row]:
        rows = list(islice(self._rows(), self.limit))
        if not rows:
            raise DataError(f"{', '.join(self.data)} has no rows for {type(self).__name__}")
        return rows

    @abstractmethod
    def parse(self, row: Row) -> Row:
        """The row as it is asked, from the columns of a public set.

        Raises:
            Malformed: with the reason.
        """

    def _rows(self) -> Iterator[Row]:
        for path in self.data:
            for place, raw in read_rows(path):
                yield self._parse_at(place, raw)

    def _parse_at(self, place: str, raw: Any) -> Row:
        try:
            if isinstance(raw, Malformed):
                raise raw
            if not isinstance(raw, dict):
                raise Malformed("not an object")
            return self.parse({str(name).lstrip("\ufeff"): value for name, value in raw.items()})
        except Malformed as error:
            raise DataError(
                f"{place} is no row of {type(self).__name__}: {error}; correct it, or leave it out of the file"
            ) from error


def column(row: Row, *names: str) -> Any:
    """The value of the first of these columns that the row has.

    Raises:
        Malformed: if it has none of them.

    Example:
        >>> column({"Question": "Why?"}, "question", "Question")
        'Why?'
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise Malformed(f"it has no {' or '.join(names)}, only {', '.join(row)}")


def text_column(row: Row, *names: str) -> str:
    """The text of the first of these columns that the row has; errors as for `column`, and if it is no text."""
    value = column(row, *names)
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"its {' or '.join(names)} is {value!r}, not text")
    return value


def as_texts(value: Any) -> list[str]:
    """The texts of a column with a list of texts or numbers, or with one of them; none for null.

    Raises:
        Malformed: for anything else.

    Example:
        >>> as_texts(8), as_texts(["8", "eight"]), as_texts(None)
        (['8'], ['8', 'eight'], [])
    """
    if value is None:
        return []
    values = list(value) if isinstance(value, list | tuple) else [value]
    for each in values:
        if not isinstance(each, str | int | float):
            raise Malformed(f"its answers hold {each!r}, not text or a number")
    return [str(each) for each in values]


def first_samples(answers: Sequence[Sequence[str]]) -> list[str]:
    """The only answer to each prompt, without leading and trailing blanks."""
    return [samples[0].strip() for samples in answers]
