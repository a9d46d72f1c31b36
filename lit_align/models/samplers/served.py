"""An engine behind an OpenAI-compatible server, such as vLLM, which loads the adapter after each update."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from lit_align.checks import check_at_least, check_positive
from lit_align.compat.stopping import stop_if_told
from lit_align.errors import ConfigError, ModelError
from lit_align.hookspecs import Register, hookimpl
from lit_align.models.decoding.batch import Completion
from lit_align.models.generate import check_prompts
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.models.samplers.base import (
    Finish,
    SampledModel,
    Sampler,
    SamplerFailure,
    SamplingRequest,
)
from lit_align.models.samplers.engine_checks import (
    check_log_probabilities,
    check_rank,
    check_server,
)
from lit_align.models.samplers.engine_reply import Expected, parse_completions
from lit_align.models.samplers.engine_server import EngineServer
from lit_align.models.samplers.exported_adapters import ExportedAdapter, ExportedAdapters
from lit_align.models.stop_ids import stop_ids
from lit_align.progress import note_sampled
from lit_align.seeding import step_seed
from lit_align.servers.http_client import check_url
from lit_align.servers.parallel import Job
from lit_align.servers.reply_checks import UnreadableReply

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

SEEDS_APART = 1024
"""How far the seeds of two prompts are apart: an engine uses a seed and those after it for the completions of one."""


@dataclass(frozen=True)
class Served(Sampler):
    """Sample by an engine behind an OpenAI-compatible server, such as vLLM.

    Its calls are those of vLLM's documentation and source about version 0.33,
    https://docs.vllm.ai/en/latest/features/lora/. Before completions are sampled, the adapter is written as a PEFT
    folder and loaded into the server under a new name; the one before is unloaded. Nothing is merged into the base.
    Token ids go both ways. Start the server with the same base, ``--enable-lora``, a ``--max-lora-rank`` of at least
    model.lora.r and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment; for a temperature other than 1 also with
    ``--logprobs-mode processed_logprobs``.

    The engine's numbers are not those of the training pass; RL corrects that by importance weights. Each prompt has a
    seed by its place, but an engine does not promise equal answers to equal seeds.

    Checked against a server that speaks these calls; with vLLM itself nothing is checked: neither that it loads the
    adapters, nor its speed, nor how far its log-probabilities are from those of training.

    Args:
        urls: of the APIs, such as [http://localhost:8000/v1]; several share the prompts.
        folder: where adapters are written, for the servers to read; null is a temporary folder of this user alone.
        server_folder: that folder as the servers see it, in a container for example; null is the same path.
        concurrency: prompts that each server answers at a time.
        timeout: seconds that a whole answer may take, from the request to its last byte.
        retries: further attempts after a transient error, with exponential backoff.
        key: the environment variable that has the API key.

    Raises:
        ConfigError: if there is no address.
        ValueError: if a number is out of range, or an address holds a secret.
        ModelError: if a server has another base or tokenizer, does not load an adapter, or stops answering.
    """

    urls: list[str]
    folder: str | None = None
    server_folder: str | None = None
    concurrency: int = 64
    timeout: float = 600.0
    retries: int = 5
    key: str = "VLLM_API_KEY"

    def __post_init__(self) -> None:
        if not self.urls:
            raise ConfigError(
                "urls of Served is empty; give the address of an API, such as http://localhost:8000/v1"
            )
        for url in self.urls:
            check_url(url)
        check_at_least("concurrency", self.concurrency, 1)
        check_at_least("retries", self.retries, 0)
        check_positive("timeout", self.timeout)
        if self.server_folder is not None and self.folder is None:
            raise ConfigError(
                f"server_folder is {self.server_folder} and folder null; set folder to the same folder as this "
                "process sees it"
            )

    @property
    def computes_elsewhere(self) -> bool:
        return True

    def check(self, base: Base, lora: Lora | None, tokenizer: PreTrainedTokenizerBase) -> None:
        if lora is not None:
            check_rank(lora.r)
        self._engine.check(base.path, tokenizer)

    def sample(self, model: SampledModel, request: SamplingRequest) -> list[list[Completion]]:
        return self.start(model, request)()

    def start(self, model: SampledModel, request: SamplingRequest) -> Finish:
        if request.num_generations > SEEDS_APART:
            raise ConfigError(
                f"num_generations is {request.num_generations}, over the {SEEDS_APART} that Served can seed; lower it"
            )
        return self._engine.start(model, request)

    @cached_property
    def _engine(self) -> _Engine:
        return _Engine(self)


class _Engine:
    """The servers, and what they have loaded.

    Args:
        settings: of the sampler.
    """

    def __init__(self, settings: Served) -> None:
        self.servers = []
        for url in settings.urls:
            server = EngineServer(url, settings.key, settings.timeout, settings.retries)
            self.servers.append(server)
        self.concurrency = settings.concurrency
        self.exported = ExportedAdapters(settings.folder, settings.server_folder)
        self.loaded: dict[str, str] = {}  # name of the adapter that all servers have, by role
        # of each adapter that is on disk, and that a server may have
        self._role_of: dict[str, str] = {}
        self._checked: set[str] = set()
        self._temperatures: set[float] = set()
        self._job: Job[Any, Any] | None = None
        atexit.register(self.close)

    def check(self, base: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """Compare base and tokenizer with those of the servers, once."""
        if base not in self._checked:
            for server in self.servers:
                check_server(server, base, tokenizer)
            self._checked.add(base)

    def start(self, model: SampledModel, request: SamplingRequest) -> Finish:
        """Write the adapter now, and sample in threads."""
        self._await_job()  # its adapter is in use
        self.check(model.base, model.tokenizer)
        with model.activate() as base:
            check_prompts(base.config, request.prompts, request.max_new_tokens)
            stop_tokens = frozenset(stop_ids(base, model.tokenizer))
            vocabulary = base.config.get_text_config().vocab_size
        self._check_lengths(request)
        exported = None
        if model.adapters is not None and model.has_adapter:
            loaded = self.loaded.get(model.role, "")
            exported = self.exported.write(model.adapters, model.role, request.step, loaded)
            self._role_of[exported.name] = model.role
        sampling = _Sampling(request, stop_tokens, vocabulary, exported)
        work = partial(self._run, sampling, model.role)
        self._job = job = Job(lambda run: run(), [work])
        return _Answer(job)

    def _run(self, sampling: _Sampling, role: str) -> list[list[Completion]]:
        """Load the adapter where it is not loaded yet, and sample all prompts."""
        if sampling.exported is not None:
            try:
                self._load(sampling.exported, role)
            except BaseException:
                self.loaded.pop(role, None)  # nobody knows what the servers have
                raise
        temperature = sampling.request.temperature
        if temperature not in (0.0, 1.0, *self._temperatures):
            for server in self.servers:
                check_log_probabilities(server, temperature)
            self._temperatures.add(temperature)
        numbers = range(len(sampling.request.prompts))
        count = self.concurrency * len(self.servers)
        return Job(partial(self._complete, sampling), numbers, count).wait()

    def _load(self, exported: ExportedAdapter, role: str) -> None:
        loaded = self.loaded.get(role)
        if loaded == exported.name:
            return
        replaced = [name for name, its_role in list(self._role_of.items()) if its_role == role]
        replaced.remove(exported.name)
        for server in self.servers:
            # first: a server with room for one would drop it by itself, and then could not unload it
            for name in replaced:
                server.unload_adapter(name)
            server.load_adapter(exported.name, exported.path)
        self.loaded[role] = exported.name
        for name in replaced:
            self._remove(name)

    def _remove(self, name: str) -> None:
        """Forget an adapter that no server has."""
        self._role_of.pop(name, None)
        self.exported.remove(name)

    def _complete(self, sampling: _Sampling, number: int) -> list[Completion]:
        """The completions of one prompt."""
        server = self.servers[number % len(self.servers)]
        name = server.base if sampling.exported is None else sampling.exported.name
        expected = sampling.expected(number, name)
        reason = ""
        for _ in range(server.retries + 1):
            reply = server.complete(sampling.body(number, name))
            try:
                completions = parse_completions(reply, expected)
            except UnreadableReply as error:
                reason = str(error)
                if error.retryable:
                    continue
                break
            return completions * (sampling.request.num_generations // len(completions))
        raise SamplerFailure(f"the server at {server.url} sent {reason}", "correct the server")

    def _check_lengths(self, request: SamplingRequest) -> None:
        longest = max(map(len, request.prompts), default=0)
        for server in self.servers:
            limit = server.max_model_len
            if limit is not None and longest + request.max_new_tokens > limit:
                raise ModelError(
                    f"a prompt of {longest} tokens and max_new_tokens {request.max_new_tokens} are over the {limit} "
                    f"positions of the server at {server.url}; raise its --max-model-len, or lower max_new_tokens"
                )

    def _await_job(self) -> None:
        """Let the requests before this one end, whoever waits for their answers."""
        if self._job is not None and not self._job.is_done:
            with suppress(ModelError):  # told to who waits for it
                self._job.wait(stop_if_told)
        self._job = None

    def close(self) -> None:
        """Unload what the servers may have, as far as the servers answer at once, and remove the temporary folder."""
        names, self.loaded = list(self._role_of), {}
        for server in self.servers if names else ():
            server.hurry()
            for name in names:
                # at the end of a process no more threads start
                with suppress(ModelError, RuntimeError):
                    server.unload_adapter(name)
        for name in names:
            self._remove(name)
        self.exported.close()


@dataclass(frozen=True)
class _Sampling:
    """One request, as it is sent prompt by prompt.

    Args:
        request: prompts and how to sample.
        stop_tokens: that end a completion.
        vocabulary: number of tokens there are.
        exported: the adapter; None samples the base.
    """

    request: SamplingRequest
    stop_tokens: frozenset[int]
    vocabulary: int
    exported: ExportedAdapter | None

    @property
    def count(self) -> int:
        """Completions of a prompt that are asked for: greedy ones are all the same."""
        return self.request.num_generations if self.request.temperature else 1

    def expected(self, number: int, name: str) -> Expected:
        """What the answer must agree with."""
        prompt, limit = self.request.prompts[number], self.request.max_new_tokens
        return Expected(name, prompt, self.count, limit, self.stop_tokens, self.vocabulary)

    def body(self, number: int, name: str) -> dict[str, Any]:
        """The request for one prompt; what is left out a server would take from the model's own settings."""
        return {
            "model": name,
            "prompt": list(self.request.prompts[number]),
            "n": self.count,
            "max_tokens": self.request.max_new_tokens,
            "temperature": self.request.temperature,
            "seed": request_seed(self.request.seed, self.request.places[number]),
            "stop_token_ids": sorted(self.stop_tokens),
            "ignore_eos": True,  # its own idea of EOS; ours is among the stop tokens
            "logprobs": 1,
            "return_token_ids": True,
            "skip_special_tokens": False,
            **FULL_DISTRIBUTION,
        }


FULL_DISTRIBUTION = {
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Settings of a request that change nothing of the model's probabilities."""


def request_seed(seed: int, place: int) -> int:
    """The seed of one prompt's completions; an engine adds 1 for each further one.

    Args:
        seed: of the request for all prompts.
        place: of the prompt.

    Example:
        >>> request_seed(0, 3) - request_seed(0, 2)
        1024
    """
    return step_seed(seed, place) * SEEDS_APART % 2**63


@dataclass(frozen=True)
class _Answer:
    """Waits for the completions, unless the run is told to stop."""

    job: Job[Any, list[list[Completion]]]

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.job.is_done

    def __call__(self) -> list[list[Completion]]:
        (completions,) = self.job.wait(stop_if_told)
        for generations in completions:
            note_sampled(len(generations), _num_tokens(generations))
        return completions


def _num_tokens(completions: Sequence[Completion]) -> int:
    return sum(len(completion.ids) for completion in completions)


@hookimpl
def register_samplers(register: Register) -> None:
    register(Served)
