"""``lit-align init plugin NAME``: a package with a loss or a reward to change, and a test of it."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from lit_align.cli.init.options import print_next, write_new
from lit_align.errors import ConfigError
from lit_align.package_files import packaged_folder

NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")


class Template(NamedTuple):
    """A package to copy.

    Args:
        folder: of the files that ship with lit_align.
        module: its module; its name as a package has ``-`` for ``_``.
        entry_point: its name in the list of plugins.
        cls: the class in it.
    """

    folder: str
    module: str
    entry_point: str
    cls: str


TEMPLATES = {
    "objective": Template("plugin_template", "lit_align_template", "template", "Hinge"),
    "reward": Template(
        "reward_template", "lit_align_reward_template", "reward_template", "Questions"
    ),
}


def write_plugin(name: str | None, kind: str) -> None:
    """Copy a template under another name, and print what to type next.

    Args:
        name: of the folder and of the package.
        kind: of the class in it; one of ``TEMPLATES``.

    Raises:
        ConfigError: if the name is missing, cannot be that of a package, or is taken.
    """
    if not name or not NAME.fullmatch(name):
        raise ConfigError(
            f"a plugin's name has letters, digits and '-', got {name!r}; write it after plugin, as in lit-align init "
            "plugin lit-align-contrastive"
        )
    module = name.replace("-", "_")
    folder = Path(name)
    if folder.exists():
        raise ConfigError(f"{folder} exists, and nothing is overwritten; give another name")
    if keyword.iskeyword(module) or find_spec(module) is not None:
        raise ConfigError(f"{module!r} is the name of a Python module already; give another name")
    template = TEMPLATES[kind]
    cls = class_name(name)
    source = packaged_folder(template.folder)
    files = [*source.glob("*.py"), *source.glob("*.toml"), *source.glob("tests/*.py")]
    for file in files:
        target = folder / str(file.relative_to(source)).replace(template.module, module)
        text = file.read_text("utf-8")
        text = text.replace(template.module, module)
        text = text.replace(template.module.replace("_", "-"), name)
        text = text.replace(f"\n{template.entry_point} = ", f"\n{module} = ")
        write_new(target, re.sub(rf"\b{template.cls}\b", cls, text))
        print(target)
    key = f"model.{kind}: {cls}"
    print(f"\n{name} is a package with the {kind} {cls}: change {folder / f'{module}.py'}.")
    print_next(
        [
            f"cd {folder} && python -m pytest    # checks that it is a valid {kind}",
            f"pip install -e .    # then lit-align plugins {kind}s lists {cls}, and a YAML may say {key}",
        ]
    )


def class_name(name: str) -> str:
    """The name of the class in a package of that name.

    Example:
        >>> class_name("lit-align-my-loss"), class_name("contrastive")
        ('MyLoss', 'Contrastive')
    """
    words = re.split("[-_]", name)
    if [word.lower() for word in words[:2]] == ["lit", "align"] and len(words) > 2:
        words = words[2:]
    words = [word[0].upper() + word[1:] for word in words]
    return "".join(words)
