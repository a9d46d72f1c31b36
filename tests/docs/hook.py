"""What mkdocs calls: adds the generated pages to those that are written by hand."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

LATE = 0.3
LATE_IN_SEARCH = f"---\nsearch:\n  boost: {LATE}\n---\n"
"""Of pages with many of the words that somebody looks for, and without what they look for."""


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

    return {
        **configuration.pages(),
        "reference/commands.md": LATE_IN_SEARCH + commands.page(),
        "reference/metrics.md": metrics.page(),
        "findings.md": LATE_IN_SEARCH + findings.page(),
        "equations.md": equations.page(),
        "directory.md": directory.page(),
        "by_hand.md": _by_hand(),
        "layouts.md": layouts.page(),
        "ppo.md": ppo.page(),
        "proof_files.md": LATE_IN_SEARCH + proofs.page(),
        "plugins.md": _with_site_links((ROOT / "plugins/README.md").read_text()),
    }


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
    """Add the day and machine of each script; the page of proofs comes late in the search."""
    from tests.docs import claims

    if page.file.src_uri == "proofs.md":
        page.meta["search"] = {"boost": LATE}
    return claims.with_days(markdown)
