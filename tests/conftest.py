"""What every test may lean on."""

import gc
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.browser import artefacts, browser  # noqa: F401

os.environ["LIT_ALIGN_PLUGINS"] = ""  # the suite must not depend on what else is installed
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# what is computed once on a machine stays apart from what the user's own runs have kept
os.environ.setdefault("LIT_ALIGN_CACHE", str(Path(__file__).parents[1] / ".cache" / "lit_align"))
os.environ.setdefault("LIT_ALIGN_SALT", "of the tests")  # none is drawn in the user's home
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # of commands too: as many tests run as there are cores
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# a test is right or wrong, however busy the machine is
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
LONG = (
    "tests/test_readme.py",
    "tests/labelling/test_browser.py",
    "tests/labelling/test_rounds.py",
    "tests/rl/test_rl_ddp.py",
    "tests/rl/test_rl_optimum.py",
    "tests/rl/test_sampled_elsewhere.py",
    "tests/test_configs.py",
    "tests/stages/test_kills.py",
    "tests/stages/test_resume.py",
    "tests/stages/test_real.py",
    "tests/cli/test_chat.py",
    "tests/docs/test_site.py",
    "tests/stages/test_two_hosts.py",
)
"""Files that take longest: begun first, so that no process is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the long files to the front."""
    places = {str(ROOT / name): place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(str(item.path), len(LONG)))


def pytest_collection_finish() -> None:
    """What has been imported stays: leave it out of every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that are not part of the project."""
    folder = Path(os.environ.get("LIT_ALIGN_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets in {folder}; set LIT_ALIGN_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Folder of a two-layer Llama with random weights."""
    from tests import tiny as make

    return make.save(tmp_path_factory.mktemp("tiny"))
