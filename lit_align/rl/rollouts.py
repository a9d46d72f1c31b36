"""One iteration's rollouts: sampled responses with their scores and per-token values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_align.functional.kl import kl_estimates
from lit_align.processes import Processes
from lit_align.rl.response_scores import join_scores, split_scores
from lit_align.rl.selection import Selected
from lit_align.types import Batch, Group, Scores, Step, Tree

TokenField = Literal[
    "old_logps",
    "ref_logps",
    "sampler_logps",
    "entropy",
    "collision",
    "values",
    "rewards",
    "returns",
    "advantages",
]


class TokenValues(NamedTuple):
    """Numbers of the response tokens of a micro-batch, on its device.

    Args:
        name: what they are.
        batch: the micro-batch.
        values: ``[n]``, in its order.
    """

    name: TokenField
    batch: Batch
    values: Tensor


RESPONSE_METRICS = ("objective/scores", "objective/kl", "objective/length", "objective/eos_rate")
"""Metrics of each response, which validation logs."""

SAMPLE_METRICS = (
    *RESPONSE_METRICS,
    "objective/rlhf_reward",
    "objective/kl_k1",
    "objective/kl_k2",
    "objective/kl_k3",
    "objective/entropy",
    "objective/scores_std",
    "objective/frac_scores_zero_std",
    "objective/kl_coefficient",
    "objective/kl_error",
    "policy/max_advantage",
    "policy/sampler_gap",
    "policy/sampler_kl",
    "val/explained_variance",
)
"""What `RolloutBatch.metrics` returns; the last is of a run with a critic."""


class SampledPrompt(NamedTuple):
    """A prompt with its sampled responses; tensors are on the CPU.

    Args:
        tree: with the responses as token ids, and as text in its group.
        ended: whether a response ended with EOS, ``[responses]``.
        logps: log-probabilities of its tokens as the sampler computed them, of each response.
        scores: what the reward gave.
    """

    tree: Tree
    ended: Tensor
    logps: list[Tensor]
    scores: Scores


@dataclass
class RolloutBatch:
    """Responses to the prompts of one iteration; tensors are on the CPU.

    Args:
        trees: prompts with their responses as token ids.
        groups: the same as text, for rewards and the sample log.
        ended: whether a response ended with EOS, ``[responses]``.
        sampler_logps: log-probabilities as the sampler computed them, ``[responses, longest]``.
        scores: what the reward gave.
        tokens: by name, a number for each token, ``[responses, longest]``, zero at padding.
        selected: what becomes of each response; all are learned from unless `select` was called.
        selection_metrics: shares of the responses that are left out.

    Attributes:
        length: tokens of each response, ``[responses]``.
        mask: true at tokens, false at padding, ``[responses, longest]``.
        prompt: index of the prompt of each response, ``[responses]``.
    """

    trees: list[Tree]
    groups: list[Group]
    ended: Tensor
    sampler_logps: Tensor
    scores: Scores
    tokens: dict[TokenField, Tensor] = field(default_factory=dict)
    selected: Selected = field(init=False)
    selection_metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths: list[int] = []
        prompts: list[int] = []
        self._first_row: dict[int, int] = {}
        for index, tree in enumerate(self.trees):
            self._first_row[id(tree)] = len(lengths)
            lengths += [len(response) for response in tree.responses]
            prompts += [index] * len(tree.responses)
        self.length, self.prompt = torch.tensor(lengths), torch.tensor(prompts)
        self.mask = torch.arange(max(lengths)) < self.length[:, None]
        self.tokens["sampler_logps"] = self.sampler_logps
        self.selected = Selected.everything(len(lengths))

    @classmethod
    def of_prompts(cls, prompts: Sequence[SampledPrompt]) -> RolloutBatch:
        """The rollouts of these prompts, in order."""
        return cls(
            trees=[prompt.tree for prompt in prompts],
            groups=[prompt.tree.group for prompt in prompts],
            ended=torch.cat([prompt.ended for prompt in prompts]),
            sampler_logps=pad_sequence([*chain.from_iterable(p.logps for p in prompts)], True),
            scores=join_scores([prompt.scores for prompt in prompts]),
        )

    def prompts(self) -> list[SampledPrompt]:
        """Each prompt with its responses, as `of_prompts` takes them."""
        sampled = []
        for tree, scores in zip(self.trees, split_scores(self.scores, self.trees), strict=True):
            rows = [*self.rows(tree)]
            logps = [self.sampler_logps[row, : self.length[row]] for row in rows]
            sampled.append(SampledPrompt(tree, self.ended[rows], logps, scores))
        return sampled

    def __contains__(self, tree: Tree) -> bool:
        return id(tree) in self._first_row

    def rows(self, tree: Tree) -> range:
        """Rows of the responses of one of ``trees``."""
        first = self._first_row[id(tree)]
        return range(first, first + len(tree.responses))

    def learned_trees(self) -> list[Tree]:
        """Trees with a response that is learned from."""
        learned = self.selected.learned
        return [tree for tree in self.trees if bool(learned[[*self.rows(tree)]].any())]

    def count_learned(self, step: Step, trees: Sequence[Tree]) -> Step:
        """A step of ``trees`` whose tokens and items are those of the responses that are learned from."""
        rows = [row for tree in trees for row in self.rows(tree)]
        learned = self.selected.learned[rows]
        tokens = int(self.length[rows][learned].sum())
        return step._replace(tokens=tokens, items=int(learned.sum()))

    def learned_tokens(self, batch: Batch) -> Tensor | None:
        """Which response tokens of a micro-batch are learned from, ``[n]``, in its order; None if all are."""
        learned = self.selected.learned
        if bool(learned.all()):
            return None
        rows = [row for tree in batch.source for row in self.rows(tree)]
        return learned[rows].repeat_interleave(self.length[rows])

    def logged_step(self, step: Step, share: Sequence[Tree]) -> Step:
        """The step of prompts with a process's share of the responses as its trees, whose tokens the log counts."""
        batch = step.batches[0]._replace(source=tuple(share))
        return step._replace(batches=(batch,), tokens=int(self.length.sum()))

    def set_tokens(self, computed: Sequence[TokenValues]) -> None:
        """Store numbers of tokens; those of all micro-batches cross to the CPU together."""
        if not computed:
            return
        flat = torch.cat([each.values.detach().float() for each in computed]).cpu()
        lengths = [len(each.values) for each in computed]
        for each, values in zip(computed, torch.split(flat, lengths), strict=True):
            table = self.tokens.setdefault(each.name, torch.zeros(self.mask.shape))
            table.view(-1)[self._places(each.batch)] = values

    def gather_tokens(self, names: Sequence[TokenField], processes: Processes) -> None:
        """Let every process have the numbers of all tokens, each of which one of them has stored; once for a name."""
        if processes.world == 1:
            return
        missing = torch.zeros(self.mask.shape)
        tables = processes.sum(torch.stack([self.tokens.get(name, missing) for name in names]))
        self.tokens.update(zip(names, tables, strict=True))

    def get_tokens(
        self, names: Sequence[TokenField], batch: Batch, device: torch.device
    ) -> dict[TokenField, Tensor]:
        """Stored numbers of the response tokens of a micro-batch, ``[n]`` each, in its order; they cross together."""
        places = self._places(batch)
        tables: dict[TokenField, Tensor] = {"sampler_logps": self.sampler_logps, **self.tokens}
        stored = torch.stack([tables[name].view(-1)[places] for name in names])
        return dict(zip(names, stored.to(device), strict=True))

    def _places(self, batch: Batch) -> Tensor:
        """Places of the response tokens of a micro-batch in a flattened table, ``[n]``, in its order."""
        rows = torch.tensor([row for tree in batch.source for row in self.rows(tree)])
        lengths = self.length[rows]
        ends = lengths.cumsum(0)
        starts = rows * self.mask.shape[1] - (ends - lengths)
        return starts.repeat_interleave(lengths) + torch.arange(int(ends[-1]))

    @property
    def kl(self) -> dict[str, Tensor]:
        """By estimator, KL divergence from the reference at each token, ``[responses, longest]``."""
        estimates = kl_estimates(self.tokens["old_logps"], self.tokens["ref_logps"])
        return {name: estimate * self.mask for name, estimate in estimates.items()}

    def response_metrics(self) -> dict[str, Tensor]:
        """Metrics of each response, ``[responses]``, as validation logs their means; scores of those that have one."""
        kl = self.kl["k1"].sum(1)
        scores = self.score_totals[self.is_scored]
        values = (scores, kl, self.length.float(), self.ended.float())
        return dict(zip(RESPONSE_METRICS, values, strict=True))

    @property
    def score_totals(self) -> Tensor:
        """What the reward gave each response in all, with the scores of its tokens, ``[responses]``."""
        if self.scores.tokens is None:
            return self.scores.total
        by_token = torch.zeros(self.mask.shape).masked_scatter(self.mask, self.scores.tokens)
        return self.scores.total + by_token.sum(1)

    @property
    def is_scored(self) -> Tensor:
        """Which responses the reward scored, ``[responses]``."""
        if self.scores.scored is None:
            return torch.ones_like(self.ended)
        return self.scores.scored

    def metrics(self, kl_coefficient: float, with_critic: bool) -> dict[str, float]:
        """Metrics of the iteration's samples, by the names that dashboards of RLHF use."""
        rewards, entropy = self.tokens["rewards"].sum(1), self.tokens["entropy"][self.mask]
        response_kl = {name: estimate.sum(1) for name, estimate in self.kl.items()}
        scores = self.score_totals[self.is_scored]
        means = {
            "objective/scores": scores,
            "objective/rlhf_reward": rewards[self.is_scored],
            "objective/kl": response_kl["k1"],
            "objective/kl_k1": response_kl["k1"],
            "objective/kl_k2": response_kl["k2"],
            "objective/kl_k3": response_kl["k3"],
            "objective/entropy": entropy,
            "objective/length": self.length.float(),
            "objective/eos_rate": self.ended.float(),
        }
        for name, part in self.scores.parts.items():
            means[f"rewards/{name}"] = part[self.is_scored & ~part.isnan()]
        metrics = {name: values.mean().item() for name, values in means.items() if len(values)}
        if len(scores):
            metrics["objective/scores_std"] = scores.std(correction=0).item()
        if len(self.trees) < len(self.length):
            metrics["objective/frac_scores_zero_std"] = self._share_without_difference()
        metrics["objective/kl_coefficient"] = kl_coefficient
        metrics["objective/kl_error"] = _standard_error(response_kl["k1"])
        advantages = self.tokens["advantages"][self.mask]
        metrics["policy/max_advantage"] = advantages.abs().max().item()
        sampler_gap = (self.sampler_logps - self.tokens["old_logps"]).abs()
        metrics["policy/sampler_gap"] = sampler_gap[self.mask].max().item()
        sampler_kl = kl_estimates(self.sampler_logps, self.tokens["old_logps"])["k3"]
        metrics["policy/sampler_kl"] = sampler_kl[self.mask].mean().item()
        metrics |= self.selection_metrics
        if with_critic:
            metrics["val/explained_variance"] = self._explained_variance()
        return metrics

    def _share_without_difference(self) -> float:
        """Share of the prompts whose scored responses all have the same score; prompts without a score do not count."""
        totals, num_scored, num_alike = self.score_totals, 0, 0
        for index in range(len(self.trees)):
            scores = totals[self.is_scored & (self.prompt == index)]
            num_scored += bool(len(scores))
            num_alike += bool(len(scores) and (scores == scores[0]).all())
        return num_alike / max(num_scored, 1)

    def _explained_variance(self) -> float:
        """Share of the variance of returns that the values explain; 0 for a single token or none."""
        learned = self.mask & self.selected.learned[:, None]
        returns, values = self.tokens["returns"][learned], self.tokens["values"][learned]
        if len(returns) <= 1:
            return 0.0
        unexplained = (returns - values).var() / returns.var().clamp(min=1e-12)
        return 1 - unexplained.item()


def _standard_error(values: Tensor) -> float:
    """Of a mean over responses; 0 for a single one."""
    return values.std().item() / len(values) ** 0.5 if len(values) > 1 else 0.0
