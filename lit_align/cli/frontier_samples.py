"""Sample the policy of a checkpoint and what it began from: how far apart they are, and what both earn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_align.chat.plain_text import is_plain_text_adapter
from lit_align.checkpoint_files import adapter_folder
from lit_align.data.label_conversion import to_prompt
from lit_align.data.scoring import UNLIMITED, score_trees
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import ConfigError
from lit_align.evaluation.frontier import FrontierPoint
from lit_align.functional.logps import sum_by_response
from lit_align.models.sample_responses import checked_completions
from lit_align.models.samplers import SampledModel, SamplingRequest
from lit_align.rewards import Group, Reward
from lit_align.rewards.base import as_response, checked_scores
from lit_align.types import Batch, Tree

TOKEN_BUDGET = 4096
"""Tokens of a forward pass of the reference."""


class Asked(NamedTuple):
    """What is asked of each checkpoint.

    Args:
        groups: the prompts.
        num_generations: responses to each prompt.
        max_new_tokens: longest response; None: that of the run.
        seed: of sampling.
        as_chat: whether a plain prompt is a user's turn, if there is a chat template.
    """

    groups: Sequence[Group]
    num_generations: int
    max_new_tokens: int | None
    seed: int
    as_chat: bool = True


class Sampled(NamedTuple):
    """Responses of one role.

    Args:
        groups: prompts with the responses as text.
        trees: the same as token ids.
        logps: log-probability of each response under the role, ``[responses]``.
    """

    groups: list[Group]
    trees: list[Tree]
    logps: Tensor


def sampled_points(
    stage: Any, asked: Asked, gold: Reward, proxy: Reward | None
) -> tuple[FrontierPoint, ...]:
    r"""The initial policy, and that of the checkpoint, at temperature 1.

    .. math:: \mathrm{KL} = E_{y \sim \pi}\Big[\log \frac{\pi(y|x)}{\pi_0(y|x)}\Big]

    Raises:
        ConfigError: if there is no proxy, or no policy.
    """
    if proxy is None:
        raise ConfigError("a checkpoint that is sampled needs the proxy too; give --proxy")
    if "policy" not in stage.trained_roles:
        raise ConfigError(
            f"{type(stage).__name__} trains no policy; give a run of SFT, Preference or RL"
        )
    points = []
    for role, label in (("reference", "initial"), ("policy", "trained")):
        sampled = _sample(stage, asked, role)
        kl = 0.0
        if role == "policy":
            kl = (sampled.logps - _reference_logps(stage, sampled.trees)).mean().item()
        rewards = (proxy, gold)
        means = [checked_scores(reward, sampled.groups).total.mean().item() for reward in rewards]
        points.append(FrontierPoint(kl, means[0], means[1], label))
    return tuple(points)


def _sample(stage: Any, asked: Asked, role: str) -> Sampled:
    chat = ChatTokenizer(stage.tokenizer, max_length=UNLIMITED, as_chat=asked.as_chat)
    prompts = [chat.encode(to_prompt(group)).tree.prompt for group in asked.groups]
    request = SamplingRequest(
        prompts,
        max_new_tokens=asked.max_new_tokens or stage.max_new_tokens,
        num_generations=asked.num_generations,
        seed=asked.seed,
    )
    model = SampledModel.of_role(stage.adapters, stage.tokenizer, role)
    sampler = stage.responder.sampler
    rows = checked_completions(sampler, model, request)
    groups, trees, logps = [], [], []
    for group, prompt, row in zip(asked.groups, prompts, rows, strict=True):
        ids = [completion.ids for completion in row]
        texts = [stage.tokenizer.decode(each, skip_special_tokens=True) for each in ids]
        responses = [as_response(group, str(text).strip()) for text in texts]
        answered = to_prompt(group)._replace(
            responses=responses, prompt_ids=prompt, response_ids=ids
        )
        groups.append(answered)
        trees.append(Tree(prompt, ids, [[True] * len(each) for each in ids], answered))
        logps += [sum(completion.logps) for completion in row]
    return Sampled(groups, trees, torch.tensor(logps, dtype=torch.float64))


@torch.no_grad()
def _reference_logps(stage: Any, trees: Sequence[Tree]) -> Tensor:
    """Log-probability of each response under the initial policy, ``[responses]``."""

    def score(batch: Batch) -> Tensor:
        packed = batch.trees.to(stage.adapters.model.device)
        with stage.adapters.activate("reference", training=False):
            logps = stage.tree_forward(packed).logps
        return sum_by_response(logps, packed.owner, packed.responses)

    return score_trees(trees, score, TOKEN_BUDGET, dense=True).double().cpu()


def reads_chat(checkpoint: Path) -> bool:
    """Whether the run at a checkpoint was trained on turns of a chat."""
    return not is_plain_text_adapter(adapter_folder(checkpoint))
