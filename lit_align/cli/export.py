"""``lit-align export``: write what was trained, as a PEFT adapter or merged into the weights of the base."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from lit_align.errors import ConfigError

GGUF_HINT = "For GGUF, llama.cpp converts that folder: python convert_hf_to_gguf.py {folder}"


def run(arguments: list[str]) -> None:
    """Load a run and write one of its adapters.

    Raises:
        ConfigError: if the options do not fit the run, or the folder is not empty.
    """
    options = _parser().parse_args(arguments)
    from lit_align.loading import load

    if options.dtype and not options.merge:
        raise ConfigError(
            f"--dtype {options.dtype} is of merged weights; add --merge, or leave it out"
        )
    folder = Path(options.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not an empty folder, and nothing is overwritten; give a new one"
        )
    stage: Any = load(options.run)
    if options.merge:
        _write_merged(stage, options, folder)
    else:
        _write_adapter(stage, options.role, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-align export", description="Write what a run has trained."
    )
    parser.add_argument("run", help="the numbered folder of a run, or a checkpoint")
    parser.add_argument("folder", help="where to write; a new or empty folder")
    parser.add_argument("--role", help="the adapter to write; the trained one if left out")
    parser.add_argument("--merge", action="store_true", help="merged weights instead of an adapter")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="of the merged weights; the run's own if left out",
    )
    parser.add_argument(
        "--bound",
        type=float,
        default=0.1,
        help="largest change of a logit to accept (default: 0.1)",
    )
    return parser


def _write_adapter(stage: Any, role: str | None, folder: Path) -> None:
    from lit_align.models.adapter_files import save_adapter

    if role:
        save_adapter(stage.adapters, folder, role, stage.provenance(), stage.tokenizer)
    else:
        stage.save_adapter(folder)
    print(f"{folder} holds an adapter on {stage.adapters.base}; PEFT and vLLM load it as it is.")


def _write_merged(stage: Any, options: argparse.Namespace, folder: Path) -> None:
    from lit_align.loading import load
    from lit_align.models.export import merge

    role = options.role or stage.adapters.trained_roles[0]
    if role in stage.adapters.heads:
        raise ConfigError(
            f"the {role} gives scores, and a merged model would lose its head; leave out --merge"
        )
    if options.dtype:
        stage = load(options.run, base=replace(stage.base, dtype=options.dtype))
    error = merge(stage.adapters, role, stage.tokenizer, folder, options.bound)
    print(
        f"{folder} holds the {role} as a merged model. Compared with what was trained, a logit changed by at most "
        f"{error.largest:.2g} (mean {error.mean:.2g}), the KL is {error.kl:.2g} nats a token, and the most probable "
        f"token is the same at {error.same_first:.1%} of positions.\n{GGUF_HINT.format(folder=folder)}"
    )
