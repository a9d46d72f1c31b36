"""The responses to the next step's prompts, sampled while the policy learns from this step's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from lit_align.data.loader import StepLoader
from lit_align.errors import LitAlignError
from lit_align.models.samplers import Completion, SampledModel, Sampler, SamplingRequest
from lit_align.models.samplers.base import Finish, is_done
from lit_align.stages.schedule import number_of_steps
from lit_align.types import Tree


class Ahead(NamedTuple):
    """Responses that are not learned from yet.

    Args:
        step: the step that learns from them.
        key: what was requested, as plain values.
        finish: waits for them.
    """

    step: int
    key: dict[str, Any]
    finish: _Once


class SampledAhead(Sampler):
    """Another sampler, whose responses to the next step's prompts are drawn before the policy moves.

    Args:
        sampler: what samples.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._ahead: list[Ahead] = []

    @property
    def computes_elsewhere(self) -> bool:
        """As the other sampler."""
        return self.sampler.computes_elsewhere

    def sample(self, model: SampledModel, request: SamplingRequest) -> list[list[Completion]]:
        """Completions; those that were sampled ahead if the request is the same."""
        return self.start(model, request)()

    def start(self, model: SampledModel, request: SamplingRequest) -> Finish:
        """Begin to sample, unless it was done ahead."""
        key = request_key(request)
        for ahead in self._ahead:
            if ahead.key == key:
                return ahead.finish
        return self.sampler.start(model, request)

    def begin(self, step: int, model: SampledModel, request: SamplingRequest) -> None:
        """Sample for a later step from the policy as it is now; what steps before this one learned from is forgotten.

        Args:
            step: the step that will learn from the responses.
            model: the policy.
            request: as that step will make it.
        """
        self._ahead = [ahead for ahead in self._ahead if ahead.step >= step - 1]
        key = request_key(request)
        if all(ahead.key != key for ahead in self._ahead):
            finish = _Once(self.sampler.start(model, request))
            self._ahead.append(Ahead(step, key, finish))

    def state(self, step: int, *, waits: bool = True) -> list[dict[str, Any]]:
        """The responses that this step or a later one learns from, as plain values.

        A policy that has moved could not sample them again, and the next step needs them at once, so a save waits for
        those under way. Responses that a server failed to send are left out: the step's own request will tell.

        Args:
            step: the first that is not done.
            waits: whether to wait; a run that is stopped leaves out what is under way, and the resumed run samples it
                from the policy as it then is.
        """
        saved = []
        for ahead in self._ahead:
            if ahead.step >= step and (waits or ahead.finish.is_done):
                try:
                    completions = ahead.finish()
                except LitAlignError:
                    continue
                rows = [[list(completion) for completion in row] for row in completions]
                saved.append({"step": ahead.step, "key": ahead.key, "completions": rows})
        return saved

    def restore(self, saved: Sequence[dict[str, Any]]) -> None:
        """Take up responses that `state` returned."""
        self._ahead = []
        for entry in saved:
            rows = [[Completion(*parts) for parts in row] for row in entry["completions"]]
            self._ahead.append(Ahead(entry["step"], entry["key"], _Once(partial(list, rows))))


class _Once:
    """Waits for completions once, and keeps them."""

    def __init__(self, finish: Finish) -> None:
        self._finish = finish
        self._completions: list[list[Completion]] | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._completions is not None or is_done(self._finish)

    def __call__(self) -> list[list[Completion]]:
        if self._completions is None:
            self._completions = self._finish()
        return self._completions


def request_key(request: SamplingRequest) -> dict[str, Any]:
    """What completions depend on besides the model, as plain values."""
    return {
        "prompts": [list(prompt) for prompt in request.prompts],
        "places": list(request.places),
        "seed": request.seed,
        "num_generations": request.num_generations,
        "max_new_tokens": request.max_new_tokens,
        "temperature": request.temperature,
    }


def is_last_step(trainer: Trainer, step: int) -> bool:
    """Whether the trainer's limits end the run after this step."""
    num_steps = number_of_steps(trainer, trainer.num_training_batches)
    return num_steps is not None and step + 1 >= num_steps


def next_prompts(trainer: Trainer, batch_idx: int) -> list[Tree]:
    """The prompts of the step that comes next, in the order of the step; none where the loader does not know them.

    Args:
        trainer: of the run.
        batch_idx: number of the present step in its epoch.
    """
    loader: Any = trainer.train_dataloader
    if not isinstance(loader, StepLoader):
        return []
    epoch, step = loader.epoch, loader.next
    if step and batch_idx + 1 >= trainer.num_training_batches:
        epoch, step = epoch + 1, 0  # the trainer ends the epoch before its last step
    return loader.step_at(epoch, step).trees
