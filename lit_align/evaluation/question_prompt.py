"""The questions and answers that come before a question in the protocol of TruthfulQA."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lit_align.errors import ConfigError
from lit_align.package_files import find_file

TASK_FILE = "tasks/truthfulqa/truthfulqa_mc1.yaml"
"""The file of the package lm_eval with the prompt of the paper."""


@cache
def load_question_prompt(file: str | None) -> Callable[[str], str]:
    """What makes the whole text for a question, up to ``A:``, by the prompt in a text file or by that of the paper.

    Args:
        file: with questions and answers, each as ``Q: ...`` and ``A: ...``; None reads the paper's prompt from the task
            files of the package ``lm_eval``.

    Raises:
        ConfigError: if there is no such file, or no such package.
    """
    if file is not None:
        path = Path(find_file(file)).expanduser()
        if not path.is_file():
            raise ConfigError(f"prompt is {file!r}, and there is no such file; correct the path")
        start = path.read_text("utf-8").rstrip()
        return lambda question: f"{start}\n\nQ: {question}\nA:"
    return _paper_prompt()


def _paper_prompt() -> Callable[[str], str]:
    import yaml
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    spec = find_spec("lm_eval")
    path = Path(spec.origin).parent / TASK_FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ConfigError(
            "the paper's QA prompt is read from the package lm_eval, which is not installed; run: "
            "pip install 'lit-align[eval]', or set prompt to a file of your own"
        )
    template = ImmutableSandboxedEnvironment().from_string(
        yaml.safe_load(path.read_text("utf-8"))["doc_to_text"]
    )
    return lambda question: template.render(question=question)
