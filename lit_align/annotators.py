"""Who labelled a row: names, which rows a run uses, and salted hashes that stand for names elsewhere."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_align.errors import ConfigError, SetAside

ANNOTATOR = "annotator"
"""The column that says whose labels a row has; ``data.columns: {annotator: worker}`` takes them from another one."""

SALT_VARIABLE = "LIT_ALIGN_SALT"
SALT_FILE = Path("~/.config/lit_align/annotator_salt")
PERSONAL_SETTINGS = ("only_annotator", "annotator")
"""Settings that name the one person whom a run is for."""
KEY = re.compile(r"annotator-[0-9a-f]{16}")
CHECKED_TEXT = "\0the salt of lit_align"  # nobody's name


def annotator_name(value: Any) -> str:
    """The name in a cell: text or a whole number; empty for anything else, such as a list of several people.

    A column of whole numbers with gaps holds floats: 7.0 is the name of 7.

    Example:
        >>> annotator_name(" ada "), annotator_name(7), annotator_name(7.0), annotator_name(7.5)
        ('ada', '7', '7', '')
        >>> annotator_name(None), annotator_name(["ada", "bob"])
        ('', '')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip()


@dataclass(frozen=True)
class AnnotatorFilter:
    """Whose rows are used.

    Args:
        only: the one whose rows alone are used; None uses those of all.
        without: those whose rows are left out.

    Raises:
        ConfigError: if the one is left out, too.

    Example:
        >>> AnnotatorFilter(without=("ada",)).check("bob")
        >>> AnnotatorFilter(only="ada").check("bob")
        Traceback (most recent call last):
        lit_align.errors.SetAside: of another annotator
    """

    only: str | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.only is not None and self.only in self.without:
            raise ConfigError(
                f"data.only_annotator is {self.only!r}, who is among data.without_annotators; remove one of the two"
            )

    def check(self, annotator: str) -> None:
        """Refuse the row of an annotator whose rows are not used. The reason names nobody: reports show it.

        Raises:
            SetAside: if it is.
        """
        for place, name in enumerate(self.without):
            if is_same(annotator, name):
                raise SetAside(_left_out(place))
        if self.only is not None and not is_same(annotator, self.only):
            raise SetAside("of another annotator" if annotator else "it does not say whose it is")

    def unmatched(self, reasons: Container[str]) -> list[str]:
        """A sentence for each of those left out of whom there was no row, such as for a misspelt name.

        Args:
            reasons: for which `check` has refused rows.

        Example:
            >>> print(*AnnotatorFilter(without=("ada", "bbo")).unmatched([_left_out(0)]))  # doctest: +ELLIPSIS
            no row is of the annotator data.without_annotators[1], so nobody is left out for that name: check its ...
        """
        sentences = []
        for place, name in enumerate(self.without):
            is_again = any(is_same(name, earlier) for earlier in self.without[:place])
            if not is_again and _left_out(place) not in reasons:
                sentences.append(
                    f"no row is of the annotator data.without_annotators[{place}], so nobody is left out for that "
                    f"name: check its spelling, and where rows have hashes that {SALT_VARIABLE} is theirs"
                )
        return sentences


def _left_out(place: int) -> str:
    return f"of an annotator who is left out (data.without_annotators[{place}])"


def is_same(annotator: str, name: str) -> bool:
    """Whether a row's annotator is the one of that name, of whom either may be a hash of `annotator_key`."""
    if annotator == name:
        return True
    has_key = KEY.fullmatch(annotator) or KEY.fullmatch(name)
    return bool(annotator and has_key) and annotator_key(annotator) == annotator_key(name)


def annotator_key(name: str, salt: str | None = None) -> str:
    r"""A salted hash that stands for a name; a hash stands for itself.

    .. math:: k = \operatorname{HMAC\text{-}SHA256}(\text{salt}, \text{name})

    Without the salt nobody can try names until a hash is right. It stays on this machine, in
    ``~/.config/lit_align/annotator_salt``; machines that share work set ``LIT_ALIGN_SALT`` to one secret.

    Args:
        name: of an annotator; empty for nobody, whose key is empty.
        salt: None takes that of this machine.

    Example:
        >>> key = annotator_key("ada", salt="a secret")
        >>> key, annotator_key(key) == key, annotator_key("ada", salt="another") == key
        ('annotator-c4778efefc355663', True, False)
    """
    if not is_clear(name):
        return name
    return f"annotator-{_hash(name, salt)}"


def is_clear(name: str) -> bool:
    """Whether a name stands for somebody and is no hash, so that its hash depends on the salt.

    Example:
        >>> is_clear("ada"), is_clear("annotator-c4778efefc355663"), is_clear("")
        (True, False, False)
    """
    return bool(name) and not KEY.fullmatch(name)


def salt_check(salt: str | None = None) -> str:
    """What tells two salts apart and reveals neither: the hash of a text that is the same everywhere.

    Args:
        salt: None takes that of this machine.

    Example:
        >>> salt_check("a secret"), salt_check("another") == salt_check("a secret")
        ('5c442602d14a2439', False)
    """
    return _hash(CHECKED_TEXT, salt)


def salt_remedy() -> str:
    """Where this machine has its salt, and what to do where another one is needed."""
    return f"set {SALT_VARIABLE} to the salt of that time, or bring back its file, here {SALT_FILE.expanduser()}"


def _hash(text: str, salt: str | None) -> str:
    secret = (local_salt() if salt is None else salt).encode()
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:16]


def with_hashed_annotators(settings: Any) -> Any:
    """Settings as plain values with `annotator_key` for people's names; ``columns`` name columns, and stay.

    Example:
        >>> settings = {"reward": {"annotator": "annotator-c4778efefc355663"}, "columns": {"annotator": "worker"}}
        >>> with_hashed_annotators(settings) == settings
        True
    """
    if isinstance(settings, list):
        return [with_hashed_annotators(item) for item in settings]
    if not isinstance(settings, dict):
        return settings
    hashed: dict[str, Any] = {}
    for name, value in settings.items():
        if name in PERSONAL_SETTINGS and isinstance(value, str | int):
            hashed[name] = annotator_key(str(value))
        elif name == "without_annotators" and isinstance(value, list):
            hashed[name] = [annotator_key(str(person)) for person in value]
        else:
            hashed[name] = value if name == "columns" else with_hashed_annotators(value)
    return hashed


def local_salt(environment: Mapping[str, str] = os.environ) -> str:
    """The salt of this machine, drawn when it is first needed.

    Raises:
        ConfigError: if it cannot be kept.
    """
    if given_salt := environment.get(SALT_VARIABLE):
        return given_salt
    file = SALT_FILE.expanduser()
    try:
        if not file.exists():
            _draw_salt(file)
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"the salt of annotators' names cannot be kept in {file}: {error.strerror}; set {SALT_VARIABLE} to a secret"
        ) from error


def _draw_salt(file: Path) -> None:
    """Write a salt that only this user can read; of several processes the first one's stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(secrets.token_hex(32))
    try:
        os.link(temporary, file)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
