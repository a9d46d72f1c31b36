"""Build step: the wheel carries ``configs/`` and the plugin templates, which lie beside the package in a checkout."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGED = {
    "configs": "configs",
    "plugins/template": "plugin_template",
    "plugins/reward-template": "reward_template",
}
"""Folders of the checkout, and their names inside of the package; `lit_align.package_files` finds them in both."""


class BuildWithConfigs(build_py):
    """Copies the folders into the package; an editable installation reads them where they are."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for folder, name in PACKAGED.items():
            target = Path(self.build_lib, "lit_align", name)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(
                folder, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
            )


setup(cmdclass={"build_py": BuildWithConfigs})
