"""What every test may lean on."""

import os
from pathlib import Path

import pytest
import torch

os.environ["LIT_ALIGN_PLUGINS"] = ""  # the suite must not depend on what else is installed
os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))

ROOT = Path(__file__).parent.parent


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
