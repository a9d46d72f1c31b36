"""The hook that the cross-modal extension adds."""

from __future__ import annotations

from lit_align.hookspecs import Register, hookspec


@hookspec
def register_embedders(register: Register) -> None:
    """Embedders: how data of another modality become tokens of a transformer."""
