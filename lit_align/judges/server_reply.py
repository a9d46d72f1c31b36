"""Read a chat completion of a server that may send anything."""

from __future__ import annotations

from typing import Any

from lit_align.judges.answer_cache import ServerAnswer
from lit_align.servers.reply_checks import UnreadableReply, is_count, is_logp

MAX_CHARACTERS_PER_TOKEN = (
    64  # on average over an answer; text has about 4, long runs of blanks more
)


def parse_completion(completion: Any, max_tokens: int) -> ServerAnswer:
    """The answer in a chat completion.

    Args:
        completion: as the OpenAI client returns it, which checks no types.
        max_tokens: tokens that were asked for; a much longer text is no answer to this request.

    Raises:
        UnreadableReply: with a short reason.
    """
    try:
        choice = completion.choices[0]
        text = choice.message.content or ""
        content = getattr(choice.logprobs, "content", None)
        first = content[0].top_logprobs or () if content else None
        top_logprobs = None if first is None else [(str(top.token), top.logprob) for top in first]
        usage = completion.usage
        counts = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UnreadableReply("a reply without a choice", retryable=True) from error
    if not isinstance(text, str):
        raise UnreadableReply("a reply whose content is not text")
    if len(text) > MAX_CHARACTERS_PER_TOKEN * max_tokens:
        raise UnreadableReply(f"a reply far longer than max_tokens {max_tokens}")
    if not all(is_count(count) for count in counts):
        raise UnreadableReply("a reply with impossible token counts")
    if not all(is_logp(logp) for _, logp in top_logprobs or ()):
        raise UnreadableReply("a reply with impossible log-probabilities")
    return ServerAnswer(text, top_logprobs, counts, truncated=choice.finish_reason == "length")
