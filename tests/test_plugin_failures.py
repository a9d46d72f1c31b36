"""Whose code raised an exception: the user's, a plugin's, or that of a library, wherever it is installed."""

import importlib.util

import pytest

from lit_align.plugin_failures import find_place
from lit_align.plugin_signatures import signature_fault
from lit_align.rewards import Reward

SOURCE = "def fail():\n    raise ValueError('a fault')\n"


def raised_in(path, name):
    """The exception of a function in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ValueError, match="a fault") as caught:
        module.fail()
    error = caught.value
    error.__traceback__ = error.__traceback__.tb_next  # without this file, which is the user's too
    return error


@pytest.mark.parametrize("folder", ["src", "my_package"])
def test_the_users_code(tmp_path, folder):
    place = find_place(raised_in(tmp_path / folder / "losses.py", "losses"))
    assert (place.line, place.owner) == (2, "fail")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("home/.local/lib/python3.11/site-packages/json_tools/core.py", "json_tools.core"),
        ("usr/lib/python3/dist-packages/yaml_tools.py", "yaml_tools"),
        ("checkouts/lightning/src/lightning/trainer.py", "lightning.trainer"),
        ("checkouts/torch/nn.py", "torch.nn"),
    ],
)
def test_a_library_is_not_the_users_code(tmp_path, path, name):
    assert find_place(raised_in(tmp_path / path, name)) is None


class Plain(Reward):
    def __call__(self, groups):
        return groups


class Static(Reward):
    @staticmethod
    def __call__(groups):
        return groups


class Missing(Reward):
    @staticmethod
    def __call__(prompts, completions):
        return prompts


def test_signatures_of_methods_of_every_kind():
    assert signature_fault(Plain()) == signature_fault(Static()) == ""
    assert "takes (prompts, completions)" in signature_fault(Missing())
