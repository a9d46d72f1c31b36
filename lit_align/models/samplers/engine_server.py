"""The calls of an engine's HTTP API: what it serves, its tokenizer, adapters, completions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cached_property, partial
from threading import Event
from typing import Any, NamedTuple

from lit_align.errors import LitAlignError, ModelError
from lit_align.models.samplers.base import SamplerFailure
from lit_align.servers.http_client import AnswerTooLarge, BoundedClient
from lit_align.servers.retries import (
    Failure,
    is_retryable,
    redirect_target,
    status_failure,
    status_message,
)

MAX_COMPLETION_BYTES = 256 * 2**20
"""Of an answer; a thousand completions of a thousand tokens with their log-probabilities have about half of that."""

NOT_FOUND = 404
KEY_REFUSED = (401, 403)


class ServedName(NamedTuple):
    """One name that a server answers to.

    Args:
        id: the name.
        root: path of its weights.
        parent: name of the base, of an adapter; None of a base.
        max_model_len: positions of a prompt and its completion; None if the server does not say.
    """

    id: str
    root: str
    parent: str | None
    max_model_len: int | None


class Refused(LitAlignError):
    """A server refuses a request, and would again.

    Args:
        status: of HTTP.
        message: what the server says.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"status {status}: {message}")
        self.status, self.message = status, message


class EngineServer:
    """An OpenAI-compatible server that loads LoRA adapters while it runs.

    Args:
        url: of the API, up to the version.
        key: the environment variable that has the API key.
        timeout: seconds that a whole answer may take.
        retries: further attempts after a transient error.
    """

    def __init__(self, url: str, key: str, timeout: float, retries: int) -> None:
        self.url = url.rstrip("/")
        self.key, self.timeout, self.retries = key, timeout, retries
        self.base = ""  # the name of the base here, once it is known
        self.max_model_len: int | None = None
        self._stopped = Event()

    @cached_property
    def _client(self) -> BoundedClient:
        key = os.environ.get(self.key) or "none"
        return BoundedClient(self.url, key, self.timeout, MAX_COMPLETION_BYTES)

    @property
    def _root(self) -> str:
        """Address of what is not part of OpenAI's API."""
        return self.url.removesuffix("/v1")

    def names(self) -> list[ServedName]:
        """All names that it answers to, adapters included."""
        try:
            answer = self._json("list its models", partial(self._client.get, "/models"))
            return [_served_name(entry) for entry in answer["data"]]
        except Refused as error:
            raise ModelError(
                f"there is no list of models at {self.url}/models ({error}); give urls of Served the address of the "
                "API, which ends in /v1, such as http://localhost:8000/v1"
            ) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the server at {self.url} does not list its models as JSON"
            ) from error

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens around it."""
        body = {"model": self.base, "prompt": text, "add_special_tokens": False}
        answer = self._post_root("tokenize a text", "/tokenize", body)
        return list(answer["tokens"]) if isinstance(answer, dict) and "tokens" in answer else []

    def detokenize(self, ids: list[int]) -> str:
        """The text of token ids."""
        body = {"model": self.base, "tokens": ids}
        answer = self._post_root("spell a token", "/detokenize", body)
        return str(answer.get("prompt")) if isinstance(answer, dict) else ""

    def load_adapter(self, name: str, path: str) -> None:
        """Load the PEFT folder at a path under a name; one that has the name already is unloaded first.

        Raises:
            ModelError: with what the server says.
        """
        body = {"lora_name": name, "lora_path": path}
        load = partial(self._client.post, "/load_lora_adapter", body)
        try:
            self._call("load an adapter", load, retries_status=False)
        except Refused as error:
            if "already" in error.message:
                self.unload_adapter(name)
                self._call("load an adapter", load)
                return
            remedy = "look into its log"
            if error.status == NOT_FOUND:
                remedy = "start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            elif "rank" in error.message:
                remedy = "raise its --max-lora-rank, or lower model.lora.r"
            raise ModelError(
                f"the server at {self.url} does not load the adapter in {path} ({error}); {remedy}"
            ) from error

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter; one that is not there is no error."""
        body = {"lora_name": name}
        unload = partial(self._client.post, "/unload_lora_adapter", body)
        try:
            self._call("unload an adapter", unload, retries_status=False)
        except Refused as error:
            # one that it has dropped by itself, for want of room, is answered by an error too
            if error.status != NOT_FOUND and "remove" not in error.message:
                raise ModelError(f"the server at {self.url} refuses: {error}") from error

    def hurry(self) -> None:
        """Wait for nothing from here on: the process ends."""
        self.retries = 0
        self._client.timeout = 1.0

    def complete(self, body: dict[str, Any]) -> Any:
        """The answer to a request for completions."""
        send = partial(self._client.post, "/completions", body)
        try:
            return self._json("complete a prompt", send)
        except Refused as error:
            raise ModelError(f"the server at {self.url} refuses a prompt: {error}") from error

    def _post_root(self, what: str, path: str, body: dict[str, Any]) -> Any:
        try:
            return self._json(what, partial(self._client.post, f"{self._root}{path}", body))
        except Refused as error:
            raise ModelError(
                f"the server at {self.url} does not {what} ({error}), so its tokenizer cannot be compared; use an "
                "engine that has /tokenize and /detokenize, such as vLLM"
            ) from error

    def _json(self, what: str, send: Callable[[], str]) -> Any:
        """Send a request whose answer is JSON, with retries; errors as of `_call`."""
        return self._call(what, lambda: json.loads(send()))

    def _call(self, what: str, send: Callable[[], Any], *, retries_status: bool = True) -> Any:
        """Send a request, with retries.

        Raises:
            SamplerFailure: if there is no answer after all attempts.
            Refused: if the server would refuse it again.
        """
        failure = Failure("not sent")
        for attempt in range(self.retries + 1):
            result = self._attempt(send, retries_status)
            if not isinstance(result, Failure):
                return result
            failure = result
            if failure.delay is None:
                break
            if attempt < self.retries:
                self._stopped.wait(failure.wait_before(attempt))
        raise SamplerFailure(
            f"the server at {self.url} did not {what} ({failure.reason})", "see that it answers"
        )

    def _attempt(self, send: Callable[[], Any], retries_status: bool) -> Any:
        import openai

        try:
            return send()
        except openai.APIStatusError as error:
            target = redirect_target(error)
            if target is not None:
                raise ModelError(
                    f"the server at {self.url} redirects to {target}, where prompts are not sent; if that server is "
                    "meant, set its address in urls of Served"
                ) from error
            if error.status_code in KEY_REFUSED:  # its message may repeat a part of the key
                raise ModelError(
                    f"the server at {self.url} refuses the API key of this run (status {error.status_code}); set the "
                    f"environment variable {self.key} to the server's key"
                ) from error
            message = status_message(error)
            if not (retries_status and is_retryable(error.status_code)):
                raise Refused(error.status_code, message) from error
            failure = status_failure(error)
            return failure._replace(reason=f"{failure.reason}: {message}")
        except (openai.APITimeoutError, TimeoutError):
            return Failure(f"no complete answer in {self.timeout:g} s")
        except AnswerTooLarge as error:
            return Failure(str(error), delay=None)
        except ValueError:
            return Failure("an answer that is no complete JSON")
        except openai.APIConnectionError as error:
            return Failure(f"no connection: {error.__cause__ or error}")
        except openai.APIError as error:
            return Failure(type(error).__name__)


def _served_name(entry: Any) -> ServedName:
    name, limit = str(entry["id"]), entry.get("max_model_len")
    is_limit = isinstance(limit, int) and limit > 0
    return ServedName(
        name, str(entry.get("root") or name), entry.get("parent"), limit if is_limit else None
    )
