"""Words of the annotators' pages: a table for each language, and the one that a browser prefers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import yaml
from markupsafe import Markup, escape

from lit_align.errors import ConfigError

FOLDER = Path(__file__).with_name("words")
CODE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
"""A language code as browsers send it, such as ``de`` or ``pt-BR``."""
DIRECTIONS = ("ltr", "rtl")
KEY = re.compile(r"\[([^\]]+)\]")
"""A key of the keyboard within a text."""


@dataclass(frozen=True)
class Words:
    """The words of one language.

    Args:
        code: of the language.
        table: text by key.
    """

    code: str
    table: Mapping[str, str]

    @property
    def direction(self) -> str:
        """In which the language is written: ltr or rtl."""
        return self.table["direction"]

    def text(self, key: str, **values: Any) -> str:
        """A text with its values.

        Example:
            >>> read_language("de").text("answer_number", number=2)
            'Antwort 2'
        """
        return self.table[key].format(**values)

    def markup(self, key: str, **values: Any) -> Markup:
        """A text as HTML, with keys of the keyboard as such; values are escaped unless they are HTML themselves."""
        html = KEY.sub(r"<kbd>\1</kbd>", str(escape(self.table[key])))
        return Markup(html).format(**values)

    def role(self, name: str) -> str:
        """What a speaker is called; a role without a word keeps its name."""
        return self.table.get(f"role_{name}", name)

    def duration(self, seconds: float) -> str:
        """A time in a unit that suits it.

        Example:
            >>> read_language("de").duration(5400)
            '1,5 h'
        """
        if seconds < 90:
            return self.text("seconds", number=round(seconds))
        if seconds < 5400:
            return self.text("minutes", number=round(seconds / 60))
        hours = f"{seconds / 3600:.1f}"
        return self.text("hours", number=hours.replace(".", self.table["decimal_point"]))

    def flag_texts(self, flags: Mapping[str, str]) -> dict[str, str]:
        """Problems that a response may have, in this language as far as they are the usual ones.

        Args:
            flags: texts of the campaign, by name.
        """
        usual = usual_flags()
        texts = {}
        for name, text in flags.items():
            is_usual = usual.get(name) == text
            texts[name] = self.table[f"flag_{name}"] if is_usual else text
        return texts


def usual_flags() -> dict[str, str]:
    """Problems that a rated response may have, in English, by their name in the export."""
    table = read_language("en").table
    names = [key for key in table if key.startswith("flag_")]
    return {name.removeprefix("flag_"): table[name] for name in names}


def built_in_languages() -> list[str]:
    """Codes of the languages that have a file in this package; English first."""
    codes = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return sorted(codes, key=lambda code: code != "en")


@cache
def read_language(name: str) -> Words:
    """The words of a language.

    Args:
        name: code of a built-in language, or path of a YAML file whose name is a code, such as ``fr.yaml``.

    Raises:
        ConfigError: if there is none, or the file lacks words, or has others.
    """
    path = Path(name).expanduser()
    if name in built_in_languages():
        path = FOLDER / f"{name}.yaml"
    elif path.suffix not in (".yaml", ".yml"):
        codes = ", ".join(built_in_languages())
        raise ConfigError(
            f"languages has {name!r}; give {codes}, or a YAML file of words such as fr.yaml"
        )
    if not CODE.fullmatch(path.stem):
        raise ConfigError(
            f"languages has {name!r}; name the file after the code of its language, such as fr.yaml or pt-BR.yaml"
        )
    try:
        table = yaml.safe_load(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"languages has {name!r}, which cannot be read: {reason}") from error
    if path.parent != FOLDER or path.stem != "en":
        _check_table(name, table)
    return Words(path.stem, table)


def _check_table(name: str, table: Any) -> None:
    """Refuse a table that is not English word for word in another language.

    Raises:
        ConfigError: naming the keys that are wrong.
    """
    english = read_language("en").table
    if not isinstance(table, dict):
        raise ConfigError(f"languages has {name!r}, which is no table of words by key")
    missing = [key for key in english if key not in table]
    if missing:
        raise ConfigError(
            f"languages has {name!r}, which lacks {', '.join(missing)}; add them, as in words/en.yaml"
        )
    unknown = [str(key) for key in table if key not in english]
    if unknown:
        raise ConfigError(
            f"languages has {name!r}, whose {', '.join(unknown)} no page shows; leave them out"
        )
    if table["direction"] not in DIRECTIONS:
        raise ConfigError(
            f"languages has {name!r}, whose direction is {table['direction']!r}; write ltr or rtl"
        )
    for key, text in table.items():
        if not isinstance(text, str) or not text:
            raise ConfigError(f"languages has {name!r}, whose {key} is {text!r}; write a text")
        if _placeholders(text) != _placeholders(english[key]):
            raise ConfigError(
                f"languages has {name!r}, whose {key} is {text!r}; it needs the names in braces of {english[key]!r}"
            )


def _placeholders(text: str) -> set[str] | None:
    """Names in braces, with whatever is done to them; None if the braces are not closed."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return None
    names = set()
    for _, name, form, conversion in parts:
        if name is not None:
            names.add(f"{name}{form}{conversion or ''}")
    return names


def choose_language(accepted: str, languages: Sequence[Words]) -> Words:
    """The language that a browser prefers, as RFC 9110 has it; the first if it accepts none.

    Args:
        accepted: its ``Accept-Language``.
        languages: to choose from.

    Example:
        >>> languages = [read_language(code) for code in ("en", "de", "es")]
        >>> choose_language("fr, de-AT;q=0.8, en;q=0.5", languages).code
        'de'
    """
    qualities = _qualities(accepted)
    for wanted in _by_preference(qualities):
        if wanted == "*":
            break
        related = [words for words in languages if _are_related(wanted, words.code.lower())]
        exact = [words for words in related if words.code.lower() == wanted]
        if related:
            return (exact or related)[0]
    welcome = [words for words in languages if qualities.get(words.code.lower()) != 0]
    return (welcome or list(languages))[0]


def _are_related(code: str, other: str) -> bool:
    """Whether two codes are equal, or one is the other's in general, as pt is of pt-br."""
    return code == other or code.startswith(f"{other}-") or other.startswith(f"{code}-")


def _by_preference(qualities: Mapping[str, float]) -> list[str]:
    """The preferred code first, and ``*`` behind others of its quality; none of quality 0."""
    wanted = [code for code, quality in qualities.items() if quality > 0]
    return sorted(wanted, key=lambda code: (-qualities[code], code == "*"))


def _qualities(accepted: str) -> dict[str, float]:
    """Codes in lower case with their qualities; 0 refuses a language."""
    qualities: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        code, *parameters = (part.strip() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, number = parameter.partition("=")
            if name.strip() == "q":
                is_number = re.fullmatch(r"[01](\.\d{0,3})?", number.strip())
                quality = float(number) if is_number else 0.0
        if code:
            qualities.setdefault(code, quality)
    return qualities
