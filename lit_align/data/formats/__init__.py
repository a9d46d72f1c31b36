"""How raw rows become groups: one dataset layout a file, found by its columns or named in the YAML."""

from lit_align.data.formats.base import Format, Row, built_in, recognise

__all__ = ["Format", "Row", "built_in", "recognise"]
