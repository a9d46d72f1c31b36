"""HTTP to a server that is not trusted: the whole answer has a deadline and a size limit, redirects are refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from httpx2 import AsyncByteStream, Response

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_ANSWER_BYTES = 8 * 2**20  # a judge's answer has some kilobytes; log-probabilities some more


class AnswerTooLarge(Exception):
    """The server sends more than it may, or bytes that would unpack to an unknown number."""


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
    """Requests to an OpenAI-compatible server, from several threads.

    The timeouts of HTTP libraries hold between two bytes. This one holds for the whole answer, so a server that sends a
    byte now and then cannot stop a run.

    Args:
        url: of the API.
        api_key: sent with every request.
        timeout: seconds from the start of a request to the end of its answer.
        max_bytes: of an answer.
    """

    def __init__(
        self, url: str, api_key: str, timeout: float, max_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        self.timeout = timeout
        self._client = _open_client(url, api_key, timeout, max_bytes)
        # the first access imports modules for some tenths of a second, which are not the server's
        self._completions = self._client.chat.completions
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="http-client").start()

    def complete(self, **request: Any) -> Any:
        """The completion of a chat, as the server sent it.

        Raises:
            TimeoutError: if it is not complete after ``timeout`` seconds.
            openai.APIError: if the server refuses or sends no completion.
        """
        return self._wait(self._completions.create(**request))

    def get(self, path: str) -> str:
        """What is at a path below the address of the API, or at a whole address.

        Raises:
            TimeoutError: if it is not complete after ``timeout`` seconds.
            openai.APIError: if the server refuses.
        """
        return str(self._wait(self._client.get(path, cast_to=Response)).text)

    def post(self, path: str, body: dict[str, Any]) -> str:
        """What is sent back for the JSON of ``body``; errors as of `get`."""
        return str(self._wait(self._client.post(path, cast_to=Response, body=body)).text)

    def _wait(self, request: Awaitable[Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(self._bounded(request), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # if this thread was interrupted

    async def _bounded(self, request: Awaitable[Any]) -> Any:
        async with asyncio.timeout(self.timeout):
            return await request


def _open_client(url: str, api_key: str, timeout: float, max_bytes: int) -> AsyncOpenAI:
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
            event_hooks={"response": [partial(_limit_size, max_bytes)]},
        ),
    )


async def _limit_size(max_bytes: int, response: Response) -> None:
    """Let the body of a response end in an error once it is too large."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise AnswerTooLarge(f"an answer packed as {encoding}, which was not accepted")
    if isinstance(response.stream, AsyncByteStream):
        response.stream = _LimitedStream(response.stream, max_bytes)


class _LimitedStream(AsyncByteStream):
    def __init__(self, stream: AsyncByteStream, max_bytes: int) -> None:
        self._stream, self._max_bytes = stream, max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > self._max_bytes:
                raise AnswerTooLarge(f"an answer of more than {self._max_bytes // 2**20} MiB")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
