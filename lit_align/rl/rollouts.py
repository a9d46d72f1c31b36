"""What an iteration of on-policy learning has sampled, and what is known of it, token by token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lit_align.errors import ModelError, TrainingError
from lit_align.functional.kl import kl_estimates
from lit_align.models.generate import Completion
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import as_response, checked_scores
from lit_align.types import Batch, Group, Tree


@dataclass
class RolloutBatch:
    """Responses to some prompts, each prompt a tree, and figures of their tokens on the CPU.

    Args:
        trees: prompts with their responses as token ids.
        texts: the same as text, for rewards and the table.
        ended: ``[responses]``, whether the model ended it.
        sampler: ``[responses, longest]``, log-probabilities as the sampler saw them.
        scores: of the responses.
        tokens: by name, a figure of each token, ``[responses, longest]``, zero behind the end.
    """

    trees: list[Tree]
    texts: list[Group]
    ended: Tensor
    sampler: Tensor
    scores: Scores
    tokens: dict[str, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> Tensor:
        """Tokens of each response, ``[responses]``."""
        return torch.tensor([len(ids) for tree in self.trees for ids in tree.responses])

    @property
    def mask(self) -> Tensor:
        """Where there is a token, ``[responses, longest]``."""
        return torch.arange(int(self.length.max())) < self.length[:, None]

    @property
    def prompt(self) -> Tensor:
        """Which prompt a response answers, ``[responses]``."""
        return torch.tensor([k for k, tree in enumerate(self.trees) for _ in tree.responses])

    def take(self, name: str, batch: Batch, device: torch.device) -> Tensor:
        """A figure of the tokens of ``batch``, ``[n]``, in its order."""
        return torch.cat([self._of(name, tree) for tree in batch.source]).to(device)

    def keep(self, name: str, batch: Batch, values: Tensor) -> None:
        """Note a figure, ``[n]``, of the tokens of ``batch``; those of all batches make a matrix."""
        table = self.tokens.setdefault(name, torch.zeros(self.mask.shape))
        parts = iter(
            torch.split(
                values.detach().float().cpu(), [len(r) for t in batch.source for r in t.responses]
            )
        )
        for tree in batch.source:
            for row in self._rows(tree):
                part = next(parts)
                table[row, : len(part)] = part

    def figures(self, coefficient: float, critic: bool) -> dict[str, float]:
        """What an iteration's samples say, as dashboards know it."""
        estimates = kl_estimates(self.tokens["policy"], self.tokens["reference"])
        by_response = {
            name: (value * self.mask).sum(1).mean().item() for name, value in estimates.items()
        }
        gap = (self.sampler - self.tokens["policy"]).abs()[self.mask].max().item()
        returns, values = self.tokens["return"][self.mask], self.tokens["value"][self.mask]
        unexplained = (
            (returns - values).var() / returns.var().clamp(min=1e-12)
            if len(returns) > 1
            else torch.ones(())
        )
        found = {
            "objective/scores": self.scores.total.mean().item(),
            "objective/scores_std": self.scores.total.std(correction=0).item(),
            "objective/rlhf_reward": self.tokens["reward"].sum(1).mean().item(),
            "objective/kl": by_response["k1"],
            **{f"objective/kl_{name}": value for name, value in by_response.items()},
            "objective/kl_coefficient": coefficient,
            "objective/entropy": self.tokens["entropy"][self.mask].mean().item(),
            "objective/length": self.length.float().mean().item(),
            "objective/eos_rate": self.ended.float().mean().item(),
            "policy/sampler_gap": gap,
            **{f"rewards/{name}": part.mean().item() for name, part in self.scores.parts.items()},
        }
        return {**found, **({"val/explained_variance": 1 - unexplained.item()} if critic else {})}

    def _of(self, name: str, tree: Tree) -> Tensor:
        rows = zip(self._rows(tree), tree.responses, strict=True)
        return torch.cat([self.tokens[name][row, : len(response)] for row, response in rows])

    def _rows(self, tree: Tree) -> range:
        number = self.number[id(tree)]
        return range(number, number + len(tree.responses))

    def __post_init__(self) -> None:
        starts = torch.tensor([0, *(len(tree.responses) for tree in self.trees)]).cumsum(0).tolist()
        self.number = {id(tree): start for tree, start in zip(self.trees, starts, strict=False)}


@contextmanager
def sampling(together: int, limit: int) -> Iterator[None]:
    """Say what would have made it fit when memory runs out over so many responses of so many tokens.

    Raises:
        TrainingError: instead of what torch raises.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory while {together} responses of up to {limit} tokens were sampled at once; lower "
            "data.batch_size, model.num_generations or model.max_new_tokens (`lit-align inspect` says how far)"
        ) from error


def gathered(
    trees: Sequence[Tree],
    samples: Sequence[Sequence[Completion]],
    texts: Sequence[Sequence[str]],
    reward: Reward,
    folder: Path,
) -> RolloutBatch:
    """Score what was sampled, ``samples[prompt][k]``, and put it side by side.

    Raises:
        TrainingError: if the reward is not one number for each response, naming the prompt; what it was asked is then
            in ``bad_reward.jsonl`` in ``folder``.
    """
    grown, told = [], []
    for tree, row, said in zip(trees, samples, texts, strict=True):
        told.append(tree.group._replace(responses=[as_response(tree.group, one) for one in said]))
        ids = [sample.ids for sample in row]
        grown.append(
            tree._replace(responses=ids, scored=[[True] * len(one) for one in ids], group=told[-1])
        )
    scores = _scored(
        reward, told, sum(len(sample.ids) for row in samples for sample in row), folder
    )
    flat = [sample for row in samples for sample in row]
    logps = pad_sequence([torch.tensor(sample.logps) for sample in flat], batch_first=True)
    return RolloutBatch(grown, told, torch.tensor([sample.ended for sample in flat]), logps, scores)


def _scored(reward: Reward, groups: list[Group], tokens: int, folder: Path) -> Scores:
    """What the reward says, checked before anything is learned from it."""
    try:
        scores = checked_scores(reward, groups)
        by_token = scores.tokens if scores.tokens is None else scores.tokens.float().cpu()
        if by_token is not None and (by_token.shape != (tokens,) or not by_token.isfinite().all()):
            raise ModelError(
                f"{reward} gave {list(by_token.shape)} scores by token, {int(by_token.isfinite().sum())} of them "
                f"finite, for responses of {tokens} tokens; each has one"
            )
    except Exception as error:  # a stranger's code
        asked = _asked(groups, folder)
        said = str(error) if isinstance(error, ModelError) else f"{reward} failed: {error!r}"
        raise TrainingError(
            f"{said}; what it was asked, from {groups[0].source} on, is in {asked}"
        ) from error
    return Scores(
        scores.total.float().cpu(),
        {name: part.float().cpu() for name, part in scores.parts.items()},
        by_token,
    )


def _asked(groups: Sequence[Group], folder: Path) -> Path:
    """Write down prompts and responses, to ask the reward again."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {**one.extra, "source": one.source, "prompt": one.prompt, "responses": one.responses}
        for one in groups
    ]
    lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    (folder / "bad_reward.jsonl").write_text("".join(lines), "utf-8")
    return folder / "bad_reward.jsonl"
