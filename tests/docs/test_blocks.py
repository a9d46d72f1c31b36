"""Code that no other test runs is parsed: commands with their options, parts of YAML, targets, extras and files."""

import contextlib
import inspect
import io
import re
import shlex
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from lit_align.__main__ import main
from lit_align.cli.setting_homes import RUN_SETTINGS
from lit_align.coming_from_others import setting_elsewhere
from lit_align.data.formats import built_in
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.types import LabelKind
from tests.docs import blocks, commands, configuration
from tests.docs.blocks import ROOT

PLACEHOLDERS = {"TASK": "dpo", "NAME": "Length"}
"""Words of the pages for which only some values parse; others stay as they are."""

COMPLAINTS = re.compile(
    r"unrecognized arguments: --print_config$"
    r"|unknown key 'print_config'"
    r"|--print_config; --resume takes"
    r"|which is not installed: pip install plugins/"
)
"""What a command says when only that option is wrong, or of a plugin."""

ARGUMENTS = {"export": ["RUN", "FOLDER"]}
"""Of commands that are shown with options alone: argparse complains of missing arguments before unknown options."""

RUN_COMMANDS = ("fit", "validate", "test", "predict", "inspect")
NOT_PARSED = ("inspect --safe", "inspect --rounds")  # they read files before the settings
TESTED_PYTHON = ("# trl_dpo.py", ">>>")  # tests/peers/test_worked_script.py; doctest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which every file that a command names is there."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name, text in blocks.named_yaml().items():
        (tmp_path / name).write_text(text)
    reward = "from lit_align.rewards.length import Length\n\n\nclass Polite(Length):\n    pass\n"
    (tmp_path / "my_rewards.py").write_text(reward)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words_of(command: str) -> list[str]:
    """A command for ``main``, with all arguments; settings that somebody has yet to write are those of the README."""
    words = [
        PLACEHOLDERS.get(word, word)
        for word in shlex.split(command)[1:]
        if word not in ("...", "…")
    ]
    if words[0] in ARGUMENTS and len(words) > 1 and words[1].startswith("-"):
        words[1:1] = ARGUMENTS[words[0]]
    for before, word in pairwise(words):
        is_written = word.endswith(".yaml") or word in ("FILE", "YAML")
        if before == "-c" and is_written and not Path(word).exists():
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).write_text(Path("dpo.yaml").read_text())
    return words


@pytest.mark.parametrize("command", blocks.commands())
def test_a_command_parses(command, folder):
    """Without doing anything: it prints its settings, or complains of that alone."""
    words = words_of(command)
    if " ".join(words[:2]) in NOT_PARSED or len(words) == 1 or words[0] == "evaluate" == words[-2]:
        assert words[0] in known_commands()
        return
    complaint = io.StringIO()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(complaint),
        pytest.raises(SystemExit) as stopped,
    ):
        main([*words, "--print_config"])
    reason = complaint.getvalue().strip()
    assert not stopped.value.code or COMPLAINTS.search(reason), reason


def known_commands() -> set[str]:
    """First words of all commands."""
    others = ("plugins", "env", "completion", "evaluate")
    return {*RUN_COMMANDS, *others, *(command.split()[0] for command in commands.COMMANDS)}


@cache
def known_options() -> set[str]:
    """Options of every command but settings of a run, and the names of a run's settings with their group."""
    names = set(re.findall(r"--(\w[\w-]*)", commands.page()))
    names |= set(re.findall(r"--(\w[\w-]*)", commands.help_of("fit") + commands.help_of("inspect")))
    names |= set(RUN_SETTINGS)
    names |= {f"trainer.{name}" for name in inspect.signature(Trainer).parameters}
    for cls in configuration.run_classes():
        for setting in configuration.settings_of(cls):
            names |= {f"model.{setting.name}", f"data.{setting.name}"}
    return names


@pytest.mark.parametrize("option", blocks.options())
def test_an_option_within_a_sentence_is_there(option):
    """Of a dotted one its group and its setting: of ``--model.best_of.n`` that is ``model.best_of``."""
    group, *names = option.split(".")
    known = known_options()
    if group in ("model", "data", "trainer") and names:
        assert f"{group}.{names[0]}" in known
    else:
        assert group in known or setting_elsewhere(group)


@pytest.mark.parametrize("block", blocks.unnamed_yaml(), ids=lambda block: block.page)
def test_a_part_of_a_run_parses_on_top_of_one(block, folder):
    """Those of RL over one of PPO, campaigns as they are, others over one of DPO."""
    Path("part.yaml").write_text(block.text)
    below = "tiny/ppo" if block.page == "rl" else "tiny/dpo"
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as stopped:
        main(["fit", "-c", below, "-c", "part.yaml", "--print_config"])
    assert not stopped.value.code


def test_the_run_of_the_readme_parses(folder):
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as stopped:
        main(["fit", "-c", "dpo.yaml", "--print_config"])
    assert not stopped.value.code


def test_the_rows_of_the_quickstart_are_read(tmp_path):
    """Each is a comparison; its texts have no comma that would need quotes."""
    (rows,) = (
        block.text
        for block in blocks.blocks()
        if block.page == "quickstart" and block.text.startswith("prompt,")
    )
    path = tmp_path / "my.csv"
    path.write_text(rows)
    groups = load_groups(DataSource([str(path)], LabelKind.PAIRS, None, built_in()))
    assert [len(group.responses) for group in groups] == [2, 2, 2]
    assert [group.prompt for group in groups] == [
        f"Name a {thing}." for thing in ("bird", "fish", "tree")
    ]


def test_other_commands_name_what_is_there():
    """Targets of make, extras for pip, files for Docker."""
    targets = re.findall(r"^([\w./ ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {target for line in targets for target in line.split()}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for line in blocks.lines():
        words = shlex.split(line)
        if words[0] == "make":
            assert words[1] in known, line
        for extra in re.findall(r"pip install '\.\[([\w,]+)\]'", line):
            assert set(extra.split(",")) <= set(extras), line
        if words[:2] == ["docker", "build"]:
            assert (ROOT / words[words.index("-f") + 1]).exists(), line


def test_no_block_is_left_out():
    """A block of a kind that nothing here or elsewhere looks at is a mistake."""
    for block in blocks.blocks():
        kind = block.language
        assert kind in ("", "bash", "yaml", "python", "text", "bibtex"), block
        if kind == "python":
            assert block.text.startswith(TESTED_PYTHON), block
