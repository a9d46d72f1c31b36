"""Formats convert raw rows to groups; a file's format is found by its columns or named in the YAML."""

from lit_align.data.formats.base import Format, Row, built_in, recognise

__all__ = ["Format", "Row", "built_in", "recognise"]
