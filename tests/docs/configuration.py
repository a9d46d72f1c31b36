"""Reference of every setting, from signatures and the ``Args`` of docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module

from docstring_parser import parse

from lit_align.plugins import load_plugins
from tests import objective_registry
from tests.docs.equations import BLOCK, mathml

NESTED = {
    "model.base": "lit_align.models.load.Base",
    "model.lora": "lit_align.models.lora.Lora",
    "model.schedule": "lit_align.stages.schedule.Schedule",
    "model.best_of": "lit_align.stages.best_of.BestOf",
    "model.kl": "lit_align.rl.kl_control.KLControl",
    "model.critic": "lit_align.rl.critic.Critic",
    "model.entropy_bonus": "lit_align.rl.entropy_bonus.EntropyBonus",
}
"""Settings that are groups of settings."""

TITLES = {
    "objectives": "model.objective",
    "advantages": "model.advantage",
    "rewards": "model.reward",
    "samplers": "model.sampler",
    "formats": "data.format",
    "feedback": "data.feedback",
    "judges": "data.feedback.model",
    "embedders": "model.embedder",
}
"""Where a YAML names a class of each kind; another kind stands under its own name."""


class Setting(typing.NamedTuple):
    """One setting: its name, type and default as text, and what it means."""

    name: str
    type: str
    default: str
    meaning: str


def settings_of(cls: type) -> list[Setting]:
    """Every setting of a class, those of its parents included, in the order of the signatures."""
    meanings: dict[str, str] = {}
    parameters: dict[str, inspect.Parameter] = {}
    words: dict[str, str] = {}
    for parent in cls.__mro__[:-1]:
        own = vars(parent)
        words = {**_words_of_types(parent), **words}
        for text in (own.get("__doc__"), getattr(own.get("__init__"), "__doc__", None)):
            for argument in parse(text or "").params:
                meanings.setdefault(argument.arg_name, argument.description or "")
        if "__init__" in own and parent.__module__.partition(".")[0] not in ("torch", "lightning"):
            for name, parameter in inspect.signature(own["__init__"]).parameters.items():
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    parameters.setdefault(name, _with_made_default(parent, parameter))
    parameters.pop("self", None)
    return [
        Setting(name, _type(parameter, words), _default(parameter), meanings.get(name, ""))
        for name, parameter in parameters.items()
    ]


def _with_made_default(cls: type, parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with what the dataclass makes anew for each object as its default, where it does."""
    field = getattr(cls, "__dataclass_fields__", {}).get(parameter.name)
    if field is None or field.default_factory is dataclasses.MISSING:
        return parameter
    return parameter.replace(default=field.default_factory())


def _words_of_types(cls: type) -> dict[str, str]:
    """The words that a setting may have, by the name of its type, in the file of a class."""
    names = vars(sys.modules[cls.__module__])
    literals = {
        name: value for name, value in names.items() if typing.get_origin(value) is typing.Literal
    }
    return {name: " | ".join(typing.get_args(value)) for name, value in literals.items()}


def _type(parameter: inspect.Parameter, words: Mapping[str, str]) -> str:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return ""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return type_text(re.sub(r"\w+", lambda match: words.get(match[0], match[0]), text))


def type_text(annotation: str) -> str:
    """A type in the words of a YAML.

    Example:
        >>> type_text("typing.Optional[typing.Literal['high', 'medium']]"), type_text("tuple[int, ...] | None")
        ('high or medium or null', 'tuple[int, ...] or null')
    """
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", annotation)
    text = re.sub(r"Optional\[(.+)\]$", r"\1 | None", text)
    text = re.sub(r"Literal\[(.+?)\]", lambda match: re.sub(r",\s*", " | ", match[1]), text)
    text = re.sub(r"['\"]", "", text)
    return text.replace("|", "or").replace("None", "null")


def _default(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is parameter.empty:
        return "required"
    if default is None or isinstance(default, bool | int | float | str | list | tuple | dict):
        return (
            f"`{default}`".replace("None", "null").replace("True", "true").replace("False", "false")
        )
    return f"`{_called(default) if isinstance(default, type) else repr(default)}`"


def _called(cls: type) -> str:
    """A class that is called without arguments, with its own numbers: those of an optimizer are its settings."""
    numbers = [
        f"{name}={parameter.default}"
        for name, parameter in inspect.signature(cls).parameters.items()
        if type(parameter.default) in (int, float, tuple)
    ]
    return f"{cls.__name__}({', '.join(numbers)})"


def table(settings: Iterable[Setting]) -> str:
    """As Markdown."""
    rows = ["| setting | type | default | |", "|---|---|---|---|"]
    for setting in settings:
        meaning = _code(" ".join(setting.meaning.split())).replace("|", "\\|")
        kind = f"`{setting.type}`" if setting.type else ""
        rows.append(f"| `{setting.name}` | {kind} | {setting.default} | {meaning} |")
    return "\n".join(rows)


def _code(text: str) -> str:
    text = re.sub(r":math:\s*`([^`]+)`", r"`\1`", text)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def section(cls: type, level: int = 3) -> str:
    """A class with its description and its settings."""
    parsed = parse(inspect.getdoc(cls) or "")
    words = _code("\n\n".join(filter(None, (parsed.short_description, parsed.long_description))))
    words = BLOCK.sub(lambda match: f"\n\n{mathml(' '.join(match[1].split()))}\n\n", words)
    settings = settings_of(cls)
    below = table(settings) if settings else "It has no settings."
    return f"{'#' * level} {cls.__name__}\n\n`{cls.__module__}.{cls.__qualname__}`\n\n{words}\n\n{below}\n"


def run_classes() -> list[type]:
    """Stages and data modules that a run names, and the callbacks that all runs have."""
    from lightning.pytorch import LightningDataModule, LightningModule

    classes = []
    for cls in load_plugins().load_stages():
        is_run = issubclass(cls, LightningModule | LightningDataModule)
        if (
            is_run
            and not inspect.isabstract(cls)
            and cls.__name__ not in ("Stage", "TextDataModule")
        ):
            classes.append(cls)
    return classes


def kinds() -> Iterator[tuple[str, str, list[type]]]:
    """Each kind of plugin: its word, where a YAML names it, and its classes."""
    for hook, registry in load_plugins().registries.items():
        word = hook.removeprefix("register_")
        classes = registry.classes()
        if word == "objectives":
            classes = list(objective_registry.classes().values())
        yield word, TITLES.get(word, word), classes


class ArgumentNotes:
    """Stands in for a parser, and notes what is added to it."""

    def __init__(self) -> None:
        self.settings: list[Setting] = []

    def add_argument(self, option: str, *, type: object, help: str, default: object = None) -> None:
        parameter = inspect.Parameter(
            "setting", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=type
        )
        name = option.removeprefix("--")
        self.settings.append(Setting(name, _type(parameter, {}), _default(parameter), help))


def run_settings() -> list[Setting]:
    """Settings at the top of a YAML, from the parser of ``lit-align fit``."""
    from lit_align.cli.training import LitAlignCLI

    notes = ArgumentNotes()
    LitAlignCLI.add_arguments_to_parser(None, notes)
    trainer = "[Lightning's Trainer](https://lightning.ai/docs/pytorch/stable/common/trainer.html)"
    blocks = (
        (
            "trainer",
            f"Settings of {trainer}; without `max_epochs` and `max_steps` it is one epoch.",
        ),
        ("model", "The stage, below."),
        ("data", "The data module, below."),
    )
    return [
        *(setting for setting in notes.settings if setting.name != "answers"),  # of predict
        *(Setting(name, "settings", "`see there`", text) for name, text in blocks),
        Setting("ckpt_path", "str or null", "`null`", "Checkpoint to go on from."),
    ]


def pages() -> dict[str, str]:
    """Path -> Markdown: one page for runs, and one for each kind of plugin."""
    run = ["# Settings of a run\n", table(run_settings()), "\n## Groups of settings\n"]
    for key, path in NESTED.items():
        module, _, name = path.rpartition(".")
        run.append(f"### {key}\n\n{section(getattr(import_module(module), name), 4)}")
    run.append("## Stages and data modules\n")
    run += [section(cls) for cls in run_classes()]
    generated = {"reference/run.md": "\n".join(run)}
    links = [
        "- [Settings of a run](run.md): the top of a YAML, stages, data modules, base, adapter, schedule"
    ]
    for word, title, classes in kinds():
        heading = f"# {word.capitalize()}\n\nNamed in a YAML as `{title}`.\n"
        generated[f"reference/{word}.md"] = "\n".join([heading, *map(section, classes)])
        links.append(
            f"- [{word.capitalize()}]({word}.md), named as `{title}`: {len(classes)} classes"
        )
    head = (
        "# Every setting\n\nGenerated from the signatures and docstrings of the code that you have. "
        "On the command line `lit-align fit --help`, `--model.help RL` and "
        "`--model.objective.help DPO` print the same.\n\n"
    )
    generated["reference/index.md"] = head + "\n".join(links) + "\n"
    return generated
