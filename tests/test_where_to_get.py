"""A class of one of our plugin packages, without the package, is answered with what to install."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lit_align.plugin_packages import PACKAGES
from lit_align.plugins import load_plugins

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "plugins"


def test_the_list_has_what_the_packages_register():
    registered = {}
    for project in FOLDER.glob("lit-align-*/pyproject.toml"):
        sources = [path for path in project.parent.rglob("*.py") if "tests" not in path.parts]
        texts = [path.read_text() for path in sources]
        names = re.findall(r"^    register\((\w+)\)", "\n".join(texts), re.MULTILINE)
        registered[project.parent.name] = sorted(names)
    assert {package: sorted(names) for package, names in PACKAGES.items()} == registered


ELSEWHERE = [
    ("fit -c configs/tiny/dpo.yaml --model.objective NCA", "lit-align-zoo"),
    ("fit -c configs/tiny/dpo.yaml --model.objective lit_align_opo.OPO", "lit-align-opo"),
    ("fit -c configs/tiny/ppo.yaml --model.reward Vader", "lit-align-vader"),
    ("evaluate suite --runs base --tasks+=Profanity", "lit-align-profanity"),
    ("evaluate reward-bench --data x --reward Vader", "lit-align-vader"),
]


def test_what_to_install_is_said():
    """In a process of its own: a class that another test has imported is there under its name."""
    code = (
        "import sys\nfrom lit_align.cli.main import main\nfor line in sys.argv[1:]:\n"
        "    try: main(line.split())\n    except SystemExit: print('ENDED', file=sys.stderr)"
    )
    commands = [arguments for arguments, _ in ELSEWHERE]
    run = subprocess.run(
        [sys.executable, "-c", code, *commands],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    messages = run.stderr.split("ENDED\n")
    assert len(messages) == len(ELSEWHERE) + 1
    for message, (_, package) in zip(messages, ELSEWHERE, strict=False):
        remedy = f"not installed: pip install plugins/{package} in a checkout"
        assert re.search(
            rf"it is in {package}, which is ({remedy}|installed and not loaded)", message
        )


def test_a_look_up_says_it_too():
    with pytest.raises(Exception, match="no reward is called 'Vader'; it is in lit-align-vader"):
        load_plugins().rewards["Vader"]


def test_each_hook_is_used_by_the_package_that_the_guide_names():
    rows = re.findall(
        r"^\| `(register_\w+)\(.*\[`([\w-]+)`\]\(\2\) \|$",
        (FOLDER / "README.md").read_text(),
        re.MULTILINE,
    )
    others = {"register_commands", "register_stages", "register_datamodules"}
    assert {hook for hook, _ in rows} == {*load_plugins().registries, *others}
    for hook, package in rows:
        sources = [path.read_text() for path in (FOLDER / package).rglob("*.py")]
        assert any(f"@hookimpl\ndef {hook}(" in source for source in sources), hook
