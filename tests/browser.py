"""A real browser, where there is one: started once for all tests, because Playwright runs in a process only once."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("needs chromium; apt-get install chromium")
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright; pip install -e '.[dev]'"
    )
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory) -> Path:
    """Where screenshots are kept: the folder LIT_ALIGN_ARTEFACTS, or one that pytest makes."""
    named = os.environ.get("LIT_ALIGN_ARTEFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
