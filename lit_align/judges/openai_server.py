"""A judge behind an OpenAI-compatible server: parallel requests, retries, spending limits and an answer cache."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Literal

from lit_align import Register, hookimpl
from lit_align.errors import ModelError
from lit_align.judges.answer_cache import AnswerCache, ServerAnswer
from lit_align.judges.base import JudgeModel, Reply, parse_verdict
from lit_align.judges.server_reply import parse_completion
from lit_align.servers.http_client import AnswerTooLarge, BoundedClient, check_url
from lit_align.servers.reply_checks import UnreadableReply
from lit_align.servers.retries import Failure, is_retryable, redirect_target, status_failure

if TYPE_CHECKING:
    from openai import APIStatusError

QUESTION_STATUS = (
    400,
    413,
    422,
)  # the question is too long or not allowed, or the settings are wrong
MAX_FAILURES = 10  # questions in a row without an answer, after all retries
UNREADABLE = "a verdict that cannot be read"


@dataclass(frozen=True)
class OpenAIServer(JudgeModel):
    """A model served by an OpenAI-compatible API, such as vLLM's or a commercial one.

    Every answer is cached on disk before it is used, so that no run pays twice for a question. An unreadable verdict
    counts as an answer; a failed request does not. A single question that the server rejects, for example because it is
    too long, stays without an answer.

    Args:
        url: of the API, such as http://localhost:8000/v1.
        model: its name there.
        read: ``text`` parses the verdict from the generated text; ``logprobs`` takes the probabilities of the first
            token, for which every option must be one token. A server that returns none is refused.
        max_tokens: of a verdict in text; more for a model that reasons first and ends with the verdict.
        extra: further fields of the request, such as chat_template_kwargs.
        concurrency: parallel requests.
        timeout: seconds that a whole answer may take, from the request to its last byte.
        retries: further attempts at a question after a transient error, with exponential backoff.
        max_calls: attempts that this run may make; null for no limit.
        max_cost: what this run may spend, checked before each attempt; requests in flight are still paid.
        prices: of a million prompt tokens, and of a million completion tokens.
        cache: file of the answers, by server, name of the model, and question; null for no file. Use another file when
            other weights get the same name.
        key: the environment variable that has the API key.

    Raises:
        ValueError: if a number is out of range, or the address holds a secret.
        ModelError: if the server refuses all requests, stops answering, or returns no log-probabilities.
    """

    url: str
    model: str
    read: Literal["text", "logprobs"] = "text"
    max_tokens: int = 16
    extra: dict[str, Any] | None = None
    concurrency: int = 8
    timeout: float = 60.0
    retries: int = 5
    max_calls: int | None = None
    max_cost: float | None = None
    prices: tuple[float, float] = (0.0, 0.0)
    cache: str | None = "~/.cache/lit_align/answers.sqlite"
    key: str = "OPENAI_API_KEY"

    depends_on = ("lit_align.judges.server_reply",)
    writes = ("cache",)

    def __post_init__(self) -> None:
        check_url(self.url)
        if self.concurrency < 1 or self.retries < 0 or self.max_tokens < 1 or not self.timeout > 0:
            raise ValueError(
                "concurrency and max_tokens must be at least 1, retries at least 0 and timeout above 0, got "
                f"{self.concurrency}, {self.max_tokens}, {self.retries} and {self.timeout}"
            )
        if self.max_cost is not None and not any(self.prices):
            raise ValueError(
                "max_cost needs prices: the cost of a million prompt tokens, and of a million completion tokens"
            )

    def choose_option(self, questions: Sequence[str], options: Sequence[str]) -> list[Reply]:
        if self.read == "logprobs":
            results = self._ask(questions, 1, {"logprobs": True, "top_logprobs": 20})
        else:
            results = self._ask(questions, self.max_tokens)
        replies = []
        for reply, answer in results:
            replies.append(reply if answer is None else self._verdict(reply, answer, options))
        return replies

    def generate(self, questions: Sequence[str], max_tokens: int) -> list[Reply]:
        return [reply for reply, _ in self._ask(questions, max_tokens)]

    def _verdict(self, reply: Reply, answer: ServerAnswer, options: Sequence[str]) -> Reply:
        """The reply with the probability of each option."""
        if self.read == "text":
            choice = parse_verdict(answer.text, options)
            weights = [float(option == choice) for option in options]
        elif answer.top_logprobs is None:
            raise ModelError(
                f"the server at {self.url} returned no log-probabilities although they were requested; set read of "
                "OpenAIServer to text"
            )
        else:
            weights = _option_weights(answer.top_logprobs, options)
        mass = sum(weights)
        if not mass:
            return reply._replace(reason=UNREADABLE)
        record = {**reply.record, "mass": mass} if answer.top_logprobs else reply.record
        return reply._replace(
            probabilities=tuple(weight / mass for weight in weights), record=record
        )

    def _ask(
        self, questions: Sequence[str], max_tokens: int, options: dict[str, Any] | None = None
    ) -> list[tuple[Reply, ServerAnswer | None]]:
        """An answer to each question, from the cache or from the server; equal questions are sent once."""
        requests: dict[str, dict[str, Any]] = {}
        keys = []
        for question in questions:
            request = self._request(question, max_tokens, options or {})
            keys.append(self._request_key(request))
            requests[keys[-1]] = request
        available: dict[str, ServerAnswer] = {}
        for key in requests:
            answer = self._answer_cache.get(key)
            if answer is not None:
                available[key] = answer
        self._state.num_answers += len(available)
        pending = {key: request for key, request in requests.items() if key not in available}
        fetched = self._fetch(pending)
        if self._state.rejection and not self._state.num_answers:
            raise self._refusal(self._state.rejection)
        results: list[tuple[Reply, ServerAnswer | None]] = []
        for key in keys:
            result = available.get(key) or fetched[key]
            if isinstance(result, str):
                reply = Reply(None, "", {"cost": 0.0, "seconds": 0.0}, result)
                results.append((reply, None))
                continue
            record = self._record(result, cached=key in available)
            available[key] = result  # a repeated question in this call costs nothing
            reply = Reply(None, result.text, record, truncated=result.truncated)
            results.append((reply, result))
        return results

    def _request(self, question: str, max_tokens: int, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "model": self.model,
            "temperature": 0.0,
            "max_tokens": max_tokens,
            **options,
            "extra_body": self.extra,
            "messages": [{"role": "user", "content": question}],
        }

    def _request_key(self, request: dict[str, Any]) -> str:
        content = json.dumps([self.url, request], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _record(self, answer: ServerAnswer, *, cached: bool) -> dict[str, Any]:
        """What this answer cost; a cached one is free."""
        if cached:
            return {"cost": 0.0, "seconds": 0.0, "attempts": 0, "cached": True}
        return {
            "cost": self._cost(answer.tokens),
            "seconds": answer.seconds,
            "attempts": answer.attempts,
            "cached": False,
        }

    def _cost(self, tokens: tuple[int, int]) -> float:
        return sum(price * n for price, n in zip(self.prices, tokens, strict=True)) / 1e6

    def _fetch(self, requests: dict[str, dict[str, Any]]) -> dict[str, ServerAnswer | str]:
        """Send the requests in parallel; a request without an answer gets the reason as text."""
        _ = self._client  # created before the threads, each of which would create one
        self._state.stopped.clear()
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            answers = pool.map(self._answer, requests, requests.values())
            return dict(zip(requests, answers, strict=True))
        except BaseException:  # wake the threads that wait between two attempts
            self._state.stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _answer(self, key: str, request: dict[str, Any]) -> ServerAnswer | str:
        """Send one request, with retries; the answer is cached, or the reason why there is none."""
        reason = ""
        for attempt in range(self.retries + 1):
            stop_reason = self._state.start_attempt(self)
            if stop_reason:
                return stop_reason
            start = time.perf_counter()
            result = self._attempt(key, request)
            if isinstance(result, ServerAnswer):
                seconds = time.perf_counter() - start
                answer = result._replace(seconds=seconds, attempts=attempt + 1)
                self._answer_cache.put(key, answer)
                self._state.add_answer(self._cost(answer.tokens))
                return answer
            reason = result.reason
            if result.delay is None:
                break
            if attempt < self.retries:
                self._state.pause(result.wait_before(attempt))
        self._state.add_failure(reason)
        return f"no answer ({reason})"

    def _attempt(self, key: str, request: dict[str, Any]) -> ServerAnswer | Failure:
        import openai

        try:
            completion = self._client.complete(**request, extra_headers={"Idempotency-Key": key})
            return parse_completion(completion, request["max_tokens"])
        except openai.APIStatusError as error:
            return self._status_failure(error)
        except (openai.APITimeoutError, TimeoutError):
            return Failure(f"no complete answer in {self.timeout:g} s")
        except AnswerTooLarge as error:
            return Failure(str(error), delay=None)
        except UnreadableReply as error:
            return Failure(str(error), delay=0.0 if error.retryable else None)
        except (openai.APIError, ValueError) as error:  # ValueError: the body is no complete JSON
            return Failure(type(error).__name__)

    def _status_failure(self, error: APIStatusError) -> Failure:
        status = error.status_code
        if status in QUESTION_STATUS:
            body: Any = error.body
            has_message = isinstance(body, dict) and "message" in body
            message = str(body["message"] if has_message else error.message)
            self._state.rejection = str(error)
            return Failure(f"status {status}: {message.partition('. ')[0]}", delay=None)
        target = redirect_target(error)
        if target is not None:
            raise ModelError(
                f"the server at {self.url} redirects to {target}, where prompts are not sent; if that server is meant, "
                "set its address as the url of OpenAIServer"
            ) from error
        if not is_retryable(status):
            raise self._refusal(error) from error
        return status_failure(error)

    def _refusal(self, error: object) -> ModelError:
        return ModelError(
            f"the server at {self.url} refuses: {error}; correct the settings of OpenAIServer"
        )

    @cached_property
    def _client(self) -> BoundedClient:
        return BoundedClient(self.url, os.environ.get(self.key) or "none", self.timeout)

    @cached_property
    def _answer_cache(self) -> AnswerCache:
        return AnswerCache(self.cache)

    @cached_property
    def _state(self) -> RequestState:
        return RequestState()


def _option_weights(top_logprobs: list[tuple[str, float]], options: Sequence[str]) -> list[float]:
    """Probability of each option as the first token, blanks around it ignored."""
    weights = []
    for option in options:
        logps = [logp for token, logp in top_logprobs if token.strip() == option]
        weights.append(sum(map(math.exp, logps)))
    return weights


class RequestState:
    """Attempts, costs and failures of this run so far, shared by the threads."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.stopped = Event()
        self.calls = 0
        self.cost = 0.0
        self.num_answers = 0
        self.failures_in_a_row = 0
        self.last_failure = ""
        self.rejection = ""

    def start_attempt(self, limits: OpenAIServer) -> str:
        """Count an attempt; or the reason not to make one."""
        with self.lock:
            if self.stopped.is_set():
                return "stopped"
            if self.failures_in_a_row >= MAX_FAILURES:
                raise ModelError(
                    f"the server at {limits.url} left {self.failures_in_a_row} questions in a row without an answer "
                    f"(last: {self.last_failure}); the answers so far are cached: run it again when the server is back"
                )
            if limits.max_calls is not None and self.calls >= limits.max_calls:
                return f"max_calls, {limits.max_calls}, is reached"
            if limits.max_cost is not None and self.cost >= limits.max_cost:
                return f"max_cost, {limits.max_cost:g}, is reached"
            self.calls += 1
            return ""

    def pause(self, seconds: float) -> None:
        """Wait between two attempts, unless the run is stopped."""
        self.stopped.wait(seconds)

    def add_answer(self, cost: float) -> None:
        with self.lock:
            self.cost += cost
            self.failures_in_a_row = 0
            self.num_answers += 1

    def add_failure(self, reason: str) -> None:
        with self.lock:
            self.failures_in_a_row += 1
            self.last_failure = reason


@hookimpl
def register_judges(register: Register) -> None:
    register(OpenAIServer)
