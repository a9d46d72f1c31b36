"""A causal language model in this process as the judge: its option probabilities are read, nothing is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.chat.spelled_tokens import TurnTokenizer
from lit_align.data.scoring import limit_to_positions, score_trees
from lit_align.errors import ModelError
from lit_align.functional.logps import sum_by_response
from lit_align.judges.base import JudgeModel, Reply
from lit_align.models.check_once import check_once
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.samplers import (
    Completion,
    SampledModel,
    Sampler,
    SamplingRequest,
    default_sampler,
)
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Batch, Group, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase
    from lit_align.models.adapter_set import AdapterSet

TOO_LONG = "a question longer than the judge reads"


class LoadedJudge(NamedTuple):
    """A judge in memory: model, tokenizer, tree forward, and what is sampled, with the context of its adapter."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tree_forward: TreeForward
    sampled: SampledModel


@dataclass(frozen=True)
class LocalModel(JudgeModel):
    """The model in memory, with one of its adapters active, or another model that is loaded beside it.

    All options share the forward pass over their question. Special tokens spelled out in a question are read as plain
    text.

    Args:
        base: the model to load; null takes the one in memory.
        role: adapter of the model in memory: the reference (without adapters, if it does not start from one), or the
            policy, which then judges itself (Yuan et al., 2024, https://arxiv.org/abs/2401.10020).
        chat_template: of a model that is loaded, as for a stage.
        template_kwargs: of a model that is loaded, as for a stage; the judge does not think, unless they say so.
        max_length: tokens of a question; a longer one is not answered.
        token_budget: tokens in one forward pass.
        sampler: what samples answers in text, by its name; null is InProcess. Probabilities of options are always read
            from the model in memory.

    Raises:
        ModelError: at the first question, if there is no model, or it has no chat template.
    """

    base: Base | None = None
    role: str = "reference"
    chat_template: str | None = None
    template_kwargs: dict[str, Any] | None = None
    max_length: int = 4096
    token_budget: int = 8192
    sampler: Sampler | None = None

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        if self.base is None:
            sampled = SampledModel.of_role(adapters, tokenizer, self.role)
            self.__dict__["_judge"] = _load_judge(adapters.model, sampled)

    @cached_property
    def _judge(self) -> LoadedJudge:
        """A model loaded for this judge alone; `attach` sets the shared one instead."""
        if self.base is None:
            raise ModelError(
                "the judge has no model: there is none in memory here; set base.path of LocalModel"
            )
        tokenizer = load_tokenizer(self.base, self.chat_template, self.template_kwargs)
        model = load_model(self.base)
        sampled = SampledModel(self.base.path, tokenizer, lambda: nullcontext(model))
        return _load_judge(model, sampled)

    def can_split(self) -> bool:
        return True

    @torch.no_grad()
    def choose_option(self, questions: Sequence[str], options: Sequence[str]) -> list[Reply]:
        start = perf_counter()
        prompts = [self._prompt_ids(question) for question in questions]
        option_ids = [self._tokenize(option) for option in options]
        max_prompt = limit_to_positions(self._judge.model, self.max_length) - max(
            map(len, option_ids)
        )
        scored_mask = [[True] * len(ids) for ids in option_ids]
        trees = []
        for ids in prompts:
            if len(ids) <= max_prompt:
                trees.append(Tree(ids, option_ids, scored_mask, Group("", [])))
        probabilities = torch.zeros(0)
        if trees:
            logps = score_trees(trees, self._option_logps, self.token_budget, dense=True)
            probabilities = logps.double().exp()
        rows = iter(probabilities.view(-1, len(options)).unbind())
        seconds = (perf_counter() - start) / max(len(questions), 1)
        replies = []
        for ids in prompts:
            if len(ids) <= max_prompt:
                replies.append(_option_reply(next(rows), option_ids, seconds))
            else:
                replies.append(Reply(None, "", _usage(seconds), TOO_LONG))
        return replies

    def generate(self, questions: Sequence[str], max_tokens: int) -> list[Reply]:
        start, judge = perf_counter(), self._judge
        prompts = [self._prompt_ids(question) for question in questions]
        max_prompt = limit_to_positions(judge.model, self.max_length + max_tokens) - max_tokens
        request = SamplingRequest(
            [ids for ids in prompts if len(ids) <= max_prompt],
            max_new_tokens=max_tokens,
            temperature=0.0,
            batch_size=8,
        )
        sampler = self.sampler or default_sampler()
        rows = sampler.sample(judge.sampled, request) if request.prompts else []
        completions = iter(rows)
        seconds = (perf_counter() - start) / max(len(questions), 1)
        replies = []
        for ids in prompts:
            if len(ids) <= max_prompt:
                replies.append(self._text_reply(next(completions)[0], seconds))
            else:
                replies.append(Reply(None, "", _usage(seconds), TOO_LONG))
        return replies

    def _text_reply(self, completion: Completion, seconds: float) -> Reply:
        text = str(self._judge.tokenizer.decode(completion.ids, skip_special_tokens=True)).strip()
        return Reply(None, text, _usage(seconds), truncated=not completion.ended)

    def _option_logps(self, batch: Batch) -> Tensor:
        """Log-probability of each option as a whole, ``[responses]``."""
        judge = self._judge
        trees = batch.trees.to(judge.model.device)
        with judge.sampled.activate():
            logps = judge.tree_forward(trees).logps.float()
        return sum_by_response(logps, trees.owner, trees.responses).cpu()

    def _prompt_ids(self, question: str) -> list[int]:
        """The question as a user turn; only the chat template around it may contain special tokens."""
        tokenizer = self._judge.tokenizer
        if not tokenizer.chat_template:
            raise ModelError(
                "the judge has no chat template; set chat_template of LocalModel, or of the stage, to chatml"
            )
        # the first token of a chain of thought is no verdict
        template_kwargs = {"enable_thinking": False, **(self.template_kwargs or {})}
        return self._turns.encode(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            template_kwargs=template_kwargs,
        )

    @cached_property
    def _turns(self) -> TurnTokenizer:
        return TurnTokenizer(self._judge.tokenizer)

    def _tokenize(self, text: str) -> list[int]:
        return list(self._judge.tokenizer(text, add_special_tokens=False).input_ids)


def _load_judge(model: PreTrainedModel, sampled: SampledModel) -> LoadedJudge:
    tree_forward = TreeForward(model)
    check_once(tree_forward)
    return LoadedJudge(model, sampled.tokenizer, tree_forward, sampled)


def _option_reply(probabilities: Tensor, option_ids: list[list[int]], seconds: float) -> Reply:
    """Normalise over the options; an option that is a prefix of another loses that one's probability."""
    is_prefix = [[len(b) > len(a) and b[: len(a)] == a for b in option_ids] for a in option_ids]
    exact = (probabilities - torch.tensor(is_prefix).double() @ probabilities).clamp(min=0)
    mass = float(exact.sum())
    if not mass > 0:
        return Reply(None, "", _usage(seconds), "a judge that gives no option any probability")
    return Reply(tuple((exact / mass).tolist()), "", {**_usage(seconds), "mass": mass})


def _usage(seconds: float) -> dict[str, Any]:
    return {"cost": 0.0, "seconds": seconds}


@hookimpl
def register_judges(register: Register) -> None:
    register(LocalModel)
