"""Nucleus sampling (Holtzman et al., 2020, https://arxiv.org/abs/1904.09751), by the ``generate`` of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lit_align import Register, hookimpl
from lit_align.checks import check_between
from lit_align.models.samplers import Completion, SampledModel, Sampler, SamplingRequest
from lit_align.models.stop_ids import stop_ids
from lit_align.seeding import step_seed


@dataclass(frozen=True)
class Nucleus(Sampler):
    """Sample from the most probable tokens that together have a probability of at least p.

    For answers, as of predict and best_of. RL would learn nothing about the tokens that it never draws.

    Args:
        p: probability of the nucleus.
    """

    p: float = 0.9

    def __post_init__(self) -> None:
        check_between("p", self.p, 0, 1, "0.9 and 0.95 are usual")

    def sample(self, model: SampledModel, request: SamplingRequest) -> list[list[Completion]]:
        rows = []
        with model.activate() as base, torch.random.fork_rng():
            ends = stop_ids(base, model.tokenizer)
            for prompt, place in zip(request.prompts, request.places, strict=True):
                torch.manual_seed(step_seed(request.seed, place))
                rows.append(self._complete(base, prompt, request, ends))
        return rows

    def _complete(
        self, base: Any, prompt: Any, request: SamplingRequest, ends: list[int]
    ) -> list[Completion]:
        choice: dict[str, Any] = {"do_sample": False}
        if request.temperature:
            choice = {"do_sample": True, "temperature": request.temperature}
            choice |= {"top_p": self.p, "top_k": 0}
        ids = torch.tensor([list(prompt)], device=base.device)
        output = base.generate(
            ids.expand(request.num_generations, -1),
            attention_mask=torch.ones_like(ids).expand(request.num_generations, -1),
            max_new_tokens=request.max_new_tokens,
            eos_token_id=ends,
            pad_token_id=ends[0],
            output_scores=True,
            return_dict_in_generate=True,
            **choice,
        )
        logps = base.compute_transition_scores(
            output.sequences, output.scores, normalize_logits=True
        )
        tokens = output.sequences[:, ids.shape[1] :].tolist()
        return [_until_end(*row, ends) for row in zip(tokens, logps.tolist(), strict=True)]


def _until_end(tokens: list[int], logps: list[float], ends: list[int]) -> Completion:
    """A completion without what ``generate`` has put after its end."""
    for count, token in enumerate(tokens, start=1):
        if token in ends:
            return Completion(tokens[:count], logps[:count], ended=True)
    return Completion(tokens, logps, ended=False)


@hookimpl
def register_samplers(register: Register) -> None:
    register(Nucleus)
