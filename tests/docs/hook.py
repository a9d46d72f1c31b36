"""What mkdocs calls: adds the generated pages to those that are written by hand."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

COMMANDS = re.compile(r'<div class="language-bash highlight">.*?</div>', re.DOTALL)
OPTION = re.compile(r"(?<![\w-])(--[a-z][\w.-]*)(?![^<]*>)")
LATE, LATER = 0.4, 0.3
"""Weights in the search of pages with many of the words that somebody looks for: references, and lists of findings."""

WRITTEN_LATE = {"proofs.md": LATER, "coming_from.md": LATE, "studies.md": LATER}


def generated_pages() -> dict[str, str]:
    """Path -> Markdown of every page that is made from the code when the site is built."""
    from tests.docs import (
        commands,
        configuration,
        directory,
        equations,
        findings,
        layouts,
        metrics,
        ppo,
        proofs,
    )

    references = {path: _weighed(text, LATE) for path, text in configuration.pages().items()}
    return {
        **references,
        "reference/commands.md": _weighed(commands.page(), LATER),
        "reference/metrics.md": metrics.page(),
        "findings.md": _weighed(findings.page(), LATER),
        "equations.md": equations.page(),
        "directory.md": directory.page(),
        "by_hand.md": _weighed(_by_hand(), LATER),
        "layouts.md": layouts.page(),
        "ppo.md": ppo.page(),
        "proof_files.md": _weighed(proofs.page(), LATER),
        "plugins.md": _with_site_links((ROOT / "plugins/README.md").read_text()),
    }


def _weighed(text: str, weight: float) -> str:
    """A page with its weight in the search."""
    return f"---\nsearch:\n  boost: {weight}\n---\n{text}"


def _by_hand() -> str:
    code = (ROOT / "lit_align/docs/dpo_by_hand.py").read_text()
    return (
        "# DPO by hand\n\nThe whole of `lit_align/docs/dpo_by_hand.py`: a test holds its losses against those of "
        "`lit-align fit`. A notebook for a free GPU is beside it, `dpo_on_a_free_gpu.ipynb`.\n\n"
        f"```python\n{code}```\n"
    )


def _with_site_links(text: str) -> str:
    """The guide to plugins, whose links to folders beside it are names on the site."""
    return re.sub(r"\[(`?[\w./-]+`?)\]\((?!https?:|#)[^)]*\)", r"\1", text)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    from mkdocs.structure.files import File

    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    for image in (ROOT / "tests/proofs").glob("*.png"):
        files.append(File.generated(config, f"images/{image.name}", abs_src_path=str(image)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add the day and machine of each script, and to some pages their weight in the search."""
    from tests.docs import claims

    if page.file.src_uri in WRITTEN_LATE:
        page.meta["search"] = {"boost": WRITTEN_LATE[page.file.src_uri]}
    return claims.with_days(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Keep options whole where a long command is wrapped: a browser breaks lines after a hyphen."""
    return COMMANDS.sub(lambda block: OPTION.sub(r'<span class="option">\1</span>', block[0]), html)
