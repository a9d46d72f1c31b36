"""A reward model trained between rounds (D2PO: Singhal et al., 2024, https://arxiv.org/abs/2405.01511)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least, check_positive
from lit_align.data.scoring import limit_to_positions, score_trees, tokenize_groups
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.from_reward import FromReward
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.types import Batch, Tree


@dataclass(frozen=True)
class Discriminator(Feedback):
    """Get a few gold labels in each round, train a reward model on them, and let it label all groups.

    The reward model follows the policy, because it is trained on the policy's newest responses, for a fraction of the
    cost of labelling all of them.

    Args:
        reward: the initial reward model; its updates stay in memory and in the checkpoint.
        gold: source of the gold labels, such as a Judge.
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
        check_at_least("label_budget", self.label_budget, 1)
        check_at_least("epochs", self.epochs, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_positive("lr", self.lr)

    def wrapped(self) -> Sequence[Wrapping]:
        return (self.reward, self.gold)

    def decided_by(self) -> Sequence[Wrapping]:
        """The reward model labels; gold teaches it."""
        return (self.reward,)

    def can_split(self) -> bool:
        """False: it is trained on what it is asked."""
        return False

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        gold_results = self.gold(groups[: self.label_budget], "pairs")
        labelled = [result.group for result in gold_results if result.group is not None]
        if labelled:
            self._train(labelled)
        results = FromReward(self.reward)(groups, label_kind)
        for i, gold in enumerate(gold_results):
            results[i] = results[i]._replace(records=(*gold.records, *results[i].records))
        return results

    def _train(self, groups: Sequence[Group]) -> None:
        """Train each member of the ensemble on the comparisons."""
        loaded = self.reward.loaded
        max_length = limit_to_positions(loaded.adapters.model, self.reward.max_length)
        reads_chat = self.reward.reads_chat
        trees, _ = tokenize_groups(groups, loaded.tokenizer, max_length, reads_chat)
        for member in loaded.members:
            weights = loaded.adapters.parameters_for(member)
            with loaded.adapters.activate(member, training=True), torch.enable_grad():
                for weight in weights:
                    weight.requires_grad_(True)
                self._train_member(member, weights, trees, groups)
                for weight in weights:
                    weight.requires_grad_(False)
                    weight.grad = None

    def _train_member(
        self,
        member: str,
        weights: list[torch.nn.Parameter],
        trees: Sequence[Tree],
        groups: Sequence[Group],
    ) -> None:
        loaded = self.reward.loaded
        head = loaded.adapters.head(member)
        optimizer = torch.optim.AdamW(weights, self.lr, weight_decay=0.0)
        generator = torch.Generator().manual_seed(len(groups))

        def score(batch: Batch) -> Tensor:
            packed = batch.trees.to(loaded.adapters.model.device)
            return head.normalize(head(loaded.tree_forward.last_hidden(packed)))

        for _ in range(self.epochs):
            order = torch.randperm(len(trees), generator=generator)
            for part in order.split(self.batch_size):  # type: ignore[no-untyped-call]
                indices = part.tolist()
                batch_trees = [trees[i] for i in indices]
                scores = score_trees(batch_trees, score, self.reward.token_budget, dense=True)
                optimizer.zero_grad()
                loss = bradley_terry_loss(scores, [groups[i] for i in indices])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def state(self) -> dict[str, Any]:
        loaded = self.reward.loaded
        state = {}
        for member in loaded.members:
            head = dict(loaded.adapters.head(member).state_dict())
            state[member] = [loaded.adapters.copy_weights(member), head]
        return state

    def restore(self, state: dict[str, Any]) -> None:
        adapters = self.reward.loaded.adapters
        for member, (weights, head) in state.items():
            adapters.set_weights(member, weights)
            adapters.head(member).load_state_dict(head)


def bradley_terry_loss(scores: Tensor, groups: Sequence[Group]) -> Tensor:
    """Mean Bradley-Terry loss over all comparisons, with soft labels.

    Args:
        scores: of the groups' responses in order, ``[responses]``.
        groups: with pairs.
    """
    better, worse, probabilities = [], [], []
    offset = 0
    for group in groups:
        for pair in group.pairs:
            better.append(offset + pair.better)
            worse.append(offset + pair.worse)
            probabilities.append(pair.probability)
        offset += len(group.responses)
    logits = scores[better] - scores[worse]
    return binary_cross_entropy_with_logits(logits, scores.new_tensor(probabilities))


@hookimpl
def register_feedback(register: Register) -> None:
    register(Discriminator)
