"""Did the chosen responses become rarer, where did their probability go, and did the loss ask for it?

Losses that see only the difference of two responses may lower both, the rejected one faster; the probability then goes
to responses that are in no data set (Razin et al., 2024, https://arxiv.org/abs/2410.08847).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_align.data.datamodules import to_device
from lit_align.data.packing import pack
from lit_align.functional.logps import sum_by_response
from lit_align.objectives import PairwiseObjective
from lit_align.stages.preference import Preference
from lit_align.types import Tree

FALL = -0.1  # nats a response; less is no news


class Displacement(NamedTuple):
    """Log-probabilities of responses now, less those before training; means over pairs, in nats.

    Args:
        pairs: how many were looked at.
        chosen: of the chosen response.
        rejected: of the rejected one.
        both: of either of the two, log (π(y_w) + π(y_l)) / (ρ(y_w) + ρ(y_l)); what they lost, all others won.
        pull: by how much a small step down the loss now raises the chosen response, as far as its own
            log-probability goes: the loss's slope, with its sign turned.
    """

    pairs: int
    chosen: float
    rejected: float
    both: float
    pull: float

    @classmethod
    def of(cls, chosen: Tensor, rejected: Tensor, pull: Tensor) -> Displacement:
        """From log-probabilities before and after, ``[2, pairs]`` each, and the slopes, ``[pairs]``."""
        sides = torch.stack([chosen, rejected, torch.logaddexp(chosen, rejected)])
        moved = (sides[:, 1] - sides[:, 0]).mean(1).tolist()
        return cls(chosen.shape[1], moved[0], moved[1], moved[2], float(pull.mean()))

    def story(self, objective: PairwiseObjective) -> str:
        """What happened, in two or three sentences.

        Example:
            >>> from lit_align.objectives.dpo import DPO
            >>> print(Displacement(8, -3.0, -20.0, -4.0, 0.01).story(DPO()))
            Chosen responses became rarer: -3.0 nats on average over 8 pairs; rejected ones: -20.0 nats. What both lost
            went elsewhere, to responses that are in no pair. DPO allows it: it sees the difference of the two alone,
            which grew by 17.0 nats. To hold the chosen one up, train Mix with CrossEntropy, as configs/demo.yaml does.
            >>> print(Displacement(8, 2.0, -5.0, 1.5, 0.01).story(DPO()))
            Chosen responses became likelier: +2.0 nats on average over 8 pairs; rejected ones: -5.0 nats.
        """
        name = type(objective).__name__
        word = "likelier" if self.chosen > 0 else "rarer"
        told = f"Chosen responses became {word}: {self.chosen:+.1f} nats on average over {self.pairs} pairs; "
        told += f"rejected ones: {self.rejected:+.1f} nats."
        if self.chosen > FALL:
            return _wrapped(told)
        if self.rejected > 0:
            told += " Part of what they lost went to the rejected ones"
            told += ", the rest elsewhere." if self.both < 0 else "."
        else:
            told += " What both lost went elsewhere, to responses that are in no pair."
        if self.pull < 0:
            told += f" {name} asks for it: where the run ended, its slope lowers the chosen response as well."
        elif objective.margin_only:
            told += f" {name} allows it: it sees the difference of the two alone, which grew by "
            told += f"{self.chosen - self.rejected:.1f} nats. To hold the chosen one up, train Mix with CrossEntropy, "
            told += "as configs/demo.yaml does."
        else:
            told += f" {name} does not ask for it: its slope raises the chosen response. Tokens that both responses "
            told += (
                "share were lowered with the rejected one; try a lower learning rate, or more data."
            )
        return _wrapped(told)


def displacement(module: Preference, trees: Sequence[Tree]) -> Displacement | None:
    """Compare policy and reference on the pairs of ``trees``; None if there are none."""
    chosen, rejected, pull = [], [], []
    for batch in (
        pack(trees, budget=max(2048, *(tree.tokens for tree in trees)), dense=True) if trees else []
    ):
        batch = to_device(batch, module.device)
        if (labels := batch.pairs) is None:
            continue
        logps = []
        for role in ("reference", "policy"):
            with torch.no_grad(), module.adapters.activate(role, training=False):
                tokens = module.tree_forward(batch.trees, statistics=role == "policy")
            logps.append(sum_by_response(tokens.logps, batch.trees.owner, batch.trees.responses))
        leaf = tokens.logps.detach().requires_grad_()
        (slope,) = torch.autograd.grad(
            module.judged(batch, tokens._replace(logps=leaf)).losses.sum(), leaf
        )
        of_response = sum_by_response(slope, batch.trees.owner, batch.trees.responses)
        before_after = torch.stack(logps)
        chosen.append(before_after[:, labels.chosen])
        rejected.append(before_after[:, labels.rejected])
        pull.append(-of_response[labels.chosen])
    return (
        Displacement.of(torch.cat(chosen, 1), torch.cat(rejected, 1), torch.cat(pull))
        if chosen
        else None
    )


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 118)
