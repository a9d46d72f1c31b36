"""A reward model that is trained on between rounds (D2PO: Singhal et al., 2024, https://arxiv.org/abs/2405.01511)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_align import Register, hookimpl
from lit_align.data.scoring import limit_to_positions, score_trees, tokenize_groups
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.from_reward import FromReward
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet


@dataclass(frozen=True)
class Discriminator(Feedback):
    """Few labels are bought in each round, a reward model learns from them, and it labels everything.

    It keeps up with the policy, whose newest responses the labels are of, and costs a share of what labelling all of
    them would.

    Args:
        reward: the reward model as it is at first; what it learns stays in memory and in the checkpoint.
        gold: whose labels are bought, such as a Judge.
        label_budget: prompts of a round that are labelled by gold.
        epochs: passes over them.
        batch_size: prompts in an update.
        lr: learning rate.

    Raises:
        ValueError: if a number is out of range.
    """

    reward: RewardModelScore
    gold: Feedback
    label_budget: int = 32
    epochs: int = 1
    batch_size: int = 8
    lr: float = 1e-4

    def __post_init__(self) -> None:
        if min(self.label_budget, self.epochs, self.batch_size) < 1 or not self.lr > 0:
            raise ValueError(
                "labels, epochs and batch_size must be at least 1 and lr above 0, got "
                f"{self.label_budget}, {self.epochs}, {self.batch_size} and {self.lr}"
            )

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        self.reward.attach(adapters, tokenizer)
        self.gold.attach(adapters, tokenizer)

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        bought = self.gold(groups[: self.label_budget], "pairs")
        self._learn([opinion.group for opinion in bought if opinion.group is not None])
        found = FromReward(self.reward)(groups, label_kind)
        found[: len(bought)] = [
            mine._replace(records=(*theirs.records, *mine.records))
            for theirs, mine in zip(bought, found, strict=False)
        ]
        return found

    def _learn(self, groups: Sequence[Group]) -> None:
        """Bradley and Terry's loss over comparisons, on each member of an ensemble apart."""
        if not groups:  # the round had nothing but ties
            return
        seat = self.reward.seat
        trees, _ = tokenize_groups(
            groups, seat.tokenizer, limit_to_positions(seat.adapters.model, self.reward.max_length)
        )
        for member in seat.members:
            weights = seat.adapters.parameters_for(member)
            optimizer = torch.optim.AdamW(weights, self.lr, weight_decay=0.0)
            draw = torch.Generator().manual_seed(len(groups))
            head = seat.adapters.head(member)

            def score(batch: Batch, head: Any = head) -> torch.Tensor:
                return head.normalize(
                    head(seat.read.last_hidden(batch.trees.to(seat.adapters.model.device)))
                )  # type: ignore[no-any-return]

            with seat.adapters.activate(member, training=True), torch.enable_grad():
                for weight in weights:
                    weight.requires_grad_(True)
                for _ in range(self.epochs):
                    for part in torch.randperm(len(trees), generator=draw).split(self.batch_size):  # type: ignore[no-untyped-call]
                        chosen = part.tolist()
                        scores = score_trees(
                            [trees[i] for i in chosen], score, self.reward.token_budget, dense=True
                        )
                        optimizer.zero_grad()
                        _loss(scores, [groups[i] for i in chosen]).backward()  # type: ignore[no-untyped-call]
                        optimizer.step()
                for weight in weights:
                    weight.requires_grad_(False)
                    weight.grad = None

    def state(self) -> dict[str, Any]:
        seat = self.reward.seat
        return {
            member: [
                seat.adapters.copy_weights(member),
                dict(seat.adapters.head(member).state_dict()),
            ]
            for member in seat.members
        }

    def restore(self, state: dict[str, Any]) -> None:
        adapters = self.reward.seat.adapters
        for member, (weights, head) in state.items():
            adapters.set_weights(member, weights)
            adapters.head(member).load_state_dict(head)


def _loss(scores: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
    """Mean over all comparisons; ``scores`` are those of the groups' responses in order."""
    starts = torch.tensor([0, *(len(group.responses) for group in groups)]).cumsum(0).tolist()
    pairs = [
        (start, pair) for start, group in zip(starts, groups, strict=False) for pair in group.pairs
    ]
    better = scores[[start + pair.better for start, pair in pairs]]
    worse = scores[[start + pair.worse for start, pair in pairs]]
    return binary_cross_entropy_with_logits(
        better - worse, scores.new_tensor([pair.probability for _, pair in pairs])
    )


@hookimpl
def register_feedback(register: Register) -> None:
    register(Discriminator)
