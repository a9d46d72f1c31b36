"""``python -m tests.gpu``: run sections, each in a process of its own, or join the results of both calls."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.gpu.options import KitOptions
from tests.gpu.results import machine, record
from tests.gpu.sections import CALL_SECONDS, CALLS, SECTIONS, Section, find_section
from tests.gpu.targets import text

ROOT = Path(__file__).parents[2]
TINY_SECONDS = 600
"""For a section on a CPU, whose time says nothing."""
LEAST_SECONDS = 15
"""With less time left, no section is started."""
LOG_CHARACTERS = 2000


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 if a section failed."""
    parsed = make_parser().parse_args(arguments)
    if parsed.command == "record":
        print(record(parsed.files))
        return 0
    options = KitOptions(parsed.tiny, int(time.time()) if parsed.seed is None else parsed.seed)
    if parsed.command == "section":
        figures = find_section(parsed.name).run(options)
        result = {"machine": machine(options.tiny), "figures": figures}
        parsed.out.write_text(json.dumps(result))
        return 0
    if parsed.only:
        sections = [find_section(name) for name in parsed.only]
    else:
        sections = [section for section in SECTIONS if parsed.call in (None, section.call)]
    seconds = parsed.seconds or (TINY_SECONDS * len(sections) if parsed.tiny else CALL_SECONDS)
    return run(sections, options, seconds, parsed.out)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="run sections")
    run_parser.add_argument("--call", type=int, choices=CALLS, help="the sections of one call")
    run_parser.add_argument("--only", nargs="+", metavar="SECTION", help="these sections")
    run_parser.add_argument("--seconds", type=float, help=f"for all; {CALL_SECONDS} on a GPU")
    section_parser = commands.add_parser("section", help="run one section in this process")
    section_parser.add_argument("name")
    for command_parser in (run_parser, section_parser):
        command_parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
        command_parser.add_argument("--seed", type=int, help="of the gates; the time if left out")
        command_parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    record_parser = commands.add_parser("record", help="join the files of both calls")
    record_parser.add_argument("files", nargs="+", type=Path)
    return parser


def run(sections: list[Section], options: KitOptions, seconds: float, out: Path) -> int:
    """Run sections one after another and write each one's figures at once; 1 if one failed."""
    deadline = time.monotonic() + seconds
    result: dict = {"machine": None, "sections": {}}
    log = out.with_suffix(".log")
    log.unlink(missing_ok=True)
    for section in sections:
        start = time.monotonic()
        if options.tiny and section.cpu_obstacle:
            figures = {"skipped": section.cpu_obstacle}
        elif deadline - start < LEAST_SECONDS:
            figures = {"skipped": f"less than {LEAST_SECONDS} seconds were left"}
        else:
            limit = TINY_SECONDS if options.tiny else section.seconds
            where, figures = run_section(section, options, min(limit, deadline - start), out)
            result["machine"] = result["machine"] or where
            figures["wall_seconds"] = round(time.monotonic() - start, 1)
        result["sections"][section.name] = figures
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{section.name:14} {outcome(figures)}", flush=True)
    print(text(result["sections"]))
    return int(any(not figures.get("ok", True) for figures in result["sections"].values()))


def run_section(
    section: Section, options: KitOptions, seconds: float, out: Path
) -> tuple[dict | None, dict]:
    """The machine and the figures of a section in a process of its own; without figures, why there are none."""
    log, part = out.with_suffix(".log"), out.with_suffix(".part")
    part.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.gpu", "section", section.name, "--out", str(part)]
    command += [f"--seed={options.seed}", *(["--tiny"] if options.tiny else [])]
    # lengths change from step to step, by which fixed segments would fragment
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", **os.environ}
    environment["LIT_ALIGN_PLUGINS"] = ""  # what else is installed is not measured
    with log.open("ab") as file:
        file.write(f"===== {section.name}\n".encode())
        file.flush()
        start = file.tell()
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=file,
                timeout=seconds,
                check=False,
            )
            reason = f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"not done after {seconds:.0f} seconds"
    if not part.exists():
        lines = log.read_bytes()[start:].decode(errors="replace")
        return None, {"ok": False, "reason": reason, "log": lines[-LOG_CHARACTERS:]}
    result = json.loads(part.read_text())
    part.unlink()
    return result["machine"], result["figures"]


def outcome(figures: dict) -> str:
    """One line about a section."""
    if "skipped" in figures:
        return f"skipped: {figures['skipped']}"
    status = "ok" if figures["ok"] else f"FAILED: {figures.get('reason', 'what it checks')}"
    return f"{status}, {figures['wall_seconds']} s"


if __name__ == "__main__":
    sys.exit(main())
