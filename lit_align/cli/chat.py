"""``lit-align chat``: chat with a model in the terminal, or with two side by side; piped, an answer to each line."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from lit_align.chat.plain_text import is_plain_text_adapter
from lit_align.chat.spelled_tokens import TurnTokenizer
from lit_align.errors import ConfigError, ModelError, RowError
from lit_align.models.adapters import check_adapter, saved_template
from lit_align.models.generate import stream
from lit_align.models.heads import HEAD_FILE
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.types import Message

COMMANDS = "/reset forgets the conversation, /system TEXT sets the system prompt, /quit leaves"
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass
class Speaker:
    """One side of the chat: an adapter on the shared base, or the base alone, with its own conversation.

    Args:
        name: shown above its answers.
        adapter: its name in ``peft``; a name that is not there stands for the base alone.
        peft: the base with the adapters on it; None if there are none.
        base: the base model.
        tokenizer: the base's, with a chat template.
        limit: largest number of tokens in an answer.
        turns: the conversation so far.
    """

    name: str
    adapter: str
    peft: Any
    base: Any
    tokenizer: Any
    limit: int
    turns: list[Message] = field(default_factory=list)

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
            _note(f"the oldest {dropped} turns are left out: {self.name} reads {context} tokens")
            del self.turns[:dropped]
        return ids, min(self.limit, context - len(ids))

    def _encode(self, system: str, turns: list[Message]) -> list[int]:
        messages = [{"role": "system", "content": system}, *turns] if system else turns
        try:
            return self._turn_tokenizer.encode(messages, add_generation_prompt=True)
        except RowError as error:
            raise ModelError(str(error)) from error

    @cached_property
    def _turn_tokenizer(self) -> TurnTokenizer:
        return TurnTokenizer(self.tokenizer)


def run(arguments: list[str]) -> None:
    """Answer each line of input until there are no more.

    Raises:
        ConfigError: if no model is named.
        ModelError: if a model or an adapter cannot be loaded.
    """
    options = _parser().parse_args(arguments)
    warnings.filterwarnings(  # PEFT calls it
        "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
    )
    speakers = _load_speakers(options)
    names = " and ".join(speaker.name for speaker in speakers)
    _note(f"{names}: {COMMANDS}; Ctrl-C stops an answer")
    with suppress(ImportError):
        import readline  # noqa: F401 - input() then has the arrow keys
    system, seed = options.system, 0
    while (line := _read_line()) is not None:
        command, _, argument = line.partition(" ")
        if command == "/quit":
            return
        if command == "/system":
            system = argument.strip()
        elif command == "/reset":
            for speaker in speakers:
                speaker.turns = []
        elif command.startswith("/"):
            _note(f"there is no {command}; {COMMANDS}")
        elif line:
            _answer(speakers, system, line, options.temperature, seed)
            seed += 1  # the same question gets another answer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-align chat", description=f"Chat with a model. In the chat, {COMMANDS}."
    )
    adapter = parser.add_mutually_exclusive_group()
    adapter.add_argument(
        "--adapter", metavar="FOLDER", help="an adapter, such as adapter/ in the folder of a run"
    )
    adapter.add_argument(
        "--run",
        metavar="FOLDER",
        help="the numbered folder of a run: its newest adapter, even while it trains",
    )
    parser.add_argument(
        "--base", metavar="PATH", help="the model; if not given, what the adapter was trained on"
    )
    parser.add_argument(
        "--quantization",
        choices=["nf4", "none"],
        help="of the base; if not given, the run's or nf4",
    )
    parser.add_argument(
        "--chat_template",
        metavar="FILE",
        help="Jinja, or chatml; if not given, that of the run or the adapter, or the base's",
    )
    parser.add_argument(
        "--template_kwargs",
        metavar="JSON",
        type=json.loads,
        help="arguments of the template, such as '{\"enable_thinking\": false}'; if not given, the run's or adapter's",
    )
    parser.add_argument(
        "--compare",
        metavar="FOLDER",
        help="another adapter on the same base, which answers side by side",
    )
    parser.add_argument("--system", metavar="TEXT", default="", help="system prompt")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="of the sampling; 0 is greedy"
    )
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest answer")
    return parser


def _answer(speakers: list[Speaker], system: str, line: str, temperature: float, seed: int) -> None:
    """Print what each speaker answers to a line; Ctrl-C stops the answer."""
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        answers = [speaker.answer(system, line, temperature, seed) for speaker in speakers]
        for answer in answers:
            stack.enter_context(closing(answer))
        try:
            if len(answers) == 1:
                _print_answer(answers[0])
            else:
                _print_side_by_side(speakers, answers)
        except ModelError as error:
            _note(str(error))


def _load_speakers(options: argparse.Namespace) -> list[Speaker]:
    """Load the base, and the adapters onto it."""
    adapter = options.adapter
    if options.run:
        adapter = str(Path(options.run, "checkpoints", "last.adapter"))
    folders = {"adapter": adapter, "compare": options.compare}
    folders = {name: folder for name, folder in folders.items() if folder}
    if not folders and not options.base:
        raise ConfigError("there is no model to chat with; give --run, --adapter or --base")
    settings: dict[str, Any] = {"base": {}}
    if options.run:
        settings = _read_settings(options.run, "config.yaml")["model"]["init_args"]
    elif adapter:
        settings["chat_template"], settings["template_kwargs"] = saved_template(adapter)
    base = _base(options, settings["base"], adapter or options.compare)
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
        if is_plain_text_adapter(Path(folder)):
            _note(f"warning: {folder} was trained on plain text, and this chat speaks in turns")
        if (Path(folder) / HEAD_FILE).is_file():
            raise ConfigError(
                f"{folder} is a reward model, which scores and does not answer; give a policy's adapter"
            )
    model = load_model(base)
    peft = _load_adapters(model, folders)
    names = {"adapter": base.path, **folders}
    return [
        Speaker(name, adapter, peft, model, tokenizer, options.max_new_tokens)
        for adapter, name in names.items()
    ]


def _base(options: argparse.Namespace, saved: dict[str, Any], adapter: str | None) -> Base:
    """The base model: as the options say, else as the run did, else as the adapter says."""
    path = options.base or saved.get("path")
    if not path:
        path = _read_settings(str(adapter), "adapter_config.json")["base_model_name_or_path"]
    quantization = options.quantization or saved.get("quantization", "nf4")
    return Base(**{**saved, "path": path, "quantization": quantization})


def _load_adapters(model: Any, folders: dict[str, str]) -> Any:
    """The model with all adapters on it; None without adapters."""
    from peft import PeftModel

    peft: Any = None
    for name, folder in folders.items():
        if peft is None:
            peft = PeftModel.from_pretrained(model, folder, adapter_name=name)
        else:
            peft.load_adapter(folder, name)
    return peft


def _read_settings(folder: str, file: str) -> dict[str, Any]:
    """The content of a YAML or JSON file."""
    try:
        return dict(yaml.safe_load(Path(folder, file).read_text("utf-8")))
    except OSError as error:
        raise ModelError(
            f"there is no {file} in {folder!r}; give the folder that has it"
        ) from error


def _read_line() -> str | None:
    """A stripped line of input; None when there are no more."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except KeyboardInterrupt:
            print()
        except EOFError:
            _note("")
            return None


def _print_answer(answers: Generator[str]) -> None:
    printed = 0
    try:
        for answer in answers:
            print(answer[printed:], end="", flush=True)
            printed = len(answer)
    finally:
        print(flush=True)


def _print_side_by_side(speakers: list[Speaker], answers: list[Generator[str]]) -> None:
    from rich.live import Live
    from rich.table import Column, Table
    from rich.text import Text

    texts = [""] * len(answers)
    with Live() as live:
        for update in zip_longest(*answers):
            for index, text in enumerate(update):
                texts[index] = text or texts[index]
            columns = [Column(Text(speaker.name), ratio=1, overflow="fold") for speaker in speakers]
            table = Table(*columns, expand=True)
            table.add_row(*map(Text, texts))
            live.update(table)
    if not sys.stdout.isatty():  # where rich leaves out the end of the last line
        print()


def _note(text: str) -> None:
    """Print what is no answer."""
    print(text, file=sys.stderr, flush=True)
