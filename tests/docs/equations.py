"""The page of equations, from the docstrings of all objectives."""

from __future__ import annotations

import inspect
import re
import sys

from lit_align.cli.plugins import describe_objective
from tests import objective_registry

BLOCK = re.compile(r"\.\. math::((?:.|\n)*?)(?:\n\s*\n|\Z)")


def equations(cls: type) -> list[str]:
    r"""LaTeX of each equation in a docstring, on a line of its own."""
    return [" ".join(block.split()) for block in BLOCK.findall(inspect.getdoc(cls) or "")]


def mathml(latex: str) -> str:
    """An equation as browsers show it without scripts."""
    from latex2mathml.converter import convert

    for written, shown in ((r"\Big", ""), (r"\big", ""), (r"\tfrac", r"\frac")):
        latex = latex.replace(written, shown)
    # a bracket there would be read as the alignment of the columns
    latex = latex.replace(r"\begin{cases} [", r"\begin{cases} {}[")
    return convert(latex, display="block")


def page() -> str:
    """As Markdown: each objective with its source, its equation and the kind of labels that it learns from."""
    parts = [
        "# Equations of the objectives\n",
        "From the docstrings; the numbers are those of the papers. y_w was preferred to y_l, π_θ is the policy, π_ref "
        "its reference. Their settings are in the [reference](reference/objectives.md).\n",
    ]
    for name, cls in sorted(objective_registry.classes().items()):
        source = (sys.modules[cls.__module__].__doc__ or "").split("\n")[0]
        family, labels, reference = describe_objective(cls).values()
        first, _, rest = (inspect.getdoc(cls) or "").partition("\n")
        around = BLOCK.sub("\n\n", rest.partition("\nArgs:")[0]).replace("``", "`")
        lines = [f"## {name}\n", f"{first}\n", *(f"{mathml(latex)}\n" for latex in equations(cls))]
        if around.strip():
            lines.append(f"{' '.join(around.split())}\n")
        lines.append(
            f"*{source}* Family: {family}; learns from {labels}; reference model: {reference}.\n"
        )
        parts += lines
    return "\n".join(parts)
