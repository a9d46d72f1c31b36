"""What a teacher reads before the responses that a policy has sampled: the policy's prompt, or one that shows more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_align.data.scoring import UNLIMITED
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ModelError
from lit_align.types import Group, Text, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


def require_sampled(group: Group) -> None:
    """Refuse responses without token ids.

    Raises:
        ModelError: naming the row.
    """
    if not group.response_ids or any(ids is None for ids in group.response_ids):
        raise ModelError(f"the responses to {group.source} were not sampled by the policy; use RL")


def sampled_trees(group: Group, prompts: Sequence[list[int]]) -> list[Tree]:
    """The sampled responses under what the teacher reads before each: one tree where that is the same for all."""
    ids = [list(response or ()) for response in group.response_ids]
    scored = [[True] * len(response) for response in ids]
    if all(prompt == prompts[0] for prompt in prompts):
        return [Tree(prompts[0], ids, scored, group)]
    parts = zip(prompts, ids, scored, strict=True)
    return [Tree(prompt, [own], [mask], group) for prompt, own, mask in parts]


def encode_prompt(group: Group, tokenizer: PreTrainedTokenizerBase, as_chat: bool) -> list[int]:
    """Token ids of a group's prompt."""
    chat = ChatTokenizer(tokenizer, max_length=UNLIMITED, allow_empty=True, as_chat=as_chat)
    return chat.encode(group._replace(responses=[])).tree.prompt


def reads_chat(group: Group, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the policy read the prompt as turns of a chat.

    Raises:
        ModelError: if neither gives the tokens that it read.
    """
    for as_chat in (True, False):
        if encode_prompt(group, tokenizer, as_chat) == list(group.prompt_ids):
            return as_chat and bool(tokenizer.chat_template)
    raise ModelError(
        f"the prompt of {group.source} was tokenized otherwise than the teacher would; leave "
        "special_tokens_in_text and learned_turns at their defaults"
    )


def last_turn(prompt: Text) -> str:
    """The text of a prompt, or of the last of its turns."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def with_last_turn(prompt: Text, text: str) -> Text:
    """A prompt with other text in its last turn."""
    if isinstance(prompt, str):
        return text
    return [*prompt[:-1], {**prompt[-1], "content": text}]
