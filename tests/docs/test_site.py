"""The built site in a real Chromium, opened as files: the search, and nothing that sticks out on a phone."""

import os
import subprocess
import sys

import pytest

from tests.docs.hook import ROOT

SEARCHES = {
    "4-bit": "planner.html",
    "resume": "running.html",
    "reward model": "reward_models.html",
    "labelling": "labelling.html",
    "KL": "rl.html",
    "verbosity": "sft.html",
    "beta": "objectives.html",
    "seen prompts": "reward_models.html",
    "abstention": "rl.html",
    "GRPO": "rl.html",
}
"""What somebody types, and the page that must come first."""


@pytest.fixture(scope="module")
def site(browser, tmp_path_factory):
    """The address of the site's folder; building it takes longer than all tests of it."""
    pytest.importorskip("material", reason="needs mkdocs-material; pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    config = "lit_align/docs/mkdocs.yml"
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "-f", config, "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return folder


@pytest.fixture(scope="module")
def page(browser, site):
    """A page that asks nothing of the network and complains of nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    complaints = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request",
        lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None,
    )
    yield opened
    context.close()
    assert complaints == []


@pytest.mark.parametrize("words", SEARCHES)
def test_the_search_finds_a_page_without_a_server(page, site, words):
    page.goto(f"{site.as_uri()}/index.html")
    field = page.locator("input.md-search__input")
    field.click()
    field.press_sequentially(words)
    page.locator("li.md-search-result__item").first.wait_for()
    page.get_by_text("matching document").wait_for()
    links = page.locator("li.md-search-result__item > a")
    addresses = [link.get_attribute("href").partition("?")[0] for link in links.all()]
    pages = list(dict.fromkeys(addresses))
    assert pages[0].partition("#")[0].endswith(f"/{SEARCHES[words]}"), pages
    links.nth(0).click()
    page.wait_for_url(f"{pages[0]}*")


WIDE = """[...document.querySelectorAll("article *")].filter(part =>
    part.getBoundingClientRect().right > innerWidth + 1
    && !part.closest(".md-typeset__table, pre, math")).map(part => part.outerHTML.slice(0, 200))"""
SCROLLED = """[...document.querySelectorAll("article table")].filter(box =>
    box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX == "auto").length"""

BROKEN = """[...document.querySelectorAll("article table code")].filter(name =>
    /^[\\w.]+$/.test(name.textContent) && name.getClientRects().length > 1).map(name => name.textContent)"""


def test_no_page_is_wider_than_its_window_and_wide_tables_scroll_in_their_boxes(page, site):
    too_wide, broken, scrolled = [], [], 0
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        for width in (1280, 375):
            page.set_viewport_size({"width": width, "height": 900})
            if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                too_wide.append((path.name, width))
            too_wide += [(path.name, width, part) for part in page.evaluate(WIDE)]
        broken += page.evaluate(BROKEN)
        scrolled += page.evaluate(SCROLLED)
        page.set_viewport_size({"width": 1280, "height": 900})
    assert too_wide == []
    assert broken == []
    assert scrolled > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_how_pages_look(browser, site, artefacts, scheme, width):
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    context = browser.new_context(**options)
    shown = context.new_page()
    for name in ("index", "rl", "labelling", "reference/run"):
        shown.goto(f"{site.as_uri()}/{name}.html")
        picture = artefacts / f"site-{name.replace('/', '-')}-{width}-{scheme}.png"
        shown.screenshot(path=picture)
        ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(float, ground.strip("rgba()").split(",")[:3])) < 384) == (scheme == "dark")
    context.close()
