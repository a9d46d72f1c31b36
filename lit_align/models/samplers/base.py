"""The interface of a sampler, and what it is given: a model and a request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from lit_align.errors import ModelError
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.decoding.batch import Completion
from lit_align.models.load import Base
from lit_align.models.lora import Lora

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase

Finish = Callable[[], list[list[Completion]]]
"""Waits for completions, ``[prompt][sample]``."""


@dataclass(frozen=True)
class SampledModel:
    """The model that is sampled: a base with one of its adapters, or a whole model.

    Args:
        base: name or folder of the base model.
        tokenizer: its tokenizer.
        activate: a context in which the model in memory computes with the adapter, in eval mode; it yields the model.
        adapters: the base and its adapters; None for a whole model.
        role: name of the adapter; empty for a whole model.
    """

    base: str
    tokenizer: PreTrainedTokenizerBase
    activate: Callable[[], AbstractContextManager[PreTrainedModel]]
    adapters: AdapterSet | None = None
    role: str = ""

    @classmethod
    def of_role(
        cls, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase, role: str = "policy"
    ) -> SampledModel:
        """The base with the adapter of a role."""
        activate = partial(adapters.activate, role, training=False)
        return cls(adapters.base, tokenizer, activate, adapters, role)

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter changes the base."""
        return self.adapters is not None and self.adapters.has_adapter(self.role)


@dataclass(frozen=True)
class SamplingRequest:
    """Prompts, and how many completions of each are drawn in which way.

    Completions are drawn from the full distribution, without top-k or top-p, unless the sampler says otherwise.

    Args:
        prompts: token ids of each prompt.
        max_new_tokens: limit of a completion, including the token that ends it.
        temperature: 0 for greedy decoding.
        num_generations: completions of each prompt.
        seed: of the random numbers.
        prompt_indices: places of the prompts among all that are sampled with this seed; None if these are all. A
            sampler draws by seed and place, so that nothing depends on how prompts are shared out.
        batch_size: completions that are decoded at once, where a sampler does not choose that itself.
        token_budget: tokens of prompts that are read at once, likewise.
        step: optimizer steps that the model has made, for the names of what a sampler keeps of it.
    """

    prompts: Sequence[Sequence[int]]
    max_new_tokens: int
    temperature: float = 1.0
    num_generations: int = 1
    seed: int = 0
    prompt_indices: Sequence[int] | None = None
    batch_size: int = 32
    token_budget: int = 8192
    step: int = 0

    @property
    def places(self) -> Sequence[int]:
        """The place of each prompt."""
        return range(len(self.prompts)) if self.prompt_indices is None else self.prompt_indices


class SamplerFailure(ModelError):
    """A sampler did not sample, and may when it is called again.

    Args:
        problem: what happened, as half a sentence.
        remedy: what to do, likewise.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


@contextmanager
def sampling_to_learn() -> Iterator[None]:
    """A context of training: what fails in it also says what became of the step.

    Raises:
        ModelError: in place of a `SamplerFailure`.
    """
    try:
        yield
    except SamplerFailure as error:
        raise ModelError(
            f"{error.problem}; nothing was learned from this step: {error.remedy}, and resume from the last checkpoint"
        ) from error


class Sampler(ABC):
    """Draws completions from a model: a frozen dataclass whose fields are its settings.

    Attributes:
        is_exact: whether it computes with the model in memory, so that its log-probabilities need no correction.
    """

    is_exact: ClassVar[bool] = False

    @property
    def computes_elsewhere(self) -> bool:
        """Whether another program computes: of several processes then only the first has it sample, for all."""
        return False

    def check(self, base: Base, lora: Lora | None, tokenizer: PreTrainedTokenizerBase) -> None:  # noqa: B027 - most need nothing
        """Refuse a model that it cannot sample, before weights are loaded.

        Args:
            base: the base model.
            lora: of the adapter; None if there is none.
            tokenizer: of the base.

        Raises:
            ModelError: naming what differs.
        """

    @abstractmethod
    def sample(self, model: SampledModel, request: SamplingRequest) -> list[list[Completion]]:
        """Completions, ``[prompt][sample]``, with the log-probability of each token at the sampling temperature."""

    def start(self, model: SampledModel, request: SamplingRequest) -> Finish:
        """Begin to sample the model as it is now; the answer waits for the completions.

        A sampler that computes elsewhere returns at once, and the model may change meanwhile. If its answer has a
        property ``is_done``, a run that is stopped does not wait for what is under way.
        """
        completions = self.sample(model, request)
        return lambda: completions


def is_done(finish: Finish) -> bool:
    """Whether an answer of `Sampler.start` has nothing to wait for; one that does not tell has nothing."""
    return bool(getattr(finish, "is_done", True))


def request_settings(request: SamplingRequest) -> dict[str, Any]:
    """Arguments of `lit_align.models.generate.sample` after the prompts."""
    settings = dict(vars(request))
    del settings["prompts"], settings["step"]
    return settings
