"""What shows in the first words of a command is refused without the imports that training needs."""

import subprocess
import sys

import pytest

from lit_align.cli.first_mistakes import ACCEPTED, refuse_first_mistakes
from lit_align.cli.packaged_configs import COMMANDS
from lit_align.errors import ConfigError
from lit_align.plugins import CORE_COMMANDS, EXTENSION_COMMANDS, load_plugins

REPORT = """
import sys
from lit_align.__main__ import main
try:
    main(sys.argv[1:])
finally:
    from lit_align.compat.lazy_package import is_imported
    print([name for name in ("torch", "torch._dynamo", "scipy.signal", "transformers.modeling_utils")
           if is_imported(name)])
"""


def run(*arguments, cwd):
    """What a command prints, and which of four costly modules it imported."""
    command = [sys.executable, "-c", REPORT, *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return result.stderr.strip(), result.stdout.strip()


def written(folder, text):
    path = folder / "run.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fitt"], "there is no command 'fitt'; did you mean fit?"),
        (["lable"], "there is no command 'lable'; did you mean label?"),
        (["fit"], "there is no data and model"),
        (["fit", "-c", "nothing.yaml"], "there is no file nothing.yaml"),
    ],
)
def test_without_torch(tmp_path, arguments, sentence):
    error, modules = run(*arguments, cwd=tmp_path)
    assert sentence in error
    assert modules == "[]"


def test_a_key_at_the_top_of_a_yaml_without_torch(tmp_path):
    path = written(tmp_path, "trainner: {}\nmodel: Preference\n")
    error, modules = run("fit", "-c", path, cwd=tmp_path)
    assert error == "lit-align: unknown key 'trainner'; did you mean trainer?"
    assert modules == "[]"


def test_a_setting_of_a_class_without_the_compiler_and_models(tmp_path):
    text = (
        "model: {class_path: Preference, init_args: {objective: {class_path: DPO, init_args: "
        "{betta: 1}}, base: {path: x}}}\ndata: {class_path: Comparisons, init_args: {train: x}}\n"
    )
    error, modules = run("fit", "-c", written(tmp_path, text), cwd=tmp_path)
    assert error == "lit-align: DPO takes no 'betta'; did you mean beta?"
    assert modules == "['torch']"


@pytest.mark.parametrize("key", ["batch_size", "train", "xyzzy", "lora"])
def test_what_needs_the_classes_is_left_to_the_parser(tmp_path, key):
    assert refuse_first_mistakes(["fit", "-c", written(tmp_path, f"{key}: 1\n")]) is None


@pytest.mark.parametrize("key", ["seed", "model_name_or_path", "learning_rate", "trainr", "datas"])
def test_the_sentence_is_the_one_of_the_parser(tmp_path, key):
    from lit_align.cli.error_messages import explain

    with pytest.raises(ConfigError) as refusal:
        refuse_first_mistakes(["fit", "-c", written(tmp_path, f"{key}: 1\n")])
    assert str(refusal.value) == explain(f"unrecognized arguments: --{key}")


@pytest.mark.parametrize("key", ["run", "save_every", "ckpt_path", "card", "answers"])
def test_settings_pass(tmp_path, key):
    path = written(tmp_path, f"{key}: x\n")
    for command in COMMANDS:
        assert refuse_first_mistakes([command, "-c", path, "--anything", "1"]) is None


def test_every_setting_of_the_parsers_is_accepted():
    """A setting that a parser has and the table lacks could not be used in a YAML."""
    from lightning.pytorch.cli import LightningArgumentParser

    from lit_align.cli.training import InspectCLI, LitAlignCLI

    keys = {"trainer", "model", "data", "ckpt_path"}  # what LightningCLI adds itself
    for cls in (LitAlignCLI, InspectCLI):
        parser = LightningArgumentParser()
        cli = cls.__new__(cls)
        cli.seed_everything_default = None
        cli.add_default_arguments_to_parser(parser)
        cli.add_arguments_to_parser(parser)
        keys |= {action.dest for action in parser._actions if action.dest not in ("help", "config")}
    keys = {key for key in keys if not key.endswith(".help")} - {"print_config"}
    assert keys == set(ACCEPTED)


def test_the_commands_of_extensions_are_known():
    words = {name.partition(" ")[0] for name in load_plugins().commands}
    ours = {name for name in words if name not in CORE_COMMANDS}
    installed = {plugin.name for plugin in load_plugins().plugins if plugin.version}
    if not installed:
        assert ours == set(EXTENSION_COMMANDS)
    assert set(EXTENSION_COMMANDS) <= ours
