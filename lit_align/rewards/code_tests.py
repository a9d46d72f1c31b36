"""Reward for code that passes its row's tests (execution feedback: Le et al., 2022, https://arxiv.org/abs/2207.01780)."""

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.errors import ConfigError, DataError
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import column_list, response_text
from lit_align.rewards.code_sandbox import CodeSandbox

FENCED = re.compile(r"^([ \t]*)```([^\n`]*)\n(.*?)^\1```\s*?$", re.DOTALL | re.MULTILINE)
"""Indentation, info string and content of a block, whose closing fence has a line of its own."""

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
"""What is not run where it stands."""


@dataclass(frozen=True)
class CodeTests(Reward):
    """Share of the row's tests that a response's Python code passes. It runs what the policy writes.

    The code is the last fenced block of a response that is tagged as Python, else the last one, else all of it. Each
    test is Python that is run after the code, in a new process with limits of time, memory, processes, open files and
    the size of a file, without network and with an empty environment (Linux). It runs as your user: what it writes or
    deletes outside of its folder is written and deleted, so run it where there is nothing to lose. It has the standard
    library alone: no installed package such as numpy, and no ``exit()``; ``sys.exit()`` fails the test too.

    A test is run in the same process as the code, so code that is written to deceive the check can deceive it: a policy
    may learn to, and a high score is then no proof that the code is right. Read some of what it writes.

    Args:
        runs_code: must be true.
        column: of the data, with the tests: a text, or a list of texts that count alike, as ``assert f(2) == 4``. Each
            asserts, raises or calls something: a comparison without ``assert`` is refused, as no code fails it.
        seconds: of computing that one test may take.
        memory_mib: limit of its memory.
        with_network: whether it may reach the network.

    Raises:
        ConfigError: unless runs_code is true, or where the limits cannot be kept.
        DataError: at a row without tests, or with one that is no Python, or that no code could fail.
    """

    runs_code: bool = False
    column: str = "tests"
    seconds: int = 5
    memory_mib: int = 512
    with_network: bool = False

    def __post_init__(self) -> None:
        if not self.runs_code:
            raise ConfigError(
                "CodeTests runs the code that the policy writes, on this machine; set runs_code to true to allow it"
            )
        check_positive("seconds", self.seconds, "5 is usual")
        check_positive("memory_mib", self.memory_mib, "512 is usual")
        self._sandbox.check()

    @property
    def _sandbox(self) -> CodeSandbox:
        return CodeSandbox(self.seconds, self.memory_mib, self.with_network)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        scores = []
        for group in groups:
            tests = self._tests(group)
            for response in group.responses:
                code = extract_code(response_text(response))
                passed = [self._sandbox.succeeds(f"{code}\n{test}\n") for test in tests]
                scores.append(sum(passed) / len(tests))
        return Scores(torch.tensor(scores))

    def _tests(self, group: Group) -> list[str]:
        """The tests of a row."""
        tests, value = column_list(group, self.column), group.extra.get(self.column)
        if tests is None and isinstance(value, str):
            tests = [value]
        if not tests:
            raise DataError(
                f"{group.source} has no tests in its column {self.column!r}; name another for CodeTests"
            )
        for test in tests:
            fault = _fault(test) if isinstance(test, str) else "it is no text"
            if fault:
                raise DataError(
                    f"a test of {group.source}, in its column {self.column!r}, is {test!r}: {fault}; a test is Python "
                    "that fails for wrong code, as in 'assert f(2) == 4'"
                )
        return tests


@lru_cache(maxsize=4096)
def _fault(test: str) -> str | None:
    """Why no code could fail a test, or all code would; None for a test.

    Example:
        >>> _fault("assert f(2) == 4"), _fault("f(2) == 4")
        (None, 'its line 1 is a value that nothing is asserted of')
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes in its texts
            body = ast.parse(test).body
    except (SyntaxError, ValueError, RecursionError) as error:
        return f"it is no Python ({error})"
    for statement in body:
        if isinstance(statement, ast.Expr) and not isinstance(
            statement.value, ast.Call | ast.Constant
        ):
            return f"its line {statement.lineno} is a value that nothing is asserted of"
    checks = (ast.Assert, ast.Raise, ast.Call)
    if not any(isinstance(node, checks) for statement in body for node in _run_nodes(statement)):
        return "it asserts nothing and calls nothing"
    return None


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are run where they stand: not those inside a function, which runs when it is called."""
    yield node
    if not isinstance(node, DEFINITIONS):
        for child in ast.iter_child_nodes(node):
            yield from _run_nodes(child)


def extract_code(text: str) -> str:
    r"""The last fenced block of a text that is tagged as Python, else the last one; all of it if there is none.

    Example:
        >>> extract_code("Here:\n```python\nx = 1\n```\nDone."), extract_code("x = 2")
        ('x = 1\n', 'x = 2')
    """
    blocks = FENCED.findall(text)
    if not blocks:
        return text
    python = [block for block in blocks if block[1].strip().lower().startswith("py")]
    indent, _, code = (python or blocks)[-1]
    return re.sub(f"^{indent}", "", code, flags=re.MULTILINE)


@hookimpl
def register_rewards(register: Register) -> None:
    register(CodeTests)
