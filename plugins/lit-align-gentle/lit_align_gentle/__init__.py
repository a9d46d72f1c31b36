"""Gentle training: comparisons from the clearest to the closest, and an adapter that stays near where it started."""

from __future__ import annotations

from lit_align import Register, hookimpl


@hookimpl
def register_datamodules(register: Register) -> None:
    from lit_align_gentle.curriculum import Curriculum

    register(Curriculum)


@hookimpl
def register_stages(register: Register) -> None:
    from lit_align_gentle.anchored_sft import AnchoredSFT

    register(AnchoredSFT)
