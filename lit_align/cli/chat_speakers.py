"""Who answers in a chat: adapters of runs on one base, the base without them, each with its own conversation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lit_align.chat.attribute_line import Steering, add_line, parse_values
from lit_align.chat.plain_text import is_plain_text_adapter
from lit_align.chat.spelled_tokens import TurnTokenizer
from lit_align.checkpoint_files import adapter_folder, last_checkpoint, run_of_checkpoint
from lit_align.errors import ConfigError, ModelError, RowError
from lit_align.models.adapters import check_adapter, read_provenance, saved_template
from lit_align.models.generate import stream
from lit_align.models.heads import HEAD_FILE
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.run_report.number_text import natural_key
from lit_align.types import Message

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
UNTRAINED = "base"
"""What ``--compare`` takes for the model without an adapter; also the name under which no adapter is loaded."""

CHECKPOINT = ".ckpt"
RUN_SETTINGS, ADAPTER_SETTINGS = "config.yaml", "adapter_config.json"


@dataclass
class Speaker:
    """One side of the chat: an adapter on the shared base, or the base alone, with its own conversation.

    Args:
        name: shown above its answers, such as DPO on Qwen3-8B.
        adapter: its name in ``peft``; a name that is not there stands for the base alone.
        peft: the base with the adapters on it; None if there are none.
        base: the base model.
        tokenizer: the base's, with a chat template.
        limit: largest number of tokens in an answer.
        turns: the conversation so far.
        line: ends the newest question, and asks for attributes of the answer; empty for none.
    """

    name: str
    adapter: str
    peft: Any
    base: Any
    tokenizer: Any
    limit: int
    turns: list[Message] = field(default_factory=list)
    line: str = ""

    def answer(self, system: str, text: str, temperature: float, seed: int) -> Generator[str]:
        """The answer so far, after each token; it enters the conversation up to where it is stopped.

        Raises:
            ModelError: if the model cannot read the text.
        """
        self.turns.append({"role": "user", "content": text})
        answer = ""
        sampled_ids: list[int] = []
        try:
            prompt, limit = self._prompt(system)
            tokens = stream(
                self.base,
                self.tokenizer,
                prompt,
                max_new_tokens=limit,
                temperature=temperature,
                seed=seed,
            )
            while True:
                with self._active():
                    token = next(tokens, None)
                if token is None:
                    break
                sampled_ids.append(token)
                answer = self.tokenizer.decode(sampled_ids, skip_special_tokens=True).lstrip()
                if not answer.endswith(INCOMPLETE):  # the next token completes the character
                    yield answer
        finally:
            if answer:
                self.turns = [*self.turns, {"role": "assistant", "content": answer.strip()}]
            else:
                self.turns = self.turns[:-1]

    def _active(self) -> AbstractContextManager[Any]:
        """The adapter is active inside."""
        if self.peft is None:
            return nullcontext()
        if self.adapter not in self.peft.peft_config:
            without_adapter: AbstractContextManager[Any] = self.peft.disable_adapter()
            return without_adapter
        if self.peft.active_adapter != self.adapter:
            self.peft.set_adapter(self.adapter)
        return nullcontext()

    def _prompt(self, system: str) -> tuple[list[int], int]:
        """Token ids of the conversation and the room for an answer; the oldest turns are dropped if it is too long."""
        context = getattr(self.base.config, "max_position_embeddings", None) or sys.maxsize
        for dropped in range(0, len(self.turns), 2):
            ids = self._encode(system, self.turns[dropped:])
            if len(ids) + self.limit <= context:
                break
        if len(ids) >= context:
            raise ModelError(
                f"that makes {len(ids)} tokens, and {self.name} reads fewer than {context}; write less"
            )
        if dropped:
            note(f"the oldest {dropped} turns are left out: {self.name} reads {context} tokens")
            del self.turns[:dropped]
        return ids, min(self.limit, context - len(ids))

    def _encode(self, system: str, turns: list[Message]) -> list[int]:
        messages = [{"role": "system", "content": system}, *turns] if system else turns
        if self.line:
            messages = list(add_line(messages, self.line))  # type: ignore[arg-type]
        try:
            return self._turn_tokenizer.encode(messages, add_generation_prompt=True)
        except RowError as error:
            raise ModelError(str(error)) from error

    @cached_property
    def _turn_tokenizer(self) -> TurnTokenizer:
        return TurnTokenizer(self.tokenizer)


def load_speakers(options: argparse.Namespace) -> list[Speaker]:
    """Load the base, and the adapters onto it.

    Args:
        options: of the command.

    Raises:
        ConfigError: if no model is named, or one that does not answer.
        ModelError: if a model or an adapter cannot be loaded.
    """
    folders = _adapter_folders(options)
    named = next(iter(folders.values()), None)
    settings: dict[str, Any] = {"base": {}}
    run = options.run or next(iter(find_people(options).values()), None)
    run_settings = _run_folder(run) / RUN_SETTINGS if run else None
    if run_settings and run_settings.is_file():
        settings = _read_settings(run_settings)["model"]["init_args"]
    elif named:
        settings["chat_template"], settings["template_kwargs"] = saved_template(named)
    base = _base(options, settings["base"], named)
    tokenizer = load_tokenizer(
        base,
        options.chat_template or settings.get("chat_template"),
        options.template_kwargs or settings.get("template_kwargs"),
    )
    if not tokenizer.chat_template:
        raise ModelError(
            f"{base.path!r} has no chat template; give one with --chat_template, such as chatml"
        )
    for folder in folders.values():
        check_adapter(folder, base.path, base.revision)  # refuses an adapter of another base
    _warn_of_templates(folders)
    lines = attribute_lines(folders, options.attributes)
    model = load_model(base)
    peft = _load_adapters(model, folders)
    return [
        Speaker(
            name,
            adapter,
            peft,
            model,
            tokenizer,
            options.max_new_tokens,
            line=lines.get(adapter, ""),
        )
        for adapter, name in _names(options, folders, base.path).items()
    ]


def _adapter_folders(options: argparse.Namespace) -> dict[str, Path]:
    """The folder of each adapter, by its name in PEFT.

    Raises:
        ConfigError: if the options name no model, or nothing to compare with.
    """
    folders: dict[str, Path] = {}
    if options.run or options.adapter:
        folders["adapter"] = _find_adapter(options.run or options.adapter)
    for name, run in find_people(options).items():
        folders[_adapter_of(name, options)] = _find_adapter(run)
    if options.compare and options.compare != UNTRAINED:
        folders["compare"] = _find_adapter(options.compare)
    if not folders and not options.base:
        raise ConfigError(
            "there is no model to chat with; give the folder of a run, as in lit-align chat runs/dpo/0, or --base MODEL"
        )
    if options.compare == UNTRAINED and not folders:
        raise ConfigError(
            "there is nothing to compare the untrained model with; give the folder of a run too"
        )
    return folders


def find_people(options: argparse.Namespace) -> dict[str, str]:
    """The run of each person's adapter, by name: the newest in the folder of that name, or the one that is given.

    Raises:
        ConfigError: if there is none, or a name comes twice.
    """
    runs: dict[str, str] = {}
    for text in options.people:
        name, has_run, run = text.partition("=")
        if name in runs:
            raise ConfigError(f"--as names {name!r} twice; give each person once")
        runs[name] = run if has_run else str(_newest_run(Path(options.people_folder) / name))
    return runs


def _newest_run(folder: Path) -> Path:
    """The numbered folder that was made last, or the folder itself if it is a run or an adapter."""
    folder = folder.expanduser()
    if (folder / RUN_SETTINGS).is_file() or (folder / ADAPTER_SETTINGS).is_file():
        return folder
    runs = [file.parent for file in folder.glob(f"*/{RUN_SETTINGS}")]
    if not runs:
        there = sorted(path.parents[1].name for path in folder.parent.glob(f"*/*/{RUN_SETTINGS}"))
        names = f"; {folder.parent} has {', '.join(dict.fromkeys(there))}" if there else ""
        raise ConfigError(
            f"there is no run in {folder} for --as {folder.name}{names}; name the person's run, as in --as "
            f"{folder.name}=RUN, or the folder of all with --people"
        )
    return max(runs, key=lambda run: natural_key(run.name))


def _adapter_of(name: str, options: argparse.Namespace) -> str:
    """What PEFT calls the adapter of a person: a number, since a name may hold a dot."""
    return f"person{[*find_people(options)].index(name)}"


def _find_adapter(path: str) -> Path:
    """The folder of the adapter that a run, a checkpoint or an adapter's own folder names.

    Raises:
        ConfigError: if there is none, or it is that of a reward model.
    """
    folder = Path(path).expanduser()
    if folder.suffix == CHECKPOINT:
        candidates = [adapter_folder(folder)]
    else:
        candidates = [adapter_folder(last_checkpoint(folder)), folder / "adapter", folder]
    for candidate in candidates:
        if (candidate / HEAD_FILE).is_file() or any(candidate.glob(f"*/{HEAD_FILE}")):
            raise ConfigError(
                f"{path} is a reward model, which scores and does not answer; give a policy's run or adapter"
            )
        if (candidate / ADAPTER_SETTINGS).is_file():
            return candidate
    runs = (file.parent for file in folder.glob(f"*/{RUN_SETTINGS}"))
    numbered = sorted(runs, key=lambda run: natural_key(run.name))
    if numbered:
        hint = f"give one of the runs in it, such as {numbered[-1]}"
    elif (folder / RUN_SETTINGS).is_file():
        hint = "the run has saved none yet, or its stage has none; give another run"
    else:
        hint = "give the numbered folder of a run or an adapter, or --base MODEL for a model alone"
    raise ConfigError(f"there is no adapter in {path}; {hint}")


def _run_folder(path: str) -> Path:
    """The folder of a run, of which a checkpoint may be named."""
    folder = Path(path).expanduser()
    return run_of_checkpoint(folder) if folder.suffix == CHECKPOINT else folder


def _base(options: argparse.Namespace, saved: dict[str, Any], adapter: Path | None) -> Base:
    """The base model: as the options say, else as the run did, else as the adapter says."""
    path = options.base or saved.get("path")
    if not path:
        path = _read_settings(Path(str(adapter)) / ADAPTER_SETTINGS)["base_model_name_or_path"]
    quantization = options.quantization or saved.get("quantization", "nf4")
    return Base(**{**saved, "path": path, "quantization": quantization})


def _warn_of_templates(folders: dict[str, Path]) -> None:
    """Note which adapters were trained on text that is unlike that of the chat."""
    templates = set()
    for folder in folders.values():
        templates.add(read_provenance(folder).get("template"))
        if is_plain_text_adapter(folder):
            note(f"warning: {folder} was trained on plain text, and this chat speaks in turns")
    if len(templates - {None}) > 1:
        first, *others = folders.values()
        note(
            f"warning: {' or '.join(map(str, others))} was trained under another chat template than {first}, and "
            "answers under that one's"
        )


def attribute_lines(folders: Mapping[str, Path], requested: str | None) -> dict[str, str]:
    """The line that asks each adapter for attributes of its answers; those that were trained without get none.

    Args:
        folders: of the adapters, by name.
        requested: values, as in verbosity=1,helpfulness=4; None for the medians of training.

    Raises:
        ConfigError: if no adapter was trained with attributes, or one not with these values.
    """
    values = {} if requested is None else parse_values(requested)
    lines = {}
    for name, folder in folders.items():
        steering = Steering.of_provenance(read_provenance(folder))
        if steering is not None:
            lines[name] = steering.line(values)
            note(f"{folder}: each question ends with {lines[name]!r}")
    if values and not lines:
        raise ConfigError(
            "--attributes is set, and no adapter here was trained with attributes; train one with the data module "
            "RatedDemonstrations"
        )
    return lines


def _load_adapters(model: Any, folders: dict[str, Path]) -> Any:
    """The model with all adapters on it; None without adapters."""
    from peft import PeftModel

    peft: Any = None
    for name, folder in folders.items():
        if peft is None:
            peft = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
        else:
            peft.load_adapter(str(folder), name)
    return peft


def _names(options: argparse.Namespace, folders: dict[str, Path], base: str) -> dict[str, str]:
    """What to call each speaker, by the name of its adapter; those that are called the same say their folder."""
    model = short_model_name(base)
    people = {_adapter_of(name, options): name for name in find_people(options)}
    names = {}
    for name, folder in folders.items():
        names[name] = people.get(name) or f"{_training(folder)} on {model}"
    if "adapter" in names and names["adapter"] == names.get("compare"):
        paths = {"adapter": options.run or options.adapter, "compare": options.compare}
        for name, path in paths.items():
            names[name] = f"{names[name]} ({path})"
    if (
        "adapter" not in folders and not people
    ):  # the model that an adapter is compared with comes first
        return {UNTRAINED: model, **names}
    if options.compare == UNTRAINED:
        names[UNTRAINED] = f"{model}, untrained"
    return names


def _training(folder: Path) -> str:
    """What an adapter was trained with: its objective, or SFT; its folder's name if it does not say."""
    provenance = read_provenance(folder)
    if provenance.get("stage") == "SFT":
        return "SFT"
    objective = str(provenance.get("objective", ""))
    return objective.partition("(")[0] or folder.name


def short_model_name(path: str) -> str:
    """The last part of the name of a model.

    Example:
        >>> short_model_name("Qwen/Qwen3-8B"), short_model_name("package:llm/SmolLM2-135M.Q4_1.gguf")
        ('Qwen3-8B', 'SmolLM2-135M.Q4_1')
    """
    return path.rstrip("/").rpartition("/")[2].removesuffix(".gguf")


def _read_settings(file: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file."""
    return dict(yaml.safe_load(file.read_text("utf-8")))


def note(text: str) -> None:
    """Print what is no answer."""
    print(text, file=sys.stderr, flush=True)
