"""A package that is too old is named with the remedy, before anything of it is missed."""

import subprocess
import sys
import warnings
from importlib.metadata import version

import pytest

from lit_align.errors import ConfigError
from lit_align.installed_versions import check_versions


def test_what_is_installed_here_fits():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_versions()


def test_each_package_that_is_too_old_is_named():
    with pytest.raises(ConfigError) as caught:
        check_versions(["pluggy>=98", "numpy>=99,<100", "rich>=1", "nothing-like-it>=1"])
    expected = (
        f"pluggy {version('pluggy')} and numpy {version('numpy')} are installed, and lit_align needs pluggy>=98 and "
        "numpy<100,>=99; pip install 'pluggy>=98' 'numpy<100,>=99'"
    )
    assert str(caught.value) == expected


def test_newer_ones_are_only_named():
    with pytest.warns(UserWarning, match=r"tested with pluggy<1,>=0\.1"):
        check_versions(["pluggy>=0.1,<1"])


def test_those_of_an_extra_may_be_of_any_version():
    check_versions(["pluggy>=98; extra == 'label'"])


def test_a_command_ends_in_one_sentence(tmp_path):
    """With the metadata of an old transformers before the installed one."""
    folder = tmp_path / "transformers-5.17.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.17.0\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from lit_align.__main__ import main; main(['plugins'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "lit-align: transformers 5.17.0 is installed, and lit_align needs"
    )
    assert done.stderr.count("\n") == 1
