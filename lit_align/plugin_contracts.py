"""What a run expects of the answers of its parts: one sentence for each promise that does not hold.

``lit_align.testing`` checks the same promises and more. They look at types and shapes, which costs no wait for a GPU;
two look at values: of advantages, once in an iteration, and of the reference, once in a run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import PluginError
from lit_align.types import Group, Pair, Scores

MAX_SHOWN = 80  # characters of a value


def name_of(plugin: object) -> str:
    """The name of a plugin's class, or of a plugin that is a class or a function.

    Example:
        >>> name_of(3), name_of(int)
        ('int', 'int')
    """
    return str(getattr(plugin, "__name__", type(plugin).__name__))


def require_contract(fault: str) -> None:
    """Stop if a promise does not hold.

    Args:
        fault: the sentence of a function below; empty if the promise holds.

    Raises:
        PluginError: with the sentence.
    """
    if fault:
        raise PluginError(fault)


def shown_name(plugin: object) -> str:
    """A plugin with its settings where it has some, else the name of its class."""
    return str(plugin) if dataclasses.is_dataclass(plugin) else name_of(plugin)


def losses_fault(objective: object, losses: Any, count: int, items: str = "items") -> str:
    """What is wrong with the losses of an objective; empty if nothing is.

    Args:
        objective: that was called.
        losses: its answer.
        count: how many items there were.
        items: what they are called.

    Example:
        >>> losses_fault("Mine", torch.zeros(3), 3)
        ''
        >>> losses_fault(len, torch.tensor(0.5), 6, "pairs")
        'len returned one number for 6 pairs; return a loss for each, without mean() or sum()'
    """
    name = name_of(objective)
    if not isinstance(losses, Tensor):
        return f"{name} returned {_kind(losses)} for {count} {items}; return a tensor with a loss for each of them"
    if losses.shape == (count,):
        if not losses.is_floating_point():
            return f"{name} returned losses of {losses.dtype}; return floating-point numbers"
        return ""
    if losses.numel() == 1:
        return f"{name} returned one number for {count} {items}; return a loss for each, without mean() or sum()"
    return f"{name} returned losses of shape {list(losses.shape)} for {count} {items}; return one for each of them"


def gradient_fault(objective: object, losses: Tensor, inputs: Tensor) -> str:
    """A sentence if the losses have no gradient although what the objective read has one."""
    if losses.requires_grad or not inputs.requires_grad or not torch.is_grad_enabled():
        return ""
    return (
        f"the loss of {name_of(objective)} has no gradient; compute it from the policy's log-probabilities, without "
        "detach(), item() or no_grad()"
    )


def require_losses(
    objective: object, losses: Any, inputs: Tensor, count: int, items: str = "items"
) -> None:
    """Require a loss with a gradient for each item that an objective read.

    Args:
        objective: that was called.
        losses: its answer.
        inputs: what it read of the model that is trained.
        count: how many items there were.
        items: what they are called.

    Raises:
        PluginError: naming the objective and what is wrong.
    """
    require_contract(losses_fault(objective, losses, count, items))
    require_contract(gradient_fault(objective, losses, inputs))


def reference_fault(
    objective: object, losses: Tensor, without_reference: Tensor, rewards: Sequence[Tensor]
) -> str:
    """A sentence if an objective reads the reference although ``needs_reference`` is False.

    Args:
        objective: that was called.
        losses: its losses.
        without_reference: its losses where the reference is NaN.
        rewards: sums of its implicit rewards where the reference is NaN.
    """
    name = name_of(objective)
    remedy = "set needs_reference = True"
    if bool((without_reference.isnan() & ~losses.isnan()).any()):
        return f"the loss of {name} reads the reference, and its needs_reference is False; {remedy}"
    if any(bool(reward.isnan()) for reward in rewards):
        return (
            f"the implicit reward of {name} reads the reference, and its needs_reference is False; {remedy}, or "
            "override implicit_reward"
        )
    return ""


def scores_fault(reward: object, scores: Any, num_responses: int) -> str:
    """What is wrong with the type or the shapes of a reward's scores; empty if nothing is.

    Example:
        >>> scores_fault(len, torch.zeros(2), 2)
        'len returned a Tensor; wrap it in Scores, as in return Scores(tensor)'
        >>> scores_fault(len, Scores(torch.zeros(2)), 3)
        'len gave [2] scores for 3 responses; each has one'
    """
    name = shown_name(reward)
    if not isinstance(scores, Scores):
        example = "tensor" if isinstance(scores, Tensor) else "torch.tensor(numbers)"
        return f"{name} returned {_kind(scores)}; wrap it in Scores, as in return Scores({example})"
    for part, values in {"scores": scores.total, **scores.parts}.items():
        if not isinstance(values, Tensor):
            return f"{name} gave {part} as {_kind(values)}; give a tensor with a number for each response"
        if values.shape != (num_responses,):
            return f"{name} gave {list(values.shape)} {part} for {num_responses} responses; each has one"
        if not values.is_floating_point():
            return f"{name} gave {part} of {values.dtype}; give floating-point numbers"
    return _scored_fault(name, scores.scored, num_responses)


def _scored_fault(name: str, scored: Any, num_responses: int) -> str:
    """What is wrong with a reward's statement of which responses it scored; None says all."""
    if scored is None:
        return ""
    if not isinstance(scored, Tensor) or scored.dtype != torch.bool:
        kind = f"a tensor of {scored.dtype}" if isinstance(scored, Tensor) else _kind(scored)
        return f"{name} gave scored as {kind}; give a boolean tensor, or None where all are scored"
    if scored.shape != (num_responses,):
        return (
            f"{name} gave {list(scored.shape)} scored for {num_responses} responses; each has one"
        )
    return ""


def group_fault(row_format: object, group: Any) -> str:
    """What is wrong with what a format made of a row; empty if nothing is.

    Example:
        >>> group_fault(len, {"prompt": "a"})
        'len returned a dict; return a Group with prompt, responses and labels'
        >>> group_fault(len, Group("a", ["b", "c"], (Pair(0, 2),)))
        'len compares responses 0 and 2 of 2; count them from 0'
    """
    name = name_of(row_format)
    if not isinstance(group, Group):
        return f"{name} returned {_kind(group)}; return a Group with prompt, responses and labels"
    if not isinstance(group.prompt, str | list):
        return f"{name} gave {_kind(group.prompt)} as prompt; give a text or a list of messages"
    if not isinstance(group.responses, list | tuple):
        return f"{name} gave {_kind(group.responses)} as responses; give a list"
    count = len(group.responses)
    for pair in group.pairs:
        fault = pair_fault(name, pair, count)
        if fault:
            return fault
    labels = {"binary labels": group.desirable, "places": group.ranking, "ratings": group.ratings}
    labels["lists of steps"] = group.steps
    for kind, values in labels.items():
        if len(values) not in (0, count):
            return f"{name} returned {len(values)} {kind} for {count} responses; give one for each"
    return ""


def pair_fault(name: str, pair: Any, count: int) -> str:
    """What is wrong with a comparison of two of ``count`` responses; empty if nothing is."""
    if not isinstance(pair, Pair):
        return f"{name} gave {_kind(pair)} as a comparison; give a Pair(better, worse)"
    if pair.better == pair.worse or not {pair.better, pair.worse} <= set(range(count)):
        return f"{name} compares responses {pair.better} and {pair.worse} of {count}; count them from 0"
    return ""


def advantages_fault(estimator: object, advantages: Any, shape: Sequence[int]) -> str:
    """What is wrong with the advantages of an iteration's tokens; empty if nothing is."""
    name = name_of(estimator)
    if not isinstance(advantages, Tensor):
        return (
            f"{name} returned {_kind(advantages)}; return a tensor with an advantage for each token"
        )
    if advantages.shape != tuple(shape):
        return (
            f"{name} returned advantages of shape {list(advantages.shape)} for tokens of shape {list(shape)}; return "
            "one for each token"
        )
    if not bool(advantages.isfinite().all()):
        return f"{name} returned advantages that are not finite; check for a division by zero"
    return ""


def embedded_fault(embedder: object, embedded: Any, num_inputs: int, d_model: int) -> str:
    """What is wrong with the type or the shapes of an embedder's tokens; empty if nothing is."""
    name = name_of(embedder)
    if not isinstance(embedded, tuple) or not hasattr(embedded, "tokens"):
        return f"{name}.embed returned {_kind(embedded)}; return Embedded(tokens, mask)"
    answer: Any = embedded
    tokens, mask = answer.tokens, answer.mask
    if not isinstance(tokens, Tensor) or tokens.dim() != 3:
        shape = list(tokens.shape) if isinstance(tokens, Tensor) else _kind(tokens)
        return f"{name}.embed returned tokens of shape {shape}; they are [inputs, tokens, d_model]"
    if tokens.shape[0] != num_inputs or tokens.shape[2] != d_model:
        return (
            f"{name}.embed returned tokens of shape {list(tokens.shape)} for {num_inputs} inputs and a d_model of "
            f"{d_model}; they are [inputs, tokens, d_model]"
        )
    if not isinstance(mask, Tensor) or mask.shape != tokens.shape[:2]:
        shape = list(mask.shape) if isinstance(mask, Tensor) else _kind(mask)
        return f"{name}.embed returned a mask of shape {shape} for tokens {list(tokens.shape)}; it is [inputs, tokens]"
    if mask.dtype != torch.bool:
        return f"{name}.embed returned a mask of {mask.dtype}; it is boolean"
    return ""


def replies_fault(judge: object, replies: Any, count: int, num_options: int = 0) -> str:
    """What is wrong with a judge model's replies to ``count`` questions; empty if nothing is.

    Args:
        judge: the judge model.
        replies: its answer.
        count: how many questions there were.
        num_options: how many options each question had; 0 for a text.
    """
    name = name_of(judge)
    is_list = isinstance(replies, list | tuple) and not hasattr(replies, "_fields")
    if not is_list or not all(hasattr(reply, "probabilities") for reply in replies):
        return f"{name} returned {_kind(replies)}; return a list with a Reply for each question"
    if len(replies) != count:
        return f"{name} returned {len(replies)} replies to {count} questions; return one for each"
    for reply in replies:
        if (
            num_options
            and reply.probabilities is not None
            and len(reply.probabilities) != num_options
        ):
            return f"{name} gave {len(reply.probabilities)} probabilities for {num_options} options; give one for each"
    return ""


class CompletionLimits(NamedTuple):
    """What completions are checked by.

    Args:
        num_prompts: how many prompts there were.
        num_generations: completions of each.
        max_new_tokens: limit of one, with the token that ends it.
        vocabulary: number of tokens there are.
        stop_tokens: that end a completion.
    """

    num_prompts: int
    num_generations: int
    max_new_tokens: int
    vocabulary: int
    stop_tokens: Collection[int]


def completions_fault(sampler: object, completions: Any, limits: CompletionLimits) -> str:
    """What is wrong with a sampler's completions; empty if nothing is."""
    name = name_of(sampler)
    num_prompts, num_generations = limits.num_prompts, limits.num_generations
    if not isinstance(completions, list) or len(completions) != num_prompts:
        count = len(completions) if isinstance(completions, list) else _kind(completions)
        return f"{name} returned {count} for {num_prompts} prompts; return a list with the completions of each"
    for number, generations in enumerate(completions):
        if not _is_plain_list(generations):
            return f"{name} returned {_kind(generations)} for prompt {number}; return a list of its completions"
        if len(generations) != num_generations:
            return f"{name} returned {len(generations)} completions of prompt {number}, not {num_generations}"
        for completion in generations:
            fault = _completion_type_fault(completion) or _completion_fault(completion, limits)
            if fault:
                return f"{name} returned a completion of prompt {number} {fault}"
    return ""


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and not hasattr(value, "_fields")


def _completion_type_fault(completion: Any) -> str:
    if not all(hasattr(completion, part) for part in ("ids", "logps", "ended")):
        return f"that is {_kind(completion)}; return a Completion(ids, logps, ended)"
    for part, values in {"ids": completion.ids, "logps": completion.logps}.items():
        if not _is_plain_list(values):
            return f"whose {part} are {_kind(values)}; give a list, as of tolist()"
    for token in completion.ids:
        if not isinstance(token, int) or isinstance(token, bool):
            return f"with {_kind(token)} among its ids; give each as an int"
    for logp in completion.logps:
        if not isinstance(logp, float | int) or isinstance(logp, bool):
            return f"with {_kind(logp)} among its log-probabilities; give each as a float"
    if not isinstance(completion.ended, bool):
        return f"whose ended is {_kind(completion.ended)}; give True or False"
    return ""


def _completion_fault(completion: Any, limits: CompletionLimits) -> str:
    num_tokens, most = len(completion.ids), limits.max_new_tokens
    if not 1 <= num_tokens <= most:
        return f"of {num_tokens} tokens; it has 1 to {most}, the token that ends it included"
    if num_tokens != len(completion.logps):
        return f"with {len(completion.logps)} log-probabilities of {num_tokens} tokens; give each token its own"
    if not all(map(math.isfinite, completion.logps)):
        return "with a log-probability that is not finite; a sampled token has a finite one"
    for token in (min(completion.ids), max(completion.ids)):
        if not 0 <= token < limits.vocabulary:
            return f"with the token {token}; the model has tokens from 0 to {limits.vocabulary - 1}"
    if completion.ended and completion.ids[-1] not in limits.stop_tokens:
        return (
            f"that ended with the token {completion.ids[-1]}, which ends nothing here; keep the stop token, one of "
            f"{sorted(limits.stop_tokens)}, or set ended to False"
        )
    if not completion.ended and num_tokens < most:
        return (
            f"that is cut off after {num_tokens} of {most} tokens; sample to the limit or to an end"
        )
    return ""


def kinds_fault(plugin: object, kinds: Any, allowed: Sequence[str]) -> str:
    """What is wrong with the ``label_kinds`` of a class; empty if nothing is."""
    is_set = isinstance(kinds, frozenset | set) and bool(kinds)
    if is_set and set(kinds) <= set(allowed):
        return ""
    shown = sorted(map(str, kinds)) if isinstance(kinds, frozenset | set) else repr(kinds)
    return (
        f"{name_of(plugin)}.label_kinds is {shown}; it must be some of {sorted(map(str, allowed))}"
    )


def _kind(value: Any) -> str:
    """A value in words: its type, or the value where it is a plain one."""
    if value is None:
        return "None"
    if isinstance(value, bool | int | float | str):
        return f"{repr(value)[:MAX_SHOWN]}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
