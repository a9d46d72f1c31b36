"""Open data files, and name the encoding of those that are not UTF-8."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import IO, cast

from lit_align.errors import DataError

UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
HEAD = 4096


def open_file(path: str) -> IO[bytes]:
    """The file for reading, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: if its encoding is not UTF-8, by its first bytes.
    """
    is_packed = path.endswith(".gz")
    file = cast(IO[bytes], gzip.open(path) if is_packed else open(path, "rb"))  # noqa: SIM115
    try:
        head = file.read(HEAD)
    except (OSError, EOFError) as error:  # gzip raises them for an incomplete download
        raise DataError(f"{path} is broken: {error}; fetch it again") from error
    if guess_encoding(head) == "UTF-16":
        raise not_utf8(path, head)
    file.seek(0)
    return file


def guess_encoding(head: bytes) -> str:
    r"""What text that is not UTF-8 is probably written in.

    Example:
        >>> guess_encoding("é".encode("cp1252")), guess_encoding("a,b\n".encode("utf-16-le"))
        ('CP1252', 'UTF-16')
    """
    is_wide = head.count(0) > len(head) // 4  # half of the bytes of English text
    return "UTF-16" if head.startswith(UTF_16_MARKS) or is_wide else "CP1252"


def not_utf8(path: str, part: bytes, place: str = "") -> DataError:
    """The error for a file in another encoding, with the command that converts it."""
    encoding = guess_encoding(part)
    unpack = f"gzip -dc {path} | " if path.endswith(".gz") else ""
    source = "" if unpack else f" {path}"
    return DataError(
        f"{path}{place} is not UTF-8 and looks like {encoding}; convert it: "
        f"{unpack}iconv -f {encoding} -t UTF-8{source} > {_converted_name(path)}"
    )


def _converted_name(path: str) -> str:
    name = Path(path.removesuffix(".gz"))
    return f"{name.stem}-utf8{name.suffix}"
