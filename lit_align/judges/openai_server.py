"""A judge behind an OpenAI-compatible server: asked at once, paid for once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lit_align.errors import ModelError
from lit_align.judges.base import JudgeModel, Reply, parse_verdict

if TYPE_CHECKING:
    from openai import OpenAI

AGAIN = (408, 409, 425, 429)  # and everything from 500: the same question may be answered later
HOPELESS = 10  # questions in a row without an answer, after all retries
LONGEST = 30.0  # seconds between two attempts, unless the server names a time
PATIENCE = 300.0  # seconds that it may name; after a longer time the question has no answer
ONE = (
    400,
    413,
    422,
)  # what is said of one question that is too long, or not allowed, as well as of wrong settings


class Said(NamedTuple):
    """An answer as it is kept.

    Args:
        text: what was said.
        top: the likeliest first tokens with their log-probabilities; None if the server gave none.
        tokens: read and written.
        seconds: that the last attempt took.
        attempts: until it came.
        cut: whether max_tokens ended it.
    """

    text: str
    top: list[tuple[str, float]] | None
    tokens: tuple[int, int]
    seconds: float
    attempts: int
    cut: bool = False


@dataclass(frozen=True)
class OpenAIServer(JudgeModel):
    """A model that a server has, such as vLLM's or a paid one's.

    An answer is written into a file before it is used, so that no run pays twice for a question; what could not be read
    counts as an answer, what never came does not. A question that alone is refused, say as too long, has no answer.

    Args:
        url: of the API, such as http://localhost:8000/v1.
        model: its name there.
        read: ``text`` takes the verdict from what is said; ``logprobs`` from the probabilities of the first token, for
            which every option must be one token. Some servers ignore that they are asked for them, and are refused.
        max_tokens: of a verdict in text; more for a model that thinks aloud and ends with the verdict.
        extra: further fields of the request, such as chat_template_kwargs.
        concurrency: questions under way at once.
        timeout: seconds to wait for an answer.
        retries: further attempts at a question, with growing pauses, after an error that may pass.
        max_calls: attempts that this run may make; null for no limit.
        max_cost: what this run may spend, checked before each attempt; those under way are still paid.
        prices: of a million tokens read, and of a million written.
        cache: file of the answers, by server, name of the model, and question; null keeps none. Where other weights
            get the same name, give another file.
        key: the environment variable that has the API key.

    Raises:
        ValueError: if a number is out of range.
        ModelError: if the server refuses, if nobody answers any more, or if it has no log-probabilities.
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

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0 or self.max_tokens < 1 or not self.timeout > 0:
            raise ValueError(
                "concurrency and max_tokens must be at least 1, retries at least 0 and timeout above 0, got "
                f"{self.concurrency}, {self.max_tokens}, {self.retries} and {self.timeout}"
            )
        if self.max_cost is not None and not any(self.prices):
            raise ValueError(
                "max_cost needs prices: what a million tokens cost that are read, and written"
            )

    def choose_option(self, questions: Sequence[str], options: Sequence[str]) -> list[Reply]:
        more = {"logprobs": True, "top_logprobs": 20} if self.read == "logprobs" else {}
        found = self._ask(questions, 1 if more else self.max_tokens, more)
        return [
            reply if said is None else self._verdict(reply, said, options) for reply, said in found
        ]

    def generate(self, questions: Sequence[str], max_tokens: int) -> list[Reply]:
        return [reply for reply, _ in self._ask(questions, max_tokens, {})]

    def _verdict(self, reply: Reply, said: Said, options: Sequence[str]) -> Reply:
        if self.read == "text":
            named = parse_verdict(said.text, options)
            mass = [float(option == named) for option in options]
        elif said.top is None:
            raise ModelError(
                f"the server at {self.url} ignores that it is asked for log-probabilities; set read of OpenAIServer to text"
            )
        else:
            mass = [
                sum(math.exp(p) for token, p in said.top if token.strip() == option)
                for option in options
            ]
        if not sum(mass):
            return reply._replace(reason="a verdict that cannot be read")
        record = {**reply.record, "mass": sum(mass)} if said.top else reply.record
        return reply._replace(probabilities=tuple(one / sum(mass) for one in mass), record=record)

    def _ask(
        self, questions: Sequence[str], max_tokens: int, more: dict[str, Any]
    ) -> list[tuple[Reply, Said | None]]:
        """An answer to each question, from the file or from the server; equal questions are asked once."""
        fixed = {
            "model": self.model,
            "temperature": 0.0,
            "max_tokens": max_tokens,
            **more,
            "extra_body": self.extra,
        }
        requests = [
            {**fixed, "messages": [{"role": "user", "content": question}]} for question in questions
        ]
        names = [
            hashlib.sha256(json.dumps([self.url, one], sort_keys=True).encode()).hexdigest()
            for one in requests
        ]
        known = {name: kept for name in names if (kept := self._answers.get(name))}
        new = {
            name: request
            for name, request in zip(names, requests, strict=True)
            if name not in known
        }
        _ = self._client  # made before there are threads, which would each make one
        self._state.over.clear()
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            came = dict(zip(new, pool.map(self._answer, new, new.values()), strict=True))
        except BaseException:  # nobody is to wait for those who pause
            self._state.over.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        self._state.answers += len(known)
        if self._state.refused and not self._state.answers:
            raise ModelError(
                f"the server at {self.url} refuses: {self._state.refused}; correct the settings of OpenAIServer"
            )
        found: list[tuple[Reply, Said | None]] = []
        for name in names:
            said = known.get(name) or came[name]
            if isinstance(said, str):
                found.append((Reply(None, "", {"cost": 0.0, "seconds": 0.0}, said), None))
                continue
            paid = name not in known
            spent = {
                "cost": self._cost(said.tokens),
                "seconds": said.seconds,
                "attempts": said.attempts,
            }
            record = {**{what: much * paid for what, much in spent.items()}, "cached": not paid}
            known[name] = said  # a question that comes again in this call costs no more either
            found.append((Reply(None, said.text, record, truncated=said.cut), said))
        return found

    def _answer(self, name: str, request: dict[str, Any]) -> Said | str:
        """What the server says, written down; or why there is nothing."""
        why = ""
        for attempt in range(self.retries + 1):
            if stop := self._state.stop(self):
                return stop
            began = time.perf_counter()
            why, pause, reply = self._attempt(name, request)
            if reply is not None:
                text, top, tokens, cut = reply
                said = Said(text, top, tokens, time.perf_counter() - began, attempt + 1, cut)
                self._answers.put(name, said)
                self._state.answered(self._cost(said.tokens))
                return said
            if pause is None:
                break
            if attempt < self.retries:
                self._state.pause(
                    pause or min(0.5 * 2**attempt, LONGEST) * random.uniform(0.75, 1.0)
                )
        self._state.unanswered(why)
        return f"no answer ({why})"

    def _attempt(
        self, name: str, request: dict[str, Any]
    ) -> tuple[
        str, float | None, tuple[str, list[tuple[str, float]] | None, tuple[int, int], bool] | None
    ]:
        """Why it failed and how long to wait (None: for ever), or text, log-probabilities, tokens, whether cut."""
        import openai

        try:
            reply: Any = self._client.chat.completions.create(
                **request, extra_headers={"Idempotency-Key": name}
            )
        except openai.APIStatusError as error:
            if error.status_code in ONE:
                body: Any = error.body
                told = str(
                    body["message"]
                    if isinstance(body, dict) and "message" in body
                    else error.message
                )
                self._state.refused = str(error)
                return f"status {error.status_code}: {told.partition('. ')[0]}", None, None
            if error.status_code not in AGAIN and error.status_code < 500:
                raise ModelError(
                    f"the server at {self.url} refuses: {error}; correct the settings of OpenAIServer"
                ) from error
            named = error.response.headers.get("retry-after", "")
            pause = float(named) if named.isdigit() else 0.0
            return f"status {error.status_code}", pause if pause <= PATIENCE else None, None
        except openai.APITimeoutError:
            return f"no answer in {self.timeout:g} s", 0.0, None
        except (
            openai.APIError,
            ValueError,
        ) as error:  # the latter from a body that is no whole JSON
            return f"{type(error).__name__}", 0.0, None
        choices = getattr(reply, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            return "a reply without a choice", 0.0, None
        probabilities = getattr(choices[0].logprobs, "content", None)
        top = (
            [(one.token, one.logprob) for one in probabilities[0].top_logprobs or ()]
            if probabilities
            else None
        )
        usage = reply.usage
        tokens = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
        return (
            "",
            0.0,
            (choices[0].message.content or "", top, tokens, choices[0].finish_reason == "length"),
        )

    def _cost(self, tokens: tuple[int, int]) -> float:
        return sum(price * n for price, n in zip(self.prices, tokens, strict=True)) / 1e6

    @cached_property
    def _client(self) -> OpenAI:
        from openai import OpenAI

        return OpenAI(
            base_url=self.url,
            api_key=os.environ.get(self.key) or "none",
            timeout=self.timeout,
            max_retries=0,
        )

    @cached_property
    def _answers(self) -> _Answers:
        return _Answers(self.cache)

    @cached_property
    def _state(self) -> _State:
        return _State()


class _State:
    """What this run has asked and spent so far."""

    def __init__(self) -> None:
        self.lock, self.calls, self.cost, self.in_vain, self.last = Lock(), 0, 0.0, 0, ""
        self.answers, self.refused, self.over = 0, "", Event()

    def stop(self, limits: OpenAIServer) -> str:
        """Why not to make another attempt; counts one otherwise."""
        with self.lock:
            if self.over.is_set():
                return "stopped"
            if self.in_vain >= HOPELESS:
                raise ModelError(
                    f"the server at {limits.url} left {self.in_vain} questions in a row without an answer (last: "
                    f"{self.last}); what came before is kept: run it again when the server is well"
                )
            if limits.max_calls is not None and self.calls >= limits.max_calls:
                return f"max_calls, {limits.max_calls}, is reached"
            if limits.max_cost is not None and self.cost >= limits.max_cost:
                return f"max_cost, {limits.max_cost:g}, is reached"
            self.calls += 1
            return ""

    def pause(self, seconds: float) -> None:
        self.over.wait(seconds)

    def answered(self, cost: float) -> None:
        with self.lock:
            self.cost, self.in_vain, self.answers = self.cost + cost, 0, self.answers + 1

    def unanswered(self, why: str) -> None:
        with self.lock:
            self.in_vain, self.last = self.in_vain + 1, why


class _Answers:
    """A file of answers by the content of their questions; each is whole or not there, whenever the process dies."""

    def __init__(self, path: str | None) -> None:
        file = Path(path).expanduser() if path else None
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        self.lock = Lock()
        self.file = sqlite3.connect(
            file or ":memory:", timeout=60, check_same_thread=False, isolation_level=None
        )
        self.file.execute(
            "CREATE TABLE IF NOT EXISTS answers (name TEXT PRIMARY KEY, said TEXT NOT NULL)"
        )

    def get(self, name: str) -> Said | None:
        with self.lock:
            row = self.file.execute("SELECT said FROM answers WHERE name = ?", (name,)).fetchone()
        return None if row is None else Said(*json.loads(row[0]))

    def put(self, name: str, said: Said) -> None:
        with self.lock:
            self.file.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (name, json.dumps(said))
            )
