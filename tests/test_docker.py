"""The Dockerfiles' text against what the project declares: no engine is needed to see that."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from lit_align.labelling.campaign import Campaign

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = {
    re.split("==", line)[0].lower().replace("_", "-")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
}


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_an_image_can_serve_the_labelling_page(name):
    """Its extras are installed, its port is exposed, and the command in the comment has settings that there are."""
    text = (ROOT / "docker" / name).read_text()
    extras = re.findall(r"pip install [^\n&]*'\.\[([\w,]+)\]'", text)
    assert extras == ["label,orca"]
    for extra in extras[0].split(","):
        for requirement in PROJECT["optional-dependencies"][extra]:
            assert re.match(r"[\w-]+", requirement)[0].lower() in {name.lower() for name in PINNED}
    assert f"EXPOSE {Campaign().port}\n" in text
    (command,) = re.findall(r"docker run (.*) label (.*)", text)
    assert f"127.0.0.1:{Campaign().port}:{Campaign().port}" in command[0]
    options = dict(re.findall(r"--(\w+) (\S+)", command[1]))
    assert options.keys() <= {field.name for field in fields(Campaign)}
    campaign = Campaign(**options)
    assert (
        campaign.host == "0.0.0.0"
    )  # what listens inside of a container at 127.0.0.1 is reached by nobody
    assert campaign.link("x") == f"http://127.0.0.1:{campaign.port}/in/x"
    for source in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / path).exists() for path in source.split())
