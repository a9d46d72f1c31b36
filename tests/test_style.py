"""The package keeps to the style that ``make check`` checks, and each check catches what it is for."""

import ast

import grimp
import pytest

from tests import check_style


def test_the_package_keeps_to_the_style():
    assert check_style.problems() == []


def test_counts_of_a_file(tmp_path):
    file = tmp_path / "sample.py"
    file.write_text(
        '"""Doc."""\n\n# comment\ndef f(of):\n    """Doc."""\n    said = [x for x in of]\n'
    )
    counts = check_style.count(file)
    assert (counts.code_lines, counts.comprehensions) == (2, 1)
    assert (counts.names, counts.vague_names) == (3, 2)
    assert counts.nodes == len(list(ast.walk(ast.parse(file.read_text()))))
    assert (counts + counts).names == 6


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A package with one file of the given text."""
    monkeypatch.setattr(check_style, "ROOT", tmp_path)
    monkeypatch.setattr(check_style, "PACKAGE", tmp_path)

    def write(text):
        (tmp_path / "sample.py").write_text(text)

    return write


@pytest.mark.parametrize(
    ("text", "check", "problem"),
    [
        ("said = told = 1\n", check_style.check_density, "100.00 % of the names are vague"),
        ("x = [[1, 2, 3, 4, 5, 6, 7]]\n" * 60, check_style.check_density, "nodes a code line"),
        (
            "x = list(y for y in z)\n" * 60,
            check_style.check_density,
            "comprehensions in 100 code lines",
        ),
        ("x = 1\n" * 401, check_style.check_sizes, "sample.py has 401 lines, over 400"),
        ("class A:\n" + "    x = 1\n" * 250, check_style.check_sizes, "A has 251 lines"),
        ("def f():\n" + "    x = 1\n" * 50, check_style.check_sizes, "f has 51 lines"),
        ("a._default_root_dir = 1\n", check_style.check_private_names, "sample.py:1 uses _default"),
        ("def _set_seed(self): pass\n", check_style.check_private_names, "uses _set_seed, which"),
    ],
)
def test_a_violation_is_caught(package, text, check, problem):
    package(text)
    assert any(problem in sentence for sentence in check())


def test_what_is_sound_passes(package):
    package("x = 1\n" * 60)
    for check in (
        check_style.check_density,
        check_style.check_sizes,
        check_style.check_private_names,
    ):
        assert not list(check())


def test_a_circle_is_caught():
    graph = grimp.ImportGraph()
    for importer, imported in (("lit_align.a", "lit_align.b"), ("lit_align.b", "lit_align.a")):
        graph.add_import(importer=importer, imported=imported)
    assert "imports form a circle" in next(check_style.check_circles(graph))
