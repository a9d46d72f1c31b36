"""``lit-align export``: what was trained, as a PEFT folder or merged into whole weights."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from lit_align.errors import ConfigError

NEXT = "For GGUF, llama.cpp converts that folder: python convert_hf_to_gguf.py {folder}"


def run(arguments: list[str]) -> None:
    """Read a run, write a role."""
    parser = argparse.ArgumentParser(
        "lit-align export", description="Write what a run has trained."
    )
    parser.add_argument("run", help="the numbered folder of a run, or a checkpoint")
    parser.add_argument("folder", help="where to; a new one, or an empty one")
    parser.add_argument("--role", help="whom to write; what was trained if left out")
    parser.add_argument("--merge", action="store_true", help="whole weights instead of an adapter")
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
    asked = parser.parse_args(arguments)

    import lit_align
    from lit_align.models.adapter_files import save_adapter
    from lit_align.models.export import merge

    if asked.dtype and not asked.merge:
        raise ConfigError(
            f"--dtype {asked.dtype} is of merged weights; add --merge, or leave it out"
        )
    folder = Path(asked.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not an empty folder, and nothing is written over; give a new one"
        )
    stage: Any = lit_align.load(asked.run)
    role = asked.role or stage.adapters.trained_roles[0]
    if not asked.merge:
        if asked.role:
            save_adapter(stage.adapters, folder, role, stage.provenance())
        else:
            stage.save_adapter(folder)
        print(
            f"{folder} holds an adapter on {stage.adapters.base}; PEFT and vLLM load it as it is."
        )
        return
    if role in stage.adapters.heads:
        raise ConfigError(
            f"the {role} gives scores, and a merged model would lose its head; leave out --merge"
        )
    if asked.dtype:
        stage = lit_align.load(asked.run, base=replace(stage.base, dtype=asked.dtype))
    cost = merge(stage.adapters, role, stage.tokenizer, folder, asked.bound)
    print(
        f"{folder} holds the {role} as a whole model. Against what was trained, a logit changed by at most "
        f"{cost.largest:.2g} (mean {cost.mean:.2g}), the KL is {cost.kl:.2g} nats a token, and the likeliest token "
        f"is the same at {cost.same_first:.1%} of places.\n{NEXT.format(folder=folder)}"
    )
