"""The script that completes a command line, in a real shell."""

import shutil
import subprocess
import sys

import pytest

from lit_align.__main__ import main
from lit_align.cli.completion import completion_script
from lit_align.cli.packaged_configs import config_names
from lit_align.cli.tasks import OTHER_TASKS, TASKS
from lit_align.plugins import CORE_COMMANDS, EXTENSION_COMMANDS

COMPLETE = """
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_lit_align
printf '%s\\n' "${COMPREPLY[@]}"
"""
TRAINED = {task.name for task in TASKS}


def complete(folder, *words):
    """What bash offers for the last word; it splits ``--task=dpo`` into three words."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    script = f"set -u\n{completion_script()}{COMPLETE}"
    command = [bash, "--norc", "-c", script, "bash", "lit-align", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.split("\n")
    assert len(lines) == len(set(lines)) + (lines == ["", ""])
    return set(lines) - {""}


def starting(names, start):
    """The names that begin so."""
    return {name for name in names if name.startswith(start)}


def test_words_are_completed(tmp_path):
    for name in ("mine.yaml", "two words.yaml", "dpo.local"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    configs, commands = config_names(), [*CORE_COMMANDS, *EXTENSION_COMMANDS]
    assert complete(tmp_path, "") == set(commands)
    assert complete(tmp_path, "in") == {"init", "inspect"}
    assert complete(tmp_path, "fit", "-c", "tiny/dp") == {"tiny/dpo"}
    assert complete(tmp_path, "fit", "-c", "d") == {*starting(configs, "d"), "dpo.local"}
    assert complete(tmp_path, "inspect", "--config", "=", "mi") == {"mine.yaml"}
    assert complete(tmp_path, "fit", "-c", "dpo", "-c", "two") == {"two words.yaml"}
    assert complete(tmp_path, "fit", "--config", "f") == {"folder"}
    assert complete(tmp_path, "fit", "--task", "") == TRAINED
    assert complete(tmp_path, "fit", "--task", "=") == TRAINED
    assert complete(tmp_path, "fit", "--task", "=", "online") == starting(TRAINED, "online")
    assert complete(tmp_path, "init", "") == TRAINED | {task.name for task in OTHER_TASKS}
    assert complete(tmp_path, "completion", "b") == {"bash"}
    assert complete(tmp_path, "chat", "") == set()  # then the shell offers files


def test_the_command_prints_the_script_without_torch():
    code = (
        "import sys; from lit_align.__main__ import main; main(['completion', 'bash']); "
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, completion_script())


def test_a_shell_without_a_script_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["completion", "fish"])
    assert stopped.value.code == 2
    assert "bash" in capsys.readouterr().err


def test_zsh_gets_its_support_of_such_scripts_first(capsys):
    main(["completion", "zsh"])
    script = capsys.readouterr().out
    assert script.endswith(completion_script())
    assert script.index("bashcompinit") < script.index("_lit_align")
