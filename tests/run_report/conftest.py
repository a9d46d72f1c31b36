"""The browser of the labelling page's tests."""

from tests.labelling.conftest import artefacts, browser  # noqa: F401
