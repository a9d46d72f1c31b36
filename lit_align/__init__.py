"""Align language models with feedback, on one GPU, from one YAML and one command."""

from lit_align._version import __version__
from lit_align.hookspecs import Register, hookimpl
from lit_align.loading import load

__all__ = ["Register", "__version__", "hookimpl", "load"]
