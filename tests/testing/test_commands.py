"""Each promise of a command that check_command looks for is missed where one lacks only that one."""

import argparse
import sys

import pytest

from lit_align.errors import DataError
from lit_align.labelling import plugin as labelling
from lit_align.orca import plugin as orca
from lit_align.testing import check_command


def sound(arguments):
    parser = argparse.ArgumentParser("lit-align greet", description="Print a greeting.")
    parser.add_argument("who")
    who = parser.parse_args(arguments).who
    if who == "nobody":
        raise DataError("nobody is there to greet; name somebody")
    print("hello", who)


def registers(function, name="greet", help="prints a greeting"):
    def register_commands(register):
        register(name, function, help)

    return register_commands


REFUSED = [[], ["owl", "--loud"], ["nobody"]]


def test_a_right_command_passes():
    assert check_command(registers(sound), "greet", ["owl"], REFUSED) == "hello owl\n"
    evaluation = registers(sound, "evaluate greet")
    assert check_command(evaluation, "evaluate greet") == ""


def curt(arguments):
    if arguments[:1] in (["--help"], ["-h"]):
        raise SystemExit("usage: lit-align greet WHO")
    sound(arguments)


def mute(arguments):
    if arguments[:1] in (["--help"], ["-h"]):
        return
    sound(arguments)


def partly(arguments):
    """Knows one of the two words for help."""
    if arguments == ["-h"]:
        raise DataError("-h is nobody; name somebody")
    sound(arguments)


def returning_zero(arguments):
    sound(arguments)
    return 0


@pytest.mark.parametrize("function", [partly, returning_zero])
def test_a_command_need_not_know_the_short_word_nor_keep_a_zero_to_itself(function):
    check_command(registers(function), "greet", ["owl"], REFUSED)


def returning(arguments):
    sound(arguments)
    return 1


def returning_false(arguments):
    sound(arguments)
    return False


def failing(arguments):
    sound(arguments)
    raise SystemExit(3)


def breaking(arguments):
    sound(arguments)
    return {}["bird"]


def unrefusing(arguments):
    sound(arguments or ["owl"])


def crashing(arguments):
    if not arguments:
        arguments[0]
    sound(arguments)


def wordless(arguments):
    if not arguments:
        raise DataError("who?")
    sound(arguments)


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (
            curt,
            r"'greet' with --help ends with the exit code 1, not 0, and prints 'usage: lit-align",
        ),
        (mute, "'greet' prints nothing with --help; print"),
        (returning, r"with \['owl'\] returns 1, which lit-align does not read"),
        (returning_false, r"with \['owl'\] returns False, which lit-align does not read"),
        (failing, r"with \['owl'\] ends with the exit code 3, not 0"),
        (
            breaking,
            r"with \['owl'\] ends with a traceback at .*test_commands.py:\d+: KeyError: 'bird'",
        ),
        (unrefusing, r"with \[\] ends with the exit code 0; refuse it"),
        (crashing, r"with \[\] ends with a traceback at .*: IndexError"),
        (wordless, r"with \[\] refuses with 'who\?'; say in one sentence"),
    ],
)
def test_a_wrong_command_is_caught(function, fault):
    with pytest.raises(AssertionError, match=fault):
        check_command(registers(function), "greet", ["owl"], REFUSED)


def chatty(register):
    print("registering")
    register("greet", sound, "prints a greeting")


@pytest.mark.parametrize(
    ("hook", "fault"),
    [
        (chatty, "register_commands prints 'registering.*whenever plugins are listed"),
        (registers(sound, "say hello"), "a command is called 'say hello'; give one word, or"),
        (registers(sound, "fit"), "there is a command 'fit' already; choose another name"),
        (registers(sound, help=""), "the command 'greet' has no help; give one line"),
        (registers(sound, help="long " * 30), "the help of 'greet' has 150 characters"),
        (registers(None), "the command 'greet' is not a function"),
        (registers(sound, "wave"), "register_commands registers wave, not greet"),
    ],
)
def test_a_command_that_cannot_be_listed_is_caught(hook, fault):
    with pytest.raises(AssertionError, match=fault):
        check_command(hook, "greet", ["owl"])


GREET = "def greet(arguments):\n    print('Print a greeting.')\n"
HOOK = "def register_commands(register):\n    register('greet', greet, 'prints a greeting')\n"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A module with a hook, made of its text; its function is in another module, which imports what is slow."""

    def write(text):
        (tmp_path / "lit_align_run.py").write_text(f"import transformers\n{GREET}")
        (tmp_path / "lit_align_slow.py").write_text(text)
        import lit_align_slow

        return lit_align_slow.register_commands

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in ("lit_align_slow", "lit_align_run"):
        sys.modules.pop(name, None)


INSIDE = HOOK.replace("    register", "    from lit_align_run import greet\n    register")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            f"import lightning\n{GREET}{HOOK}",
            "lit_align_slow has hooks and imports lightning, .*which every",
        ),
        (
            f"print('here I am')\n{GREET}{HOOK}",
            r"lit_align_slow prints \['here I am'\] when it is imported",
        ),
        (f"from lit_align_run import greet\n{HOOK}", "lit_align_slow has hooks and imports transf"),
        (INSIDE, "lit_align_slow has hooks and imports transformers"),
    ],
)
def test_a_hook_that_is_slow_or_loud_is_caught(written, text, fault):
    with pytest.raises(AssertionError, match=fault):
        check_command(written(text), "greet")


def test_a_function_that_imports_what_it_needs_when_it_is_called_passes(written):
    call = "def greet(arguments):\n    from lit_align_run import greet\n    greet(arguments)\n"
    check_command(written(call + HOOK), "greet")


@pytest.mark.parametrize(
    ("plugin", "name", "refused"),
    [
        (labelling, "label", [["--tasks", "missing.jsonl"], ["--colour", "red"]]),
        (labelling, "campaign", [["-c", "missing.yaml"]]),
        (orca, "evaluate cross-modal", [["--tasks", "missing.yaml"]]),
    ],
)
def test_built_in_commands_pass(plugin, name, refused):
    check_command(plugin.register_commands, name, refused=refused)
