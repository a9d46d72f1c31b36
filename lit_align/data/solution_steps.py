"""Steps of a response: its text and its tokens are those of the steps with a separator between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple

from lit_align.data.chat_renderer import Part, Run
from lit_align.errors import ConfigError, Malformed, SetAside
from lit_align.types import Group, SolutionStep, Text

if TYPE_CHECKING:
    from lit_align.chat.spelled_tokens import SpelledTokens

LearnedSteps = Literal["all", "to_first_error", "last"]
"""Which labelled steps are learned from: all, those up to the first that is wrong, or only the last of a response."""

WRONG = 0.5
"""A step whose label is below is wrong."""


class StepSettings(NamedTuple):
    r"""How responses are put together from steps.

    Args:
        separator: text between two steps, such as a line break; the token that ends it is where the step is scored.
        learned: which labelled steps are learned from.
    """

    separator: str = "\n"
    learned: LearnedSteps = "all"

    def check(self) -> None:
        """Refuse an empty separator.

        Raises:
            ConfigError: naming the setting.
        """
        if not self.separator:
            raise ConfigError(
                "step_separator is empty, and a step ends with it; give the text between two steps, such as a line "
                'break, "\\n"'
            )


NEXT_STEP = "Next"
"""Stands for the step that follows a beginning; nothing before it depends on it."""

LINES = StepSettings()
"""Each line is a step."""


def split_steps(text: str, separator: str) -> list[str]:
    r"""The steps of a response: what stands between separators; several of them in a row are as one.

    Example:
        >>> split_steps("1 + 2 = 3\n\n3 + 4 = 7\n", "\n"), split_steps("", "\n")
        (['1 + 2 = 3\n', '3 + 4 = 7'], [''])
    """
    pieces = text.split(separator)
    while len(pieces) > 1 and not pieces[-1].strip():
        pieces.pop()
    steps = [pieces[0]]
    for piece in pieces[1:]:
        if piece.strip() and steps[-1].strip():
            steps.append(piece)
        else:  # blanks belong to the step before them, and those at the start to the first
            steps[-1] += separator + piece
    return steps


def steps_to_score(text: str, separator: str, goes_on: bool = False) -> tuple[SolutionStep, ...]:
    r"""The steps of a response, with a label for each that is scored.

    Args:
        text: of the response.
        separator: text between two steps.
        goes_on: whether more will follow the text. If its last step is complete, a step without a label follows, so
            that the last one is scored at its separator, as in training, and not at the end of the response.

    Example:
        >>> [(step.text, step.label) for step in steps_to_score("2 + 2 = 4\n", "\n", goes_on=True)]
        [('2 + 2 = 4', 1.0), ('Next', None)]
        >>> [step.text for step in steps_to_score("2 + 2 = 4\nSo", "\n", goes_on=True)]
        ['2 + 2 = 4', 'So']
    """
    if goes_on:
        *complete, following = split_steps(text + NEXT_STEP, separator)
        if complete and following.strip() == NEXT_STEP:
            scored = [SolutionStep(step, 1.0) for step in complete]
            return (*scored, SolutionStep(following))
    return tuple(SolutionStep(step, 1.0) for step in split_steps(text, separator))


def unfinished_step(text: str, separator: str) -> str:
    r"""What stands after the last separator, without separators and blanks at its start.

    Example:
        >>> unfinished_step("2 + 2 = 4\n\nSo ", "\n"), unfinished_step(" ;;a", ";"), unfinished_step("a;", ";")
        ('So ', 'a', '')
    """
    return strip_start(text.rpartition(separator)[2], separator)


def strip_start(text: str, separator: str) -> str:
    r"""The text without separators and blanks at its start.

    Example:
        >>> strip_start("\n 2 + 2 = 4\n", "\n"), strip_start(" b ba", " b")
        ('2 + 2 = 4\n', 'a')
    """
    while text:
        shorter = text.removeprefix(separator)
        if shorter == text and text[0].isspace():
            shorter = text[1:]
        if shorter == text:
            break
        text = shorter
    return text


def join_steps(group: Group, separator: str) -> Group:
    """The group with the text of each response made of its steps."""
    responses: list[Text] = []
    for steps in group.steps:
        text = separator.join(step.text for step in steps)
        is_text = isinstance(group.prompt, str)
        responses.append(text if is_text else [{"role": "assistant", "content": text}])
    return group._replace(responses=responses)


def learned_steps(
    steps: Sequence[SolutionStep], settings: StepSettings
) -> tuple[SolutionStep, ...]:
    r"""The steps as a response is divided when it is scored, with the labels that are learned from.

    Blanks between two steps belong to the first of them.

    Raises:
        SetAside: if the response would be divided into other steps, or no label is learned from.

    Example:
        >>> learned_steps([SolutionStep("a", 1.0), SolutionStep("\nb", 0.0)], StepSettings("\n"))
        (SolutionStep(text='a\n', label=1.0), SolutionStep(text='b', label=0.0))
    """
    separator = settings.separator
    texts = split_steps(separator.join(step.text for step in steps), separator)
    if [text.strip() for text in texts] != [step.text.strip() for step in steps]:
        raise SetAside(
            f"a step contains the separator {separator!r}, so that the response would be scored in other steps; set "
            "data.step_separator to a text that stands in no step"
        )
    divided = [step._replace(text=text) for step, text in zip(steps, texts, strict=True)]
    chosen = choose_labels(divided, settings.learned)
    if all(step.label is None for step in chosen):
        raise SetAside(
            f"learned_steps is {settings.learned}, and none of these steps has a label; set it to all"
        )
    return chosen


def choose_labels(steps: Sequence[SolutionStep], learned: LearnedSteps) -> tuple[SolutionStep, ...]:
    """The steps of a response with the labels that are learned from.

    Example:
        >>> steps = [SolutionStep("a", 1.0), SolutionStep("b", 0.0), SolutionStep("c", 0.0)]
        >>> [step.label for step in choose_labels(steps, "to_first_error")]
        [1.0, 0.0, None]
        >>> [step.label for step in choose_labels(steps, "last")]
        [None, None, 0.0]
    """
    last = len(steps) - 1
    first_error = next((i for i, step in enumerate(steps) if is_wrong(step)), last)
    chosen = []
    for i, step in enumerate(steps):
        is_learned = (
            learned == "all"
            or (learned == "last" and i == last)
            or (learned == "to_first_error" and i <= first_error)
        )
        chosen.append(step if is_learned else step._replace(label=None))
    return tuple(chosen)


def is_wrong(step: SolutionStep) -> bool:
    """Whether the step is labelled as wrong."""
    return step.label is not None and step.label < WRONG


def divide_run(
    run: Run, steps: Sequence[SolutionStep], separator: str, spelled: SpelledTokens
) -> Run:
    """The run with a part for each step and what separates it from the next; the last one has what ends the turn.

    Args:
        run: whose text may have marks for the special tokens that the steps spell out.
        steps: without marks.
        separator: text between two steps.
        spelled: of the marks.

    Raises:
        SetAside: if the steps do not stand in the rendered turn as they were given.
    """
    *others, answer = run.parts
    joined = separator.join(step.text for step in steps)
    start = spelled.unmark(answer.text).find(joined.strip())
    if start < 0:
        raise SetAside("the chat template changes the steps, or they are very long")
    start -= len(joined) - len(joined.lstrip())
    sizes = [len(step.text) + len(separator) for step in steps[:-1]]
    places = [max(start + end, 0) for end in accumulate(sizes)]
    ends = spelled.marked_places(answer.text, places)
    pieces = []
    for begin, end in zip([0, *ends], [*ends, len(answer.text)], strict=True):
        pieces.append(Part(answer.text[begin:end], answer.scored))
    return Run(run.prompt, [*others, *pieces])


def mark_ends(
    scored: Sequence[bool], lengths: Sequence[int], steps: Sequence[SolutionStep]
) -> list[bool]:
    """Which tokens of a response end a step that has a label.

    The last step ends with what ends the response.

    Args:
        scored: which tokens are the assistant's.
        lengths: tokens of the parts of the response, of which the last ones are the steps.
        steps: the steps.

    Raises:
        Malformed: if a step has no token.

    Example:
        A step of three tokens, its separator among them, one of two without a label, and one of two that ends the
        response with a third.

        >>> steps = [SolutionStep("a", 1.0), SolutionStep("b"), SolutionStep("c", 0.0)]
        >>> mark_ends([True] * 8, [3, 2, 2], steps)
        [False, False, True, False, False, False, False, True]
    """
    if 0 in lengths[len(lengths) - len(steps) : -1]:
        raise Malformed("a step without tokens")
    ends = [end - 1 for end in accumulate(lengths)][-len(steps) :]
    ends[-1] = max(place for place, is_scored in enumerate(scored) if is_scored)
    marks = [False] * len(scored)
    for end, step in zip(ends, steps, strict=True):
        marks[end] = step.label is not None
    return marks


def drop_cut_labels(
    group: Group, whole: Sequence[Sequence[bool]], kept: Sequence[Sequence[bool]]
) -> Group:
    """The group without the labels of steps whose end was cut off.

    Args:
        group: with its steps.
        whole: which tokens of each response ended a labelled step.
        kept: the same of what is left of the response.
    """
    responses = []
    for steps, before, after in zip(group.steps, whole, kept, strict=True):
        room = sum(after)
        remaining = [*steps]
        if room < sum(before):
            labelled = [i for i, step in enumerate(steps) if step.label is not None]
            for i in labelled[room:]:
                remaining[i] = steps[i]._replace(label=None)
        responses.append(tuple(remaining))
    return group._replace(steps=tuple(responses))
