"""Reward for code that passes its row's tests (execution feedback: Le et al., 2022, https://arxiv.org/abs/2207.01780)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.errors import ConfigError, DataError
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text
from lit_align.rewards.code_sandbox import CodeSandbox

FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class CodeTests(Reward):
    """Share of the row's tests that a response's Python code passes. It runs what the policy writes.

    The code is the last fenced block of a response, or all of it. Each test is Python that is run after the code, in a
    new process with limits of time, memory and files, without network and with an empty environment (Linux). That
    stops accidents; a policy that learns to break out of a process is stopped by a machine that has nothing to lose.

    Args:
        runs_code: must be true.
        column: of the data, with the tests: a text, or a list of texts that count alike, as ``assert f(2) == 4``.
        seconds: of computing that one test may take.
        memory_mib: limit of its memory.
        with_network: whether it may reach the network.

    Raises:
        ConfigError: unless runs_code is true, or where the limits cannot be kept.
        DataError: at a row without tests.
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
            tests = group.extra.get(self.column)
            if isinstance(tests, str):
                tests = [tests]
            if not isinstance(tests, list) or not tests:
                raise DataError(
                    f"{group.source} has no tests in its column {self.column!r}; name another for CodeTests"
                )
            for response in group.responses:
                code = extract_code(response_text(response))
                passed = [self._sandbox.succeeds(f"{code}\n{test}\n") for test in tests]
                scores.append(sum(passed) / len(tests))
        return Scores(torch.tensor(scores))


def extract_code(text: str) -> str:
    r"""The last fenced block of a text; all of it if there is none.

    Example:
        >>> extract_code("Here:\n```python\nx = 1\n```\nDone."), extract_code("x = 2")
        ('x = 1\n', 'x = 2')
    """
    blocks = FENCED.findall(text)
    return blocks[-1] if blocks else text


@hookimpl
def register_rewards(register: Register) -> None:
    register(CodeTests)
