"""A digest of everything that tokenised rows depend on: files, formats, settings and tokenizer."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from lit_align import __version__
from lit_align.data.read_groups import DataSource
from lit_align.data.tokenize import ChatTokenizer

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

FILE_VERSION = 7
"""Raised when the files of `prepared_files` change, or what is read into them."""

READ_BYTES = 2**22


def prepared_key(source: DataSource, tokenizer: ChatTokenizer) -> str:
    """The name under which the rows of ``source`` are kept when ``tokenizer`` has tokenised them."""
    formats = [source.format] if source.format else source.formats
    columns = source.columns
    content = [
        FILE_VERSION,
        __version__,
        [*source.paths],  # rows carry their places
        [file_digest(path) for path in source.paths],
        str(source.label_kind),
        [f"{type(row_format).__module__} {row_format!r}" for row_format in formats],
        [*source.attributes],
        sorted(columns.names.items()),
        sorted(columns.ignored),
        sorted(columns.read),
        repr(columns.annotators),
        _tokenizer_content(tokenizer.tokenizer),
        tokenizer.settings(),
    ]
    text = json.dumps(content, sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a tokenizer's ids depend on."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = (
        backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    )
    special = sorted(tokenizer.special_tokens_map.items())
    return [type(tokenizer).__name__, content, repr(special), str(tokenizer.chat_template)]


def file_digest(path: str) -> str:
    """A digest of a file's content."""
    digest = blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while content := file.read(READ_BYTES):
            digest.update(content)
    return digest.hexdigest()
