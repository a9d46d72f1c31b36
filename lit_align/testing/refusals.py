"""Whether what cannot work is refused as a person can read it: one sentence, and no traceback of something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lit_align.errors import LitAlignError
from lit_align.plugin_failures import describe_exception, find_place
from lit_align.testing.objective_checks import require

MAX_CHARACTERS = 600


def require_refusal(
    name: str, wrong: str, function: Callable[[], object], names: tuple[str, ...] = ()
) -> str:
    """Fail unless ``function`` raises an error of ours or a ValueError with one sentence; returns the sentence.

    Args:
        name: what is checked.
        wrong: what it is called with.
        function: to call.
        names: what the sentence must name, if anything.
    """
    try:
        function()
    except (LitAlignError, ValueError) as error:
        sentence = str(error)
        require_sentence(f"{name} refuses {wrong}", sentence)
        for word in names:
            require(
                word in sentence,
                f"{name} refuses {wrong} with {sentence!r}, which does not name {word}",
            )
        return sentence
    except Exception as error:
        place = find_place(error)
        at_place = f", at {place}" if place else ""
        raise AssertionError(
            f"{name} fails at {wrong}{at_place}: {describe_exception(error)}; raise a ValueError or an "
            "error of lit_align.errors with a sentence that says what to do"
        ) from error
    raise AssertionError(f"{name} accepts {wrong}; refuse it with a ValueError")


def require_sentence(does: str, sentence: str) -> None:
    """Fail unless ``sentence`` has several words in one line.

    Args:
        does: what said it, with a verb.
        sentence: what it said.
    """
    is_one_line = "\n" not in sentence.strip() and len(sentence) <= MAX_CHARACTERS
    require(
        is_one_line and len(sentence.split()) >= 3,
        f"{does} with {sentence[:MAX_CHARACTERS]!r}; say in one sentence what is wrong and what to do",
    )


def require_refusals(name: str, refused: Sequence[Callable[[], object]]) -> None:
    """Fail unless each of these calls, which make the plugin with settings that cannot work, is refused.

    Args:
        name: what is checked.
        refused: to call.
    """
    for number, make in enumerate(refused):
        require_refusal(name, f"the settings refused[{number}]", make)
