"""Checks of style that no linter has: names, density, size, private interfaces and imports. ``make check`` runs it."""

import ast
import graphlib
import io
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lit_align"

VAGUE_NAMES = set(
    [
        "one",
        "found",
        "known",
        "said",
        "told",
        "of",
        "there",
        "made",
        "given",
        "several",
        "every",
        "both",
        "asked",
        "kept",
        "here",
        "now",
        "held",
        "its",
        "rest",
        "alone",
        "more",
        "how",
        "what",
        "who",
        "each",
        "whole",
        "near",
        "new",
        "old",
        "where",
        "apart",
        "seen",
        "which",
        "why",
        "taken",
        "when",
    ]
)
MAX_VAGUE_PERCENT = 0.5  # of local names and parameters
MAX_NODES_PER_LINE = 9.0  # syntax nodes per code line
MAX_COMPREHENSIONS = 4.0  # per 100 code lines
MAX_FUNCTION_LINES = 50  # of code, as in all limits of lines but that of a file
MAX_CLASS_LINES = 250
MAX_FILE_LINES = 400

PRIVATE_NAMES = {
    # Lightning
    "_default_root_dir",
    "_get_train_description",
    "_logger_connector",
    "_on_after_step",
    "_on_before_step",
    "_parse_ckpt_path",
    "_prepare_subcommand_kwargs",
    "_run_subcommand",
    "_set_seed",
    "batch_progress",
    "epoch_progress",
    "optim_step_progress",
    "restarting",
    # PEFT and transformers
    "_active_adapter",
    "_disable_adapters",
    "_hf_peft_config_loaded",
}
"""Names inside other libraries that are no public interface; only ``compat`` uses them."""

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SKIPPED_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@dataclass
class Counts:
    """Sizes of one file, or of several together."""

    code_lines: int = 0
    nodes: int = 0
    comprehensions: int = 0
    names: int = 0
    vague_names: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Counts(*(left + right for left, right in pairs))


def docstring_lines(tree: ast.Module) -> set[int]:
    """Lines of strings that stand alone: docstrings of modules, classes, functions and attributes."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            is_string = isinstance(node.value.value, str)
            lines.update(range(node.lineno, node.end_lineno + 1) if is_string else ())
    return lines


def code_lines(source: str, tree: ast.Module) -> int:
    """Lines with a token that is neither a comment nor part of a docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SKIPPED_TOKENS:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstring_lines(tree))


def local_names(tree: ast.Module) -> list[str]:
    """Names that are assigned to, and parameters."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.arg):
            names.append(node.arg)
    return names


def count(path: Path) -> Counts:
    """Sizes of one file."""
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    names = local_names(tree)
    return Counts(
        code_lines=code_lines(source, tree),
        nodes=len(nodes),
        comprehensions=sum(isinstance(node, COMPREHENSIONS) for node in nodes),
        names=len(names),
        vague_names=sum(name in VAGUE_NAMES for name in names),
    )


def check_density() -> Iterator[str]:
    """Vague names, nodes and comprehensions, of the whole package."""
    total = Counts()
    for path in sorted(PACKAGE.rglob("*.py")):
        total += count(path)
    vague_percent = 100 * total.vague_names / total.names
    nodes = total.nodes / total.code_lines
    comprehensions = 100 * total.comprehensions / total.code_lines
    if vague_percent > MAX_VAGUE_PERCENT:
        yield f"{vague_percent:.2f} % of the names are vague, over {MAX_VAGUE_PERCENT}"
    if nodes > MAX_NODES_PER_LINE:
        yield f"{nodes:.2f} nodes a code line, over {MAX_NODES_PER_LINE}"
    if comprehensions > MAX_COMPREHENSIONS:
        yield f"{comprehensions:.1f} comprehensions in 100 code lines, over {MAX_COMPREHENSIONS}"


def check_sizes() -> Iterator[str]:
    """Functions, classes and files that are too long."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        name = path.relative_to(ROOT)
        num_lines = len(source.splitlines())
        if num_lines > MAX_FILE_LINES:
            yield f"{name} has {num_lines} lines, over {MAX_FILE_LINES}"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                limit = MAX_CLASS_LINES
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                limit = MAX_FUNCTION_LINES
            else:
                continue
            segment = textwrap.dedent(ast.get_source_segment(source, node, padded=True) or "")
            length = code_lines(segment, ast.parse(segment))
            if length > limit:
                yield f"{name}:{node.lineno} {node.name} has {length} lines, over {limit}"


def check_private_names() -> Iterator[str]:
    """Private interfaces of other libraries, outside of ``compat``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name == "compat":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_attribute = isinstance(node, ast.Attribute) and node.attr in PRIVATE_NAMES
            is_method = isinstance(node, ast.FunctionDef) and node.name in PRIVATE_NAMES
            if is_attribute or is_method:
                private_name = node.attr if is_attribute else node.name
                yield (
                    f"{path.relative_to(ROOT)}:{node.lineno} uses {private_name}, which is private to another library; "
                    "move it to lit_align/compat, with a test"
                )


def import_graph() -> grimp.ImportGraph:
    """Imports between the files of the package, those for the type checker included."""
    return grimp.build_graph("lit_align", exclude_type_checking_imports=False, cache_dir=None)


def check_circles(graph: grimp.ImportGraph) -> Iterator[str]:
    """A circle of imports."""
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        yield f"imports form a circle: {' <- '.join(error.args[1])}"


def problems() -> list[str]:
    """A sentence for each violation."""
    return [
        *check_density(),
        *check_sizes(),
        *check_private_names(),
        *check_circles(import_graph()),
    ]


if __name__ == "__main__":
    for problem in problems():
        print(problem)
    sys.exit(bool(problems()))
