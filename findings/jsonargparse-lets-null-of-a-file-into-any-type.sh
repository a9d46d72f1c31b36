#!/bin/sh
# jsonargparse 4.53.0.
# A class has a setting `rate: float`; a file sets it to null, as one does to say "none" or "the default".
# Expected: what --settings.rate=null gives: an error that a float was expected.
# Seen: a file's null passes for float, int, str, bool and list; the class is built with None. Validating the parsed
# namespace once more passes too. What fails is the arithmetic, wherever it is first done, or nothing: `if rate:` goes on.
# With set_parsing_settings(unset_sentinel=True), which is not the default, validate() refuses it, as it should.
# Source: jsonargparse/_core.py, validate: None stands for "not set", and what is not set is not checked.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check 'jsonargparse[signatures]==4.53.0'
env/bin/python - <<'PY'
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings


class Settings:
    def __init__(self, rate: float = 0.1, steps: int = 3, name: str = "a", is_on: bool = True, sizes: list[int] = [1]):
        self.values = {"rate": rate, "steps": steps, "name": name, "is_on": is_on, "sizes": sizes}


parser = ArgumentParser(exit_on_error=False)
parser.add_class_arguments(Settings, "settings")
parser.add_argument("--config", action="config")
for key in Settings().values:
    Path("settings.yaml").write_text(f"settings:\n  {key}: null\n")
    parsed = parser.parse_args(["--config", "settings.yaml"])
    parser.validate(parsed)
    from_file = parser.instantiate(parsed).settings.values[key]
    try:
        by_option = repr(parser.parse_args([f"--settings.{key}=null"]).settings[key])
    except ArgumentError as error:
        by_option = str(error).splitlines()[-1].strip()
    print(f"{key}: from the file {from_file!r}; as an option {by_option}")
    assert from_file is None
    assert by_option == "'null'" or "Expected a" in by_option

set_parsing_settings(unset_sentinel=True)
parser = ArgumentParser(exit_on_error=False)
parser.add_class_arguments(Settings, "settings")
parser.add_argument("--config", action="config")
Path("settings.yaml").write_text("settings:\n  rate: null\n")
try:
    parser.parse_args(["--config", "settings.yaml"])
except ArgumentError as error:
    print("with unset_sentinel:", str(error).splitlines()[-1].strip())
else:
    raise AssertionError("it passes with unset_sentinel, too")
PY
