"""Instructions that code can check: IFEval (Zhou et al., 2023, https://arxiv.org/abs/2311.07911)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least
from lit_align.errors import ConfigError, Malformed
from lit_align.evaluation.suite import AskedModel, FileTask, Item, Row
from lit_align.evaluation.suite.base import column, first_samples, text_column

NEEDS_PUNKT = frozenset(
    ("length_constraints:number_sentences", "change_case:capital_word_frequency")
)
"""Instructions that are checked with the tokenizer data ``punkt_tab`` of NLTK."""


@dataclass(frozen=True)
class Constraints(FileTask):
    """Does the answer keep to constraints such as "no commas" or "at least 300 words"? IFEval's own checks say so.

    Figures: the share of prompts whose instructions are all followed, and the share of instructions; ``loose`` also
    counts an answer that follows without its first line, its last line, or asterisks. Answers are greedy, as in the
    paper. Columns: ``prompt``, ``instruction_id_list`` and ``kwargs``, as google/IFEval has them. The checks are those
    that the package ``lm_eval`` (extra ``eval``) carries.

    Args:
        max_new_tokens: longest answer.

    Raises:
        ConfigError: if the package is not installed, or data that a check needs.
    """

    max_new_tokens: int = 1280

    grades_depend_on = ("lm_eval", "langdetect", "nltk")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("max_new_tokens", self.max_new_tokens, 1)

    def check(self) -> None:
        missing = [name for name in ("lm_eval", "langdetect", "nltk") if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"Constraints needs {', '.join(missing)}, which is not installed; run: pip install 'lit-align[eval]'"
            )

    def read(self) -> list[Row]:
        self.check()
        rows = super().read()
        named = {name for row in rows for name in row["instruction_id_list"]}
        if needed := sorted(named & NEEDS_PUNKT):
            _require_punkt(needed)
        return rows

    def parse(self, row: Row) -> Row:
        names, settings = column(row, "instruction_id_list"), column(row, "kwargs")
        if len(names) != len(settings):
            raise Malformed(f"it has {len(names)} instructions and kwargs of {len(settings)}")
        parsed: Row = {
            "prompt": text_column(row, "prompt"),
            "instruction_id_list": list(names),
            "kwargs": [_given(each) for each in settings],
        }
        for name, given in zip(names, parsed["kwargs"], strict=True):
            _check_instruction(name, given)
        return parsed

    def respond(self, model: AskedModel, rows: Sequence[Row], places: Sequence[int]) -> list[Any]:
        prompts = [row["prompt"] for row in rows]
        return first_samples(model.answer(prompts, places, max_new_tokens=self.max_new_tokens))

    def grade(self, rows: Sequence[Row], responses: Sequence[Any]) -> list[Item]:
        items = []
        for row, response in zip(rows, responses, strict=True):
            sums, details = {}, {"answer": response}
            for manner, followed in _followed(row, response).items():
                count = float(len(followed))
                sums[f"prompts, {manner}"] = (float(all(followed)), 1.0)
                sums[f"instructions, {manner}"] = (float(sum(followed)), count)
                details[manner] = followed
            items.append(Item(row["prompt"], sums, details))
        return items


def _followed(row: Row, response: str) -> dict[str, list[bool]]:
    """Which instructions the response follows, strictly and loosely."""
    import langdetect
    from lm_eval.tasks.ifeval import utils

    langdetect.DetectorFactory.seed = 0  # otherwise it answers at random in doubt
    example = utils.InputExample(key=0, **row)
    strict = utils.test_instruction_following_strict(example, response)
    loose = utils.test_instruction_following_loose(example, response)
    return {
        "strict": [bool(each) for each in strict.follow_instruction_list],
        "loose": [bool(each) for each in loose.follow_instruction_list],
    }


def _given(settings: Any) -> dict[str, Any]:
    """The settings of an instruction that the row gives; tables fill the others with null."""
    if not isinstance(settings, dict):
        raise Malformed(f"its kwargs hold {settings!r}, not an object")
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, float) and value.is_integer():
            given[name] = int(value)  # as Parquet has columns with nulls
    return given


def _check_instruction(name: str, given: dict[str, Any]) -> None:
    """Refuse an instruction that is unknown, or whose missing settings the checks would draw at random.

    Raises:
        Malformed: naming it.
    """
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    if name not in INSTRUCTION_DICT:
        raise Malformed(f"there is no instruction {name!r}")
    instruction = INSTRUCTION_DICT[name](name)
    try:
        instruction.build_description(**given)
    except (TypeError, ValueError) as error:
        raise Malformed(f"its instruction {name} does not take {given}: {error}") from error
    missing = sorted((instruction.get_instruction_args() or {}).keys() - given.keys() - {"prompt"})
    unset = sorted(setting for setting, value in given.items() if not value)
    if missing or unset:
        raise Malformed(f"its instruction {name} has no value for {', '.join(missing or unset)}")


def _require_punkt(instructions: Sequence[str]) -> None:
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError as error:
        raise ConfigError(
            f"{', '.join(instructions)} is checked with NLTK's data punkt_tab, which is not on this machine; run: "
            "python -m nltk.downloader punkt_tab"
        ) from error


@hookimpl
def register_tasks(register: Register) -> None:
    register(Constraints)
