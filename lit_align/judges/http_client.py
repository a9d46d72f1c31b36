"""HTTP to a server that is not trusted: the whole answer has a deadline and a size limit, redirects are refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from httpx2 import AsyncByteStream, Response

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_ANSWER_BYTES = 8 * 2**20  # a judge's answer has some kilobytes; log-probabilities some more


class AnswerTooLarge(Exception):
    """The server sends more than `MAX_ANSWER_BYTES`, or bytes that would unpack to an unknown number."""


def check_url(url: str) -> None:
    """Refuse an address that holds a secret, or that is no address of an API.

    Raises:
        ValueError: with the remedy; the secret is not repeated.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "url holds a user name or password, which would be written into the run's config.yaml; remove it, and "
            "name the environment variable of the API key in key"
        )
    if parts.query or parts.fragment:
        raise ValueError(
            "url has a query or a fragment, which requests cannot keep and where keys end up in logs; give the address "
            "up to the version, such as http://localhost:8000/v1"
        )
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError(
            f"url is {url!r}, which is no http address; give one such as http://localhost:8000/v1"
        )


class BoundedClient:
    """Chat completions of an OpenAI-compatible server, for use from several threads.

    The timeouts of HTTP libraries hold between two bytes. This one holds for the whole answer, so a server that sends a
    byte now and then cannot stop a run.

    Args:
        url: of the API.
        api_key: sent with every request.
        timeout: seconds from the start of a request to the end of its answer.
    """

    def __init__(self, url: str, api_key: str, timeout: float) -> None:
        self.timeout = timeout
        # the first access imports modules for some tenths of a second, which are not the server's
        self._completions = _open_client(url, api_key, timeout).chat.completions
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="judge-http").start()

    def complete(self, **request: Any) -> Any:
        """The completion, as the server sent it.

        Raises:
            TimeoutError: if it is not complete after ``timeout`` seconds.
            openai.APIError: if the server refuses or sends no completion.
        """
        future = asyncio.run_coroutine_threadsafe(self._complete(request), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # if this thread was interrupted

    async def _complete(self, request: dict[str, Any]) -> Any:
        async with asyncio.timeout(self.timeout):
            return await self._completions.create(**request)


def _open_client(url: str, api_key: str, timeout: float) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    return AsyncOpenAI(
        base_url=url,
        api_key=api_key,
        timeout=timeout,
        max_retries=0,
        # packed bytes say nothing about the size of the answer
        default_headers={"Accept-Encoding": "identity"},
        http_client=DefaultAsyncHttpxClient(
            follow_redirects=False,  # the prompts are for the named server only
            timeout=timeout,
            event_hooks={"response": [_limit_size]},
        ),
    )


async def _limit_size(response: Response) -> None:
    """Let the body of a response end in an error once it is too large."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise AnswerTooLarge(f"an answer packed as {encoding}, which was not accepted")
    if isinstance(response.stream, AsyncByteStream):
        response.stream = _LimitedStream(response.stream)


class _LimitedStream(AsyncByteStream):
    def __init__(self, stream: AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > MAX_ANSWER_BYTES:
                raise AnswerTooLarge(f"an answer of more than {MAX_ANSWER_BYTES // 2**20} MiB")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
