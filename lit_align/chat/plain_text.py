"""Plain prompts and responses as turns of a chat."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lit_align.types import Group, Message, Text

PLAIN_TEXT = "plain text"
"""What ``provenance.json`` says of an adapter whose prompts were no turns."""

ROLES = {"Human": "user", "User": "user", "Assistant": "assistant", "System": "system"}
HUMAN_ASSISTANT = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):")
"""Marks of the turns in Anthropic's HH data and its relatives."""
EXTRA_ID = re.compile(r"\s*<extra_id_[01]>(System|User|Assistant)\n?")
"""Marks of the turns after the first in HelpSteer's data."""


def as_chat(group: Group) -> Group | None:
    """The group with its text as turns of user and assistant; None if it is no question with answers in plain text.

    Marks of turns within the prompt, as in the HH and HelpSteer data, become turns.

    Example:
        >>> as_chat(Group("2 + 2?", [" 4"]))[:2]
        ([{'role': 'user', 'content': '2 + 2?'}], [[{'role': 'assistant', 'content': '4'}]])
    """
    prompt = group.prompt
    if not isinstance(prompt, str) or group.continues or not prompt.strip():
        return None
    responses: list[Text] = []
    for response in group.responses:
        if not isinstance(response, str):
            return None
        responses.append([{"role": "assistant", "content": response.strip()}])
    turns = dialogue_turns(prompt) or [{"role": "user", "content": prompt.strip()}]
    return group._replace(prompt=turns, responses=responses)


def is_plain_text_adapter(folder: Path) -> bool:
    """Whether the adapter in ``folder`` was trained on prompts in plain text, as its provenance says."""
    file = folder.expanduser() / "provenance.json"
    if not file.is_file():
        return False
    provenance = json.loads(file.read_text("utf-8"))
    return bool(provenance.get("prompts") == PLAIN_TEXT)


def dialogue_turns(text: str) -> list[Message]:
    r"""The turns of a dialogue that is spelled out in a prompt; empty if it is none, or ends within an answer.

    Example:
        >>> dialogue_turns("\n\nHuman: Hi\n\nAssistant:")
        [{'role': 'user', 'content': 'Hi'}]
        >>> [turn["role"] for turn in dialogue_turns("Hi<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nBye")]
        ['user', 'assistant', 'user']
    """
    for marks, first_role in ((HUMAN_ASSISTANT, None), (EXTRA_ID, "User")):
        before, *pieces = marks.split(text)
        if not pieces:
            continue
        if before.strip():
            pieces = [first_role, before, *pieces]
        turns = _turns(pieces)
        if turns and turns[-1]["role"] == "user":
            return turns
    return []


def _turns(pieces: list[str | None]) -> list[Message]:
    """Turns of alternating names and contents; empty if text stands before the first name."""
    turns = []
    for name, content in zip(pieces[::2], pieces[1::2], strict=True):
        if name is None:
            return []
        if content and content.strip():
            turns.append({"role": ROLES[name], "content": content.strip()})
    return turns
