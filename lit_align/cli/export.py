"""``lit-align export``: write what was trained, as an adapter, a merged model, a classifier or for Ollama."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from lit_align.errors import ConfigError

WHOLE = ("merge", "as_classifier", "ollama")
"""Options that write whole weights; at most one of them."""

GGUF_HINT = "For GGUF, llama.cpp converts that folder: python convert_hf_to_gguf.py {folder}"


def run(arguments: list[str]) -> None:
    """Load a run and write one of its adapters.

    Raises:
        ConfigError: if the options do not fit the run, or the folder is not empty.
    """
    options = _parser().parse_args(arguments)
    from lit_align.cli.export_push import check_hub_access, push
    from lit_align.loading import load

    if options.dtype and not any(getattr(options, name) for name in WHOLE):
        raise ConfigError(
            f"--dtype {options.dtype} is of merged weights; add --merge, or leave it out"
        )
    folder = Path(options.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not an empty folder, and nothing is overwritten; give a new one"
        )
    if options.push:
        check_hub_access(options.push)
    stage: Any = load(options.run)
    if options.dtype:
        stage = load(options.run, base=replace(stage.base, dtype=options.dtype))
    if options.as_classifier:
        _write_classifier(stage, options, folder)
    elif options.merge or options.ollama:
        _write_merged(stage, options, folder)
    else:
        _write_adapter(stage, options, folder)
    if options.push:
        address = push(folder, options.push, f"{type(stage).__name__} trained with lit-align")
        print(f"{options.push} holds the same at {address}; a new repository is private.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-align export", allow_abbrev=False, description="Write what a run has trained."
    )
    parser.add_argument("run", help="the numbered folder of a run, or a checkpoint")
    parser.add_argument("folder", help="where to write; a new or empty folder")
    parser.add_argument("--role", help="the adapter to write; the trained one if left out")
    whole = parser.add_mutually_exclusive_group()
    whole.add_argument("--merge", action="store_true", help="merged weights instead of an adapter")
    whole.add_argument(
        "--as-classifier",
        action="store_true",
        help="a reward model for AutoModelForSequenceClassification of transformers",
    )
    whole.add_argument(
        "--ollama",
        action="store_true",
        help="merged weights with a Modelfile, and as GGUF where the architecture is Llama's",
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="of the merged weights; the run's own if left out",
    )
    parser.add_argument(
        "--bound",
        type=float,
        default=0.1,
        help="largest change of a logit or score to accept (default: 0.1)",
    )
    parser.add_argument(
        "--push",
        metavar="NAME",
        help="upload the folder to this model repository on the hub; a new one is private",
    )
    return parser


def _write_adapter(stage: Any, options: argparse.Namespace, folder: Path) -> None:
    from lit_align.cli.export_records import run_provenance, run_summary
    from lit_align.models.adapter_files import save_adapter, write_adapter_card

    roles = getattr(stage, "members", stage.adapters.trained_roles[:1])  # all of an ensemble
    if options.role:
        roles = (options.role,)
    for role in roles:
        provenance = run_provenance(options.run, stage, role)
        role_folder = folder / role if len(roles) > 1 else folder
        save_adapter(stage.adapters, role_folder, role, provenance, stage.tokenizer)
    summary = run_summary(options.run)
    if summary is not None:
        write_adapter_card(folder, dict(summary))
    print(
        f"{folder} holds an adapter on {stage.base.path}; {_elsewhere(stage, roles[0], role_folder)}"
    )


def _write_classifier(stage: Any, options: argparse.Namespace, folder: Path) -> None:
    from lit_align.cli.export_classifier import export_classifier, offset_note
    from lit_align.cli.export_records import run_provenance, run_summary

    role = options.role or stage.adapters.trained_roles[0]
    provenance = run_provenance(options.run, stage, role)
    summary = run_summary(options.run)
    exported = export_classifier(stage, options.role, folder, options.bound, provenance, summary)
    print(
        f"{folder} holds the {role} as a classifier with one label: AutoModelForSequenceClassification loads it. On "
        f"sample texts a score differs by at most {exported.difference:.2g} from the run's. "
        f"{offset_note(exported.offset)}README.md shows how to score."
    )


def _write_merged(stage: Any, options: argparse.Namespace, folder: Path) -> None:
    from lit_align.cli.export_ollama import write_for_ollama
    from lit_align.cli.export_records import run_provenance, run_summary
    from lit_align.models.card import model_card
    from lit_align.models.export import merge
    from lit_align.models.loading_code import merged_usage

    role = options.role or stage.adapters.trained_roles[0]
    if role in stage.adapters.heads:
        raise ConfigError(
            f"the {role} gives scores, and a merged model would lose its head; leave out --{_option(options)}, or "
            "give --as-classifier instead"
        )
    provenance = run_provenance(options.run, stage, role)
    card = model_card(
        provenance, run_summary(options.run), merged_usage(provenance), "transformers"
    )
    sentences = [GGUF_HINT.format(folder=folder)]

    def write_more(temporary: Path, model: Any) -> None:
        (temporary / "README.md").write_text(card, "utf-8")
        if options.ollama:
            sentences[:] = write_for_ollama(model, stage.tokenizer, temporary, folder)

    error = merge(stage.adapters, role, stage.tokenizer, folder, options.bound, write_more)
    print(
        f"{folder} holds the {role} as a merged model. Compared with what was trained, a logit changed by at most "
        f"{error.largest:.2g} (mean {error.mean:.2g}), the KL is {error.kl:.2g} nats a token, and the most probable "
        f"token is the same at {error.same_first:.1%} of positions."
    )
    print("\n".join(sentences))


def _option(options: argparse.Namespace) -> str:
    return "ollama" if options.ollama else "merge"


def _elsewhere(stage: Any, role: str, folder: Path) -> str:
    """What other programs can do with the adapter in a folder, in a sentence or two."""
    from lit_align.models.card import is_hub_id
    from lit_align.models.vllm import vllm_options, vllm_problems

    path = stage.base.path
    if role in stage.adapters.heads:
        return (
            "only lit-align reads its score head, and transformers would draw a random one without an error: for other "
            "programs use --as-classifier."
        )
    if path.endswith(".gguf"):
        return (
            "PEFT loads it on the base as README.md shows. Programs that look a base up by its name, such as vLLM, do "
            "not know that GGUF file: for them use --merge."
        )
    place = "as it is" if is_hub_id(path) else "as it is where the base is in that folder"
    if stage.adapters.needs_whole_base(role):
        place = "on the base in 16 or 32 bits, not in 4"
    problems = vllm_problems(folder)
    if problems:
        return (
            f"PEFT loads it {place}. vLLM does not: {', and '.join(problems)}; for it use --merge."
        )
    return (
        f"PEFT loads it {place}. It has the form that vLLM loads ({vllm_options(folder)}) on the models for which vLLM "
        "has LoRA; it has not been run there."
    )
