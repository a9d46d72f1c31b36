"""The pictures on the site, taken of the real thing: ``python -m tests.docs.screenshots [NAME ...]`` takes them again.

They show a run of the demo, an evaluation of it, and a page on which three people have labelled the demo's rows. Runs
that are in ``.cache/screenshots`` are not repeated; the demo takes six minutes.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from lit_align.types import Group, Pair
from tests.browser import CHROMIUM
from tests.labelling.serving import serving

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "lit_align/docs/pages/screenshots"
RUNS = ROOT / ".cache/screenshots"
MAX_BYTES = 80_000
DESK = {"viewport": {"width": 1000, "height": 540}}
PHONE = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}
TIES = {"ada": 9, "bob": 4, "eve": 3}
"""People, and every how many tasks each of them finds both answers the same."""

THEME = TerminalTheme(
    (22, 27, 34),
    (230, 233, 236),
    [
        *((110, 118, 129), (255, 123, 114), (126, 231, 135), (210, 153, 34)),
        *((121, 192, 255), (210, 168, 255), (86, 211, 222), (230, 233, 236)),
    ],
)
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 14px; width: max-content; background: {background}; color: {foreground}; }}
pre {{ margin: 0; font: 13px/1.35 "DejaVu Sans Mono", monospace; }}
{stylesheet}</style><pre>{code}</pre>"""


def run_command(*arguments: str) -> str:
    """What a command of lit-align prints, with its colours."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1", "COLUMNS": "104"}
    command = [sys.executable, "-m", "lit_align", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


def demo_run() -> Path:
    """The folder of a run of the demo, with the report that today's code makes of it."""
    folder = RUNS / "demo/0"
    if not (folder / "summary.json").exists():
        run_command("fit", "-c", "configs/demo.yaml", "--run", str(folder.parent))
    run_command("report", str(folder))
    return folder


def suite_page() -> Path:
    """The page of an evaluation of the demo's run beside its base."""
    page = RUNS / "suite/0/suite.html"
    if not page.exists():
        runs = ("--runs", "base", f"demo={demo_run()}", "--run", str(page.parents[1]))
        run_command("evaluate", "suite", "-c", "configs/tiny/evaluate/suite.yaml", *runs)
    return page


def keep(png: bytes, name: str) -> None:
    """Write a picture, small enough for a repository."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in (75, 60, 50):
        buffer = io.BytesIO()
        picture.save(buffer, "webp", quality=quality, method=6)
        if buffer.tell() < MAX_BYTES:
            break
    else:
        raise RuntimeError(f"{name} has {buffer.tell():,} bytes; show less")
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.webp").write_bytes(buffer.getvalue())
    print(f"{name}: {buffer.tell():,} bytes")


def take(browser: Browser, address: str, name: str, height: int) -> None:
    """The upper part of a page that is a file, light and dark."""
    for scheme in ("light", "dark"):
        size = {"width": 1000, "height": height}
        context = browser.new_context(viewport=size, color_scheme=scheme)
        page = context.new_page()
        page.goto(address)
        # the folder of a user's runs, instead of that of the machine on which this is taken
        page.evaluate(
            "([ours, usual]) => document.body.innerHTML = document.body.innerHTML.replaceAll(ours, usual)",
            [str(RUNS), "runs"],
        )
        keep(page.screenshot(), f"{name}-{scheme}")
        context.close()


def report(browser: Browser) -> None:
    """The report of a run."""
    take(browser, (demo_run() / "report.html").as_uri(), "report", 1040)


def suite(browser: Browser) -> None:
    """The page of an evaluation."""
    take(browser, suite_page().as_uri(), "suite", 622)


def inspect(browser: Browser) -> None:
    """The beginning of what ``inspect`` prints."""
    printed = run_command("inspect", "-c", "configs/demo.yaml")
    lines = ["$ lit-align inspect -c configs/demo.yaml", *printed.splitlines()[:23]]
    console = Console(record=True, width=104, file=io.StringIO())
    console.print(Text.from_ansi("\n".join(lines)))
    page = browser.new_page(device_scale_factor=1)
    page.set_content(console.export_html(theme=THEME, code_format=PAGE))
    keep(page.locator("body").screenshot(), "inspect")
    page.close()


def demo_groups() -> list[Group]:
    """Ten comparisons of the demo."""
    lines = (ROOT / "configs/demo/validation.jsonl").read_text().splitlines()
    groups = []
    for number, line in enumerate(lines[:10]):
        row = json.loads(line)
        responses = row["responses"][:2] if number % 2 else row["responses"][1::-1]
        groups.append(Group(row["prompt"], responses, (Pair(number % 2 == 0, number % 2),)))
    return groups


def visit(browser: Browser, port: int, token: str, **options: object) -> Page:
    """A page that somebody opens by the link."""
    page = browser.new_context(**{**DESK, **options}).new_page()
    page.goto(f"http://127.0.0.1:{port}/in/{token}")
    page.wait_for_load_state()
    return page


def vote(page: Page, groups: list[Group], ties: int) -> None:
    """Answer one task after the other: the better answer, in whatever order they are shown, or now and then a tie."""
    better = {group.responses[group.pairs[0].better][0]["content"] for group in groups}
    for done in range(1, len(groups) + 1):
        shown = page.locator(".answer .said").first.inner_text().strip()
        key = "1" if shown in better else "2"
        page.keyboard.press(key if done % ties else "0")
        page.keyboard.press("Enter")
        page.locator(".top strong", has_text=re.compile(f"^{done}$")).wait_for()
        page.wait_for_load_state()


def label(browser: Browser) -> None:
    """A task at a desk and on a phone, and the page of a campaign in which three people have voted."""
    for path in RUNS.glob("*.db*"):
        path.unlink()
    with serving(RUNS / "tasks.db", demo_groups(), ask="compare") as (store, port):
        for scheme in ("light", "dark"):
            for device, options in (("desk", DESK), ("phone", PHONE)):
                token = store.invite(f"{device} {scheme}")
                page = visit(browser, port, token, color_scheme=scheme, **options)
                page.keyboard.press("2")
                keep(page.screenshot(), f"labelling-{device}-{scheme}")
    with serving(RUNS / "labels.db", demo_groups(), ask="compare", votes=3) as (store, port):
        for name, ties in TIES.items():
            vote(visit(browser, port, store.invite(name)), demo_groups(), ties)
        token = store.invite("me", admin=True)
        for scheme in ("light", "dark"):
            page = visit(browser, port, token, color_scheme=scheme)
            page.set_viewport_size({"width": 1000, "height": 700})
            keep(page.screenshot(), f"labelling-campaign-{scheme}")


SHOTS: dict[str, Callable[[Browser], None]] = {
    "label": label,
    "inspect": inspect,
    "report": report,
    "suite": suite,
}


def main(names: list[str]) -> None:
    """Take the pictures of these names, or all."""
    RUNS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in names or SHOTS:
            SHOTS[name](browser)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
