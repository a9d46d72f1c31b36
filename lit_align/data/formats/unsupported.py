"""Public sets that no format can read as they are: why, and what to do instead."""

from __future__ import annotations

from typing import NamedTuple

from lit_align.data.formats.base import HUB, Row


class Unsupported(NamedTuple):
    """A set: its columns, where it is published, and a sentence with the reason and the remedy."""

    name: str
    columns: frozenset[str]
    source: str
    reason: str


SETS = (
    Unsupported(
        "PRM800K",
        frozenset({"question", "label", "labeler"}),
        "https://github.com/openai/prm800k",
        "its steps are a choice among several at each place; write question.problem into a column prompt, the steps of "
        "one solution into a column completions, and whether each has a rating over -1 into a column labels",
    ),
    Unsupported(
        "Math-Shepherd",
        frozenset({"input", "label", "task"}),
        HUB + "peiyi9979/Math-Shepherd",
        "its steps and their labels are marks within two texts; write the question into a column prompt, the steps "
        "into a column completions, and whether each ends with + into a column labels, as trl-lib/math_shepherd does",
    ),
    Unsupported(
        "HelpSteer3's quality of edits",
        frozenset({"context", "good_edited_response", "bad_edited_response"}),
        HUB + "nvidia/HelpSteer3",
        "a good edit is one that follows the feedback, which the prompt does not show; write the context, "
        "original_response and feedback into a column prompt, and the edits into chosen and rejected",
    ),
    Unsupported(
        "HelpSteer3's edits",
        frozenset({"context", "original_response", "edited_response"}),
        HUB + "nvidia/HelpSteer3",
        "nobody compared the two responses; if every edit is better, set data.columns: {prompt: context, chosen: "
        "edited_response, rejected: original_response}",
    ),
    Unsupported(
        "HelpSteer3's principles",
        frozenset({"context", "response", "principle", "fulfilment"}),
        HUB + "nvidia/HelpSteer3",
        "its label is whether the response fulfils the principle, which the prompt does not show; write context and "
        "principle into a column prompt, response into completion, and whether it is fulfilled into label",
    ),
    Unsupported(
        "HelpSteer3's feedback",
        frozenset({"context", "response", "feedback"}),
        HUB + "nvidia/HelpSteer3",
        "its feedback is text, not a label; to imitate the responses set data.columns: {prompt: context, completion: "
        "response}",
    ),
    Unsupported(
        "PKU-SafeRLHF with the safer response alone",
        frozenset({"prompt", "response_0", "response_1", "safer_response_id"}),
        HUB + "PKU-Alignment/PKU-SafeRLHF",
        "its only label is the safer response; set data.format: {class_path: PKUSafeRLHF, init_args: {label: safer}}",
    ),
    Unsupported(
        "HH-RLHF's red teaming",
        frozenset({"transcript", "rating", "task_description"}),
        HUB + "Anthropic/hh-rlhf",
        "its rating is how well an attack went, not how good the answers are; keep the dialogues that you want to "
        "imitate, as turns in a column messages",
    ),
    Unsupported(
        "Glaive's function calls",
        frozenset({"system", "chat"}),
        HUB + "glaiveai/glaive-function-calling-v2",
        "its dialogue is one text that marks speakers and calls in a way of its own; write it as turns into a column "
        "messages, and the functions of system into a column tools",
    ),
)


def why_unsupported(row: Row) -> str:
    """Why a row with these columns cannot be read, and what to do; empty if nothing is known about them.

    Example:
        >>> why_unsupported({"question": {}, "label": {}, "labeler": "a"})[:66]
        'its columns are those of https://github.com/openai/prm800k, and it'
    """
    for unsupported in SETS:
        if unsupported.columns <= row.keys():
            return f"its columns are those of {unsupported.source}, and {unsupported.reason}"
    return ""
