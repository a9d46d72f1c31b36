"""``lit-align report``: write the page of a run, of one that was stopped too."""

from __future__ import annotations

import argparse
from pathlib import Path


def run(arguments: list[str]) -> None:
    """Write the page, and print where it is.

    Raises:
        ConfigError: if the folder is not that of a run.
    """
    parser = argparse.ArgumentParser(
        "lit-align report",
        allow_abbrev=False,
        description="Write one HTML file with everything that a run has logged.",
    )
    parser.add_argument("run", help="the numbered folder of a run")
    parser.add_argument("--file", help="where to write; report.html in the folder if left out")
    options = parser.parse_args(arguments)
    from lit_align.run_report.page import write_report

    file = write_report(Path(options.run), Path(options.file) if options.file else None)
    print(f"{file} is the report of {options.run}; open it in a browser.")
