"""Metrics and answers of a model on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from lit_align.data.datamodules import to_device
from lit_align.data.packing import pack
from lit_align.functional.logps import sum_by_response
from lit_align.functional.text_metrics import (
    abstains,
    contains_keywords,
    distinct_share,
    is_short,
    true_share,
)
from lit_align.run_report.sampled import last_message
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.types import Tree

BATCH_SIZE = 32  # prompts that are answered at once: the weights of a 4-bit base are unpacked once for all of them
MIN_BUDGET = 2048  # tokens of a micro-batch


@torch.no_grad()
def held_out_results(
    stage: LanguageModelStage,
    trees: Sequence[Tree],
    role: str,
    max_new_tokens: int,
    length_tolerance: float,
) -> tuple[dict[str, Any], list[str]]:
    """Metrics and answers of one adapter on held-out prompts.

    Args:
        stage: the run.
        trees: the prompts, with their recorded responses.
        role: the adapter.
        max_new_tokens: longest answer.
        length_tolerance: pairs whose lengths differ by at most this share enter ``pair_accuracy``.
    """
    answers: list[str] = []
    _print(f"asking {len(trees)} questions ...")
    for start in range(0, len(trees), BATCH_SIZE):
        prompts = [tree.prompt for tree in trees[start : start + BATCH_SIZE]]
        answers += stage.responder.answer(
            prompts, role, max_new_tokens=max_new_tokens or stage.max_new_tokens
        )
        _print(f"  {len(answers)} of {len(trees)}")
    pair_flags = prefers_chosen(stage, trees, role, length_tolerance)
    metrics = {"pair_accuracy": true_share(pair_flags), "pairs": len(pair_flags)}
    return {**metrics, **answer_metrics(answers, trees)}, answers


def answer_metrics(answers: Sequence[str], trees: Sequence[Tree]) -> dict[str, Any]:
    """Metrics of the texts of answers, given the columns ``answerable`` and ``keywords`` of their rows."""
    has_keywords: list[bool] = []
    abstains_by_kind: dict[bool, list[bool]] = {True: [], False: []}  # answerable → abstains
    for answer, tree in zip(answers, trees, strict=True):
        is_answerable = bool(tree.group.extra.get("answerable", True))
        keywords = tree.group.extra.get("keywords", [])
        if is_answerable and keywords:
            has_keywords.append(contains_keywords(answer, keywords))
        abstains_by_kind[is_answerable].append(abstains(answer))
    return {
        "short_answers": true_share([is_short(answer) for answer in answers]),
        "distinct_answers": distinct_share(answers),
        "keyword_hits": true_share(has_keywords),
        "abstains_when_unanswerable": true_share(abstains_by_kind[False]),
        "abstains_when_answerable": true_share(abstains_by_kind[True]),
    }


def prefers_chosen(
    stage: LanguageModelStage, trees: Sequence[Tree], role: str, length_tolerance: float
) -> list[bool]:
    """For each pair of similar length: whether the chosen response is more probable per token."""
    flags: list[bool] = []
    budget = max(MIN_BUDGET, *(tree.tokens for tree in trees))
    for cpu_batch in pack(trees, budget=budget, dense=True):
        batch = to_device(cpu_batch, stage.device)
        pairs, owner, num_responses = batch.pairs, batch.trees.owner, batch.trees.responses
        if pairs is None:
            continue
        with stage.adapters.activate(role, training=False):
            logps = stage.tree_forward(batch.trees).logps
        length = torch.bincount(owner, minlength=num_responses)
        mean_logp = sum_by_response(logps, owner, num_responses) / length
        chosen_length, rejected_length = length[pairs.chosen], length[pairs.rejected]
        difference = (chosen_length - rejected_length).abs()
        is_similar = difference <= length_tolerance * torch.maximum(chosen_length, rejected_length)
        is_right = mean_logp[pairs.chosen] > mean_logp[pairs.rejected]
        flags += is_right[is_similar].tolist()
    return flags


def question_text(tree: Tree) -> str:
    """The prompt, or its last message."""
    return last_message(tree.group.prompt)


@rank_zero_only
def _print(text: str) -> None:
    print(text, flush=True)
