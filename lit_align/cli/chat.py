"""``lit-align chat``: talk to a model in the terminal, or to two side by side; piped, an answer to each line."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from lit_align.errors import ConfigError, ModelError
from lit_align.models.adapters import read_adapter
from lit_align.models.generate import stream
from lit_align.models.heads import HEAD_FILE
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.types import Message

COMMANDS = "/reset forgets what was said, /system TEXT says who the model is, /quit leaves"


@dataclass
class Speaker:
    """Who answers: an adapter on the base that all share, or that base alone, with a memory of its own.

    Args:
        name: what to call it.
        adapter: its name in ``peft``; one that is not there stands for the base alone.
        peft: the base with the adapters on it; None if there are none.
        base: the base underneath.
        tokenizer: the base's, with a chat template.
        limit: tokens that an answer may have.
        turns: what was said so far.
    """

    name: str
    adapter: str
    peft: Any
    base: Any
    tokenizer: Any
    limit: int
    turns: list[Message] = field(default_factory=list)

    def answer(self, system: str, text: str, temperature: float, seed: int) -> Generator[str]:
        """The answer so far, after each token; it is remembered up to where it is stopped.

        Raises:
            ModelError: if the model cannot read the text.
        """
        self.turns.append({"role": "user", "content": text})
        said, ids = "", []
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
                with self._playing():
                    token = next(tokens, None)
                if token is None:
                    break
                ids.append(token)
                said = self.tokenizer.decode(ids, skip_special_tokens=True).lstrip()
                if not said.endswith(
                    "\N{REPLACEMENT CHARACTER}"
                ):  # half a character: the next token has the rest
                    yield said
        finally:
            self.turns = (
                [*self.turns, {"role": "assistant", "content": said.strip()}]
                if said
                else self.turns[:-1]
            )

    def _playing(self) -> AbstractContextManager[Any]:
        if self.peft is None:
            return nullcontext()
        if self.adapter not in self.peft.peft_config:
            alone: AbstractContextManager[Any] = self.peft.disable_adapter()
            return alone
        if self.peft.active_adapter != self.adapter:
            self.peft.set_adapter(self.adapter)
        return nullcontext()

    def _prompt(self, system: str) -> tuple[list[int], int]:
        """Ids of the conversation, without its oldest turns if it no longer fits, and how long an answer may be."""
        from jinja2 import TemplateError

        context = getattr(self.base.config, "max_position_embeddings", None) or sys.maxsize
        for gone in range(0, len(self.turns), 2):
            told = [{"role": "system", "content": system}] * bool(system) + self.turns[gone:]
            try:
                ids = self.tokenizer.apply_chat_template(
                    told, add_generation_prompt=True, return_dict=False
                )
            except TemplateError as error:
                raise ModelError(f"the chat template refuses that: {error}") from error
            if len(ids) + self.limit <= context:
                break
        if len(ids) >= context:
            raise ModelError(
                f"that makes {len(ids)} tokens, and {self.name} reads fewer than {context}; say less"
            )
        if gone:
            _note(f"the oldest {gone} turns are left out: {self.name} reads {context} tokens")
            del self.turns[:gone]
        return ids, min(self.limit, context - len(ids))


def run(arguments: list[str]) -> None:
    """Answer each line of input until there are no more.

    Raises:
        ConfigError: if nobody is asked to speak.
        ModelError: if a model or an adapter cannot be loaded.
    """
    parser = argparse.ArgumentParser(
        "lit-align chat", description=f"Talk to a model. In the chat, {COMMANDS}."
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--adapter", metavar="FOLDER", help="an adapter, such as adapter/ in the folder of a run"
    )
    who.add_argument(
        "--run",
        metavar="FOLDER",
        help="the numbered folder of a run: its newest adapter, as it trains",
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
        help="Jinja, or chatml; if not given, the run's or the base's",
    )
    parser.add_argument(
        "--compare",
        metavar="FOLDER",
        help="another adapter for the same base, which answers beside",
    )
    parser.add_argument("--system", metavar="TEXT", default="", help="who the model is")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="of the sampling; 0 takes the likeliest token",
    )
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest answer")
    asked = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*")  # about what PEFT calls
    speakers = _speakers(asked)
    _note(f"{' and '.join(one.name for one in speakers)}: {COMMANDS}; Ctrl-C stops an answer")
    with suppress(ImportError):
        import readline  # noqa: F401 - input() then knows the arrow keys
    system, seed = asked.system, 0
    while (line := _line()) is not None:
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        if command == "/system":
            system = rest.strip()
        elif command == "/reset":
            for one in speakers:
                one.turns = []
        elif command.startswith("/"):
            _note(f"there is no {command}; {COMMANDS}")
        elif line:
            with ExitStack() as stack, suppress(KeyboardInterrupt):
                answers = [one.answer(system, line, asked.temperature, seed) for one in speakers]
                for answer in answers:
                    stack.enter_context(closing(answer))
                try:
                    _type(answers[0]) if len(answers) == 1 else _type_side_by_side(
                        speakers, answers
                    )
                except ModelError as error:
                    _note(str(error))
            seed += 1  # asked again, another answer


def _speakers(asked: argparse.Namespace) -> list[Speaker]:
    """Load one base, and onto it whoever speaks."""
    from peft import PeftModel

    first = str(Path(asked.run, "checkpoints", "last.adapter")) if asked.run else asked.adapter
    folders = {
        name: folder for name, folder in (("adapter", first), ("compare", asked.compare)) if folder
    }
    if not folders and not asked.base:
        raise ConfigError("there is nobody to talk to; give --run, --adapter or --base")
    settings = (
        _settings(asked.run, "config.yaml")["model"]["init_args"] if asked.run else {"base": {}}
    )
    path = asked.base or settings["base"].get("path")
    path = (
        path or _settings(first or asked.compare, "adapter_config.json")["base_model_name_or_path"]
    )
    quantization = asked.quantization or settings["base"].get("quantization", "nf4")
    base = Base(**{**settings["base"], "path": path, "quantization": quantization})
    tokenizer = load_tokenizer(base, asked.chat_template or settings.get("chat_template"))
    if not tokenizer.chat_template:
        raise ModelError(
            f"{path!r} has no chat template; give one with --chat_template, such as chatml"
        )
    for folder in folders.values():
        read_adapter(folder, path)  # refuses what does not belong to this base
        if (Path(folder) / HEAD_FILE).is_file():
            raise ConfigError(
                f"{folder} is a reward model, which scores and does not talk; give a policy's adapter"
            )
    model, peft = load_model(base), None
    for name, folder in folders.items():
        if peft is None:
            peft = PeftModel.from_pretrained(model, folder, adapter_name=name)
        else:
            peft.load_adapter(folder, name)
    who = {"adapter": path, **folders}
    return [
        Speaker(shown, name, peft, model, tokenizer, asked.max_new_tokens)
        for name, shown in who.items()
    ]


def _settings(folder: str, file: str) -> dict[str, Any]:
    """What a file says; JSON is YAML too."""
    try:
        return dict(yaml.safe_load(Path(folder, file).read_text("utf-8")))
    except OSError as error:
        raise ModelError(
            f"there is no {file} in {folder!r}; give the folder that has it"
        ) from error


def _line() -> str | None:
    """A line of input without the blanks around it; None when there are no more."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except KeyboardInterrupt:
            print()
        except EOFError:
            _note("")
            return None


def _type(answer: Generator[str]) -> None:
    done = 0
    try:
        for said in answer:
            print(said[done:], end="", flush=True)
            done = len(said)
    finally:
        print(flush=True)


def _type_side_by_side(speakers: list[Speaker], answers: list[Generator[str]]) -> None:
    from rich.live import Live
    from rich.table import Column, Table
    from rich.text import Text

    said = [""] * len(answers)
    with Live() as live:
        for new in zip_longest(*answers):
            said = [text or old for text, old in zip(new, said, strict=True)]
            table = Table(
                *(Column(Text(one.name), ratio=1, overflow="fold") for one in speakers), expand=True
            )
            table.add_row(*map(Text, said))
            live.update(table)
    if not sys.stdout.isatty():  # where rich leaves out the end of the last line
        print()


def _note(text: str) -> None:
    """Say something that is nobody's answer."""
    print(text, file=sys.stderr, flush=True)
