"""Sample text answers with the adapters of a run, and turn them into the records that ``predict`` writes."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lit_align.data.label_conversion import to_prompt
from lit_align.data.scoring import UNLIMITED
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ConfigError
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.sample_responses import checked_completions
from lit_align.models.samplers import (
    Completion,
    SampledModel,
    Sampler,
    SamplingRequest,
    default_sampler,
)
from lit_align.rewards.base import as_response
from lit_align.stages.best_of import BestOf
from lit_align.stages.step_search import Answer
from lit_align.types import Group, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Responder:
    """Answers prompts with one of a run's adapters; each call may override the settings.

    Args:
        adapters: the base and its adapters.
        tokenizer: the base's tokenizer.
        max_new_tokens: longest answer.
        temperature: of sampling; 0 is greedy.
        seed: of sampling.
        sampler: what samples.
    """

    adapters: AdapterSet
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int
    temperature: float
    seed: int
    sampler: Sampler = field(default_factory=default_sampler)

    def sample(
        self, prompts: Sequence[Sequence[int]], role: str = "policy", **overrides: Any
    ) -> list[list[Answer]]:
        """Answers to prompts of token ids, ``[prompt][sample]``, with leading and trailing blanks.

        Args:
            prompts: token ids of each prompt.
            role: the adapter that answers.
            overrides: settings of `SamplingRequest`.

        Raises:
            ConfigError: if the policy should answer and the run has none.
        """
        if role == "policy" and role not in self.adapters.trained_roles:
            raise ConfigError(
                f"the run trains {', '.join(self.adapters.trained_roles)} and has no policy that could answer; use a "
                "run of SFT, Preference or RL"
            )
        settings = {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
        }
        request = SamplingRequest(prompts, **{**settings, **overrides})
        model = SampledModel.of_role(self.adapters, self.tokenizer, role)
        rows = checked_completions(self.sampler, model, request)
        return [[self._decode(completion) for completion in row] for row in rows]

    def _decode(self, completion: Completion) -> Answer:
        token_ids = completion.ids[:-1] if completion.ended else completion.ids
        text = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        return Answer(str(text), completion.ended, completion.ids)

    def answer(
        self, prompts: Sequence[Sequence[int]], role: str = "policy", **overrides: Any
    ) -> list[str]:
        """One answer to each prompt, without leading and trailing blanks; arguments as for `sample`."""
        return [answer.text.strip() for (answer,) in self.sample(prompts, role, **overrides)]

    def answer_groups(
        self, groups: Sequence[Group], role: str = "policy", as_chat: bool = True, **overrides: Any
    ) -> list[list[str]]:
        """Answers to the prompts of groups, however long they are.

        Args:
            groups: with the prompts.
            role: the adapter that answers.
            as_chat: whether a plain prompt is a user's turn, if there is a chat template.
            overrides: settings of `SamplingRequest`.
        """
        chat = ChatTokenizer(self.tokenizer, max_length=UNLIMITED, as_chat=as_chat)
        prompts = [chat.encode(to_prompt(group)).tree.prompt for group in groups]
        rows = self.sample(prompts, role, **overrides)
        return [[answer.text for answer in row] for row in rows]


def add_responses(
    responders: Iterable[Responder], groups: Sequence[Group], num_generations: int = 1
) -> list[Group]:
    """The prompts of groups with sampled responses of each responder, at temperature 1 if it is greedy by itself."""
    answered = [to_prompt(group) for group in groups]
    for responder in responders:
        temperature = responder.temperature or 1.0
        rows = responder.answer_groups(
            groups, num_generations=num_generations, temperature=temperature
        )
        for number, (group, texts) in enumerate(zip(answered, rows, strict=True)):
            responses = [as_response(group, text) for text in texts]
            answered[number] = group._replace(responses=[*group.responses, *responses])
        del responder
        gc.collect()  # a stage refers to itself, and the next one needs the memory
    return answered


def predict_answers(
    responder: Responder, best_of: BestOf | None, numbered: Sequence[tuple[int, Tree]]
) -> list[dict[str, Any]]:
    """A record for each prompt: its source, the answer, and the row's other columns.

    Args:
        responder: answers.
        best_of: chooses among several answers to each prompt; None samples one.
        numbered: trees of prompts with their places in the data.
    """
    groups = [tree.group._replace(prompt_ids=tree.prompt) for _, tree in numbered]
    places = [place for place, _ in numbered]
    if best_of and best_of.search:
        answers = best_of.search.answers(responder, best_of.reward, best_of.n, groups, places)
    else:
        answers = responder.sample(
            [tree.prompt for _, tree in numbered],
            num_generations=best_of.n if best_of else 1,
            prompt_indices=places,
        )
    if best_of:
        return list(map(prediction_record, groups, best_of.choose(groups, answers)))
    records = []
    for group, (answer,) in zip(groups, answers, strict=True):
        records.append(prediction_record(group, {"answer": answer.text.strip()}))
    return records


def prediction_record(group: Group, fields: dict[str, Any]) -> dict[str, Any]:
    """One record of predictions.

    A column of the data that has the name of a field is not lost: it becomes ``data.answer``, for example.

    Example:
        >>> group = Group("2 + 2?", [], source="sums:1", extra={"answer": "4", "level": 1})
        >>> prediction_record(group, {"answer": "5"})
        {'source': 'sums:1', 'prompt': '2 + 2?', 'answer': '5', 'data.answer': '4', 'level': 1}
    """
    record = {"source": group.source, "prompt": group.prompt, **fields}
    reserved = set(record)
    for name, value in group.extra.items():
        record[f"data.{name}" if name in reserved else name] = value
    return record
