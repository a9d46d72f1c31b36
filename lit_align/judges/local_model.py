"""A causal language model in this process as the judge: it is not sampled, its probabilities are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lit_align.data.scoring import limit_to_positions, score_trees
from lit_align.errors import ModelError
from lit_align.judges.base import JudgeModel, Reply
from lit_align.models.generate import Completion, sample
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Batch, Group, Tree

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet

CONTENT = "\ue000"  # stands for the question while the chat template is rendered; for private use, so in no template
TOO_LONG = "a question longer than the judge reads"


class Seat(NamedTuple):
    """A model in memory, who reads with it, and how it becomes who is asked."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    read: TreeForward
    activate: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class LocalModel(JudgeModel):
    """The model in memory, as one of its roles, or another one that is loaded beside it.

    Options share the pass over their question. A text in a question that looks like a special token is read as text.

    Args:
        base: the model to load; null takes the one in memory.
        role: who answers, of that one: the reference (without adapters, if it does not start from one), or the policy,
            which then judges itself (Yuan et al., 2024, https://arxiv.org/abs/2401.10020).
        chat_template: of a model that is loaded, as for a stage.
        max_length: tokens of a question; a longer one is not answered.
        token_budget: tokens that pass through the model at once.

    Raises:
        ModelError: at the first question, if there is no model, or it has no chat template.
    """

    base: Base | None = None
    role: str = "reference"
    chat_template: str | None = None
    max_length: int = 4096
    token_budget: int = 8192

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        if self.base is None:
            activate = partial(adapters.activate, self.role, training=False)
            self.__dict__["_seat"] = _seated(adapters.model, tokenizer, activate)

    @cached_property
    def _seat(self) -> Seat:
        """A model of its own; not asked for once there is one to share."""
        if self.base is None:
            raise ModelError(
                "the judge has no model: there is none in memory here; set base.path of LocalModel"
            )
        return _seated(
            load_model(self.base), load_tokenizer(self.base, self.chat_template), nullcontext
        )

    @torch.no_grad()
    def choose_option(self, questions: Sequence[str], options: Sequence[str]) -> list[Reply]:
        began, prompts = perf_counter(), [self._prompt(question) for question in questions]
        answers = [self._ids(option) for option in options]
        room = limit_to_positions(self._seat.model, self.max_length) - max(map(len, answers))
        marks = [[True] * len(ids) for ids in answers]
        trees = [Tree(ids, answers, marks, Group("", [])) for ids in prompts if len(ids) <= room]
        whole = (
            score_trees(trees, self._whole, self.token_budget, dense=True).double().exp()
            if trees
            else torch.zeros(0)
        )
        chances = iter(whole.view(-1, len(options)).unbind())
        seconds = (perf_counter() - began) / max(len(questions), 1)
        return [
            self._reply(next(chances), answers, seconds)
            if len(ids) <= room
            else Reply(None, "", _spent(seconds), TOO_LONG)
            for ids in prompts
        ]

    def _reply(self, chances: Tensor, answers: list[list[int]], seconds: float) -> Reply:
        """Of an option that another one begins with, what is left when it does not go on like that."""
        longer = [[len(b) > len(a) and b[: len(a)] == a for b in answers] for a in answers]
        alone = (chances - torch.tensor(longer).double() @ chances).clamp(min=0)
        mass = float(alone.sum())
        if not mass > 0:
            return Reply(None, "", _spent(seconds), "a judge that gives no option any probability")
        return Reply(tuple((alone / mass).tolist()), "", {**_spent(seconds), "mass": mass})

    def generate(self, questions: Sequence[str], max_tokens: int) -> list[Reply]:
        began, seat = perf_counter(), self._seat
        prompts = [self._prompt(question) for question in questions]
        room = limit_to_positions(seat.model, self.max_length + max_tokens) - max_tokens
        with seat.activate():
            how: dict[str, Any] = {
                "max_new_tokens": max_tokens,
                "temperature": 0.0,
                "batch_size": 8,
            }
            short = [ids for ids in prompts if len(ids) <= room]
            said = iter(sample(seat.model, seat.tokenizer, short, **how))
        seconds = (perf_counter() - began) / max(len(questions), 1)
        return [
            self._told(next(said)[0], seconds)
            if len(ids) <= room
            else Reply(None, "", _spent(seconds), TOO_LONG)
            for ids in prompts
        ]

    def _told(self, one: Completion, seconds: float) -> Reply:
        text = str(self._seat.tokenizer.decode(one.ids, skip_special_tokens=True)).strip()
        return Reply(None, text, _spent(seconds), truncated=not one.ended)

    def _whole(self, batch: Batch) -> Tensor:
        """Log-probability of each option as a whole, ``[responses]``."""
        seat = self._seat
        trees = batch.trees.to(seat.model.device)
        with seat.activate():
            logps = seat.read(trees).logps.float()
        return logps.new_zeros(trees.responses).index_add(0, trees.owner, logps).cpu()

    def _prompt(self, question: str) -> list[int]:
        """The question as a user's turn; only what the template puts around it may be special tokens."""
        tokenizer = self._seat.tokenizer
        if not tokenizer.chat_template:
            raise ModelError(
                "the judge has no chat template; set chat_template of LocalModel, or of the stage, to chatml"
            )
        turn = [{"role": "user", "content": CONTENT}]
        # where a model would first think aloud, the beginning of its answer would be no verdict
        how: dict[str, Any] = {
            "tokenize": False,
            "add_generation_prompt": True,
            "enable_thinking": False,
        }
        around = str(tokenizer.apply_chat_template(turn, **how))
        before, _, after = around.partition(CONTENT)
        return [
            *self._ids(before),
            *self._ids(question, split_special_tokens=True),
            *self._ids(after),
        ]

    def _ids(self, text: str, **how: Any) -> list[int]:
        return list(self._seat.tokenizer(text, add_special_tokens=False, **how).input_ids)


def _seated(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    activate: Callable[[], AbstractContextManager[Any]],
) -> Seat:
    read = TreeForward(model)
    read.check()
    return Seat(model, tokenizer, read, activate)


def _spent(seconds: float) -> dict[str, Any]:
    return {"cost": 0.0, "seconds": seconds}
