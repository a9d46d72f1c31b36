"""Align language models with feedback, on one GPU, from one YAML and one command."""

from lit_align.hookspecs import hookimpl

__version__ = "0.1.0"
__all__ = ["hookimpl"]
