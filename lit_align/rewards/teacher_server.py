"""A teacher behind an OpenAI-compatible server that gives each token of a prompt its log-probability, as vLLM does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align.checks import check_at_least, check_positive
from lit_align.errors import ModelError
from lit_align.models.samplers.base import SamplerFailure
from lit_align.models.samplers.engine_checks import check_tokenizer
from lit_align.models.samplers.engine_server import EngineServer
from lit_align.servers.http_client import check_url
from lit_align.servers.parallel import Job
from lit_align.servers.reply_checks import UnreadableReply, is_logp
from lit_align.types import Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TeacherServer:
    """A teacher behind an OpenAI-compatible server: it reads token ids and gives each its log-probability.

    The call is that of vLLM's completions with ``prompt_logprobs``
    (https://docs.vllm.ai/en/v0.26.0/api/vllm/entrypoints/openai/completion/protocol/), at temperature 1. The server's
    tokenizer is compared with the policy's. Checked against a server that speaks this call; with vLLM itself nothing
    is checked.

    Args:
        url: of the API, such as http://localhost:8000/v1.
        model: the name that the server has for it; null is the first one that it lists.
        concurrency: responses that it reads at a time.
        timeout: seconds that a whole answer may take.
        retries: further attempts after a transient error, with exponential backoff.
        key: the environment variable that has the API key.

    Raises:
        ValueError: if a number is out of range, or the address holds a secret.
    """

    url: str
    model: str | None = None
    concurrency: int = 16
    timeout: float = 600.0
    retries: int = 5
    key: str = "VLLM_API_KEY"

    def __post_init__(self) -> None:
        check_url(self.url)
        check_at_least("concurrency", self.concurrency, 1)
        check_at_least("retries", self.retries, 0)
        check_positive("timeout", self.timeout)

    def connect(self, tokenizer: PreTrainedTokenizerBase) -> ServedTeacher:
        """Find the model, and compare its tokenizer with the policy's.

        Raises:
            ModelError: if the server has no such model, or reads text as other tokens.
        """
        server = EngineServer(self.url, self.key, self.timeout, self.retries)
        names = server.names()
        matching = [name for name in names if self.model in (None, name.id)]
        if not matching:
            listed = ", ".join(repr(name.id) for name in names) or "nothing"
            raise ModelError(
                f"the server at {server.url} serves {listed}, and the teacher is {self.model!r}; set model of the "
                "teacher's server to one of them"
            )
        server.base, server.max_model_len = matching[0].id, matching[0].max_model_len
        check_tokenizer(server, tokenizer)
        return ServedTeacher(server, self.concurrency, tokenizer)


@dataclass(frozen=True)
class ServedTeacher:
    """A server that is known to read the policy's tokens.

    Args:
        server: to ask.
        concurrency: responses at a time.
        policy_tokenizer: the policy's, which is the server's.
    """

    server: EngineServer
    concurrency: int
    policy_tokenizer: PreTrainedTokenizerBase

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What prompts are encoded with."""
        return self.policy_tokenizer

    def token_logps(
        self, trees: Sequence[Tree], temperature: float, token_budget: int
    ) -> list[Tensor]:
        """Log-probabilities of the tokens of each response, in the order of ``trees``, at temperature 1."""
        rows = [(tree, response) for tree in trees for response in tree.responses]
        return Job(partial(self._ask), rows, self.concurrency).wait()

    def _ask(self, row: tuple[Tree, list[int]]) -> Tensor:
        tree, response = row
        server, ids = self.server, [*tree.prompt, *response]
        if server.max_model_len is not None and len(ids) >= server.max_model_len:
            raise ModelError(
                f"the teacher's prompt for {tree.group.source} and a response have {len(ids)} tokens, and the server "
                f"at {server.url} reads {server.max_model_len - 1}; show it less, or lower max_new_tokens"
            )
        body: dict[str, Any] = {"model": server.base, "prompt": ids, "max_tokens": 1}
        body |= {"temperature": 1.0, "seed": 0, "prompt_logprobs": 0}
        reason = ""
        for _ in range(server.retries + 1):
            try:
                return torch.tensor(_logps_of(server.complete(body), ids)[len(tree.prompt) :])
            except UnreadableReply as error:
                reason = str(error)
                if not error.retryable:
                    break
        raise SamplerFailure(f"the server at {server.url} sent {reason}", "correct the server")


def _logps_of(reply: Any, ids: Sequence[int]) -> list[float]:
    """The log-probability of each token of a prompt; 0 for the first, which nothing predicts.

    Raises:
        UnreadableReply: with a short reason.
    """
    try:
        given = reply["choices"][0]["prompt_logprobs"]
        entries = [entry[str(token)] for token, entry in zip(ids[1:], given[1:], strict=True)]
        logps = [entry["logprob"] for entry in entries]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UnreadableReply(
            "no prompt_logprobs of all tokens of a prompt although they were requested",
            retryable=True,
        ) from error
    for logp in logps:
        if not is_logp(logp) or not math.isfinite(logp):
            raise UnreadableReply(f"the log-probability {logp!r}")
    return [0.0, *logps]
