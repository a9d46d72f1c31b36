"""Stage 2: learn to score responses from feedback (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_align.callbacks.predictions import record
from lit_align.data.label_conversion import ordered_pairs
from lit_align.data.scoring import score_trees
from lit_align.errors import ConfigError, DataError
from lit_align.models.adapter_files import save_adapter
from lit_align.models.load import tokenizer_fingerprint
from lit_align.objectives import Objective, PairwiseObjective, RankedObjective, RatedObjective
from lit_align.stages import preference_losses
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference_losses import Judged, Sums
from lit_align.types import Batch, Logps, PackedTrees, PairLabels, RankLabels, Step, Tree

NORMAL = 256  # groups on whose responses mean and scale are measured
SMALLEST = 1e-4  # a spread of scores that is no noise


class RewardModel(LanguageModelStage):
    """Train a reward model: an adapter with a head that reads the last token of each response.

    All comparisons of one prompt count as one, so that a prompt with many responses weighs as much as one with two. The
    loss is the mean over prompts, or over responses where they were rated one by one.

    Args:
        objective: the loss: BradleyTerry over pairs, PlackettLuce over rankings or Regression over ratings.
        members: adapters with heads of their own on the one base, which differ in their initial weights (with sft, in
            their heads alone); where they disagree, none should be trusted (Coste et al., 2024,
            https://arxiv.org/abs/2310.02743).
        settings: everything that all stages share; sft is a good place to start from.
    """

    def __init__(self, objective: Objective, members: int = 1, **settings: Any) -> None:
        if not objective.for_reward_model:
            raise ConfigError(
                f"{type(objective).__name__} is a loss over log-probabilities, and a reward model gives scores; use "
                "BradleyTerry, PlackettLuce or Regression"
            )
        if members < 1:
            raise ConfigError(f"members is {members}; an ensemble has at least 1")
        self.members = ("reward",) if members == 1 else tuple(f"reward{i}" for i in range(members))
        self.attributes = objective.attributes if isinstance(objective, RatedObjective) else ()
        super().__init__(objective, **settings)
        if self.best_of is not None:
            raise ConfigError(
                f"best_of is {self.best_of}, and a reward model answers nothing; leave it out"
            )
        self.normalised_at: int | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names, as dashboards know them."""
        spread = ("rewards/std",) if len(self.members) > 1 else ()
        if self.attributes:
            return (*(f"errors/{name}" for name in self.attributes), *spread)
        return ("rewards/chosen", "rewards/rejected", *preference_losses.COMPARED, *spread)

    @property
    def trained_roles(self) -> tuple[str, ...]:
        """One adapter for each member."""
        return self.members

    @property
    def head_sizes(self) -> dict[str, int]:
        """One output, or one for each rated attribute."""
        return dict.fromkeys(self.members, len(self.attributes) or 1)

    def configure_model(self) -> None:
        """Load the base, put the members on it, and tell their heads what each output counts."""
        super().configure_model()
        if isinstance(self.objective, RatedObjective):
            combine = self.objective.combine(torch.eye(len(self.attributes)))
            for member in self.members:
                self.adapters.head(member).combine.copy_(combine)

    def loss_denominator(self, step: Step) -> int:
        """Prompts, or rated responses."""
        return step.items if self.attributes else step.groups

    def clipping_groups(self) -> list[list[torch.nn.Parameter]]:
        """Each member for itself, so that it learns as it would alone."""
        named = self.adapters.trainable()
        return [
            [p for name, p in named.items() if f".{member}." in name] for member in self.members
        ]

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, Sums]:
        """Summed loss of the labels, of all members together; what is shown is their mean."""
        training = self.adapters.peft.training
        raw = [self.raw(member, batch.trees, training) for member in self.members]
        losses = torch.stack([self._judged(batch, one).losses.sum() for one in raw])
        sums: Sums = {"loss": (losses.detach().mean(), torch.zeros_like(losses[0]))}
        if not statistics:
            return losses.sum(), sums
        scores = torch.stack([one.detach() for one in raw])
        figures = self._judged(batch, scores.mean(0)).sums
        sums |= {name: value for name, value in figures.items() if name in self.metric_names}
        if len(raw) > 1:
            spread = scores.std(0).flatten()
            sums["rewards/std"] = (spread.sum(), spread.new_tensor(float(len(spread))))
        return losses.sum(), sums

    def raw(self, member: str, trees: PackedTrees, training: bool) -> Tensor:
        """What a member's head says of each response, ``[responses, outputs]``, before normalisation."""
        with self.adapters.activate(member, training):
            scores: Tensor = self.adapters.head(member)(self.tree_forward.last_hidden(trees))
            return scores

    def _judged(self, batch: Batch, scores: Tensor) -> Judged:
        """Losses and figures of one member's scores, ``[responses, outputs]``."""
        one = Logps(scores[:, 0], torch.zeros_like(scores[:, 0]), torch.ones_like(scores[:, 0]))
        match self.objective, batch:
            case PairwiseObjective() as pairwise, Batch(pairs=PairLabels() as labels):
                judged = preference_losses.pairs(pairwise, labels, one, noise=0.0)
                weight = [
                    1 / len(tree.group.pairs) for tree in batch.source for _ in tree.group.pairs
                ]
                return judged._replace(losses=judged.losses * judged.losses.new_tensor(weight))
            case RankedObjective() as ranked, Batch(rankings=RankLabels() as order):
                return preference_losses.rankings(ranked, order, one)
            case RatedObjective() as rated, _ if all(tree.group.ratings for tree in batch.source):
                return self._rated(rated, scores, scores.new_tensor(self._ratings(batch.source)))
            case other, _:
                raise DataError(
                    f"{batch.source[0].group.source} carries no label that {other} takes; use other data"
                )

    def _ratings(self, trees: Sequence[Tree]) -> list[list[float]]:
        """What the objective's attributes were rated, ``[responses, attributes]``, NaN where they were not."""
        every = [one for tree in trees for one in tree.group.ratings]
        return [[one.get(name, float("nan")) for name in self.attributes] for one in every]

    def _rated(self, objective: RatedObjective, scores: Tensor, ratings: Tensor) -> Judged:
        with torch.no_grad():
            errors, known = (scores - ratings).abs().nan_to_num(), ratings.isfinite().float()
            columns = zip(self.attributes, errors.T, known.T, strict=True)
            sums = {f"errors/{name}": (error.sum(), there.sum()) for name, error, there in columns}
        every = torch.arange(len(scores), device=scores.device)
        return Judged(objective(scores, ratings), every, every, sums)

    # ------------------------------------------------------------------ the score

    def on_train_epoch_end(self) -> None:
        """Measure what an ordinary score is, on the preferred responses of held-out prompts if there are any."""
        known = self.datamodule.trees
        self.normalise((known.get("validation") or known["train"])[:NORMAL])

    @torch.no_grad()
    def normalise(self, trees: Sequence[Tree]) -> None:
        """Set each member's mean and scale to those of its scores of the preferred responses in ``trees``."""
        kept = torch.tensor([like for tree in trees for like in preferred(tree)])
        for member in self.members:
            head = self.adapters.head(member)

            def score(batch: Batch, member: str = member) -> Tensor:
                return self.raw(member, batch.trees.to(self.device), training=False).cpu()

            scores = (
                score_trees(trees, score, self._budget(trees), dense=not self.block_sparse)[kept]
                @ head.combine.cpu()
            )
            scale = scores.std(correction=0)
            if not scale > SMALLEST:
                rank_zero_warn(
                    f"{member} scores all preferred responses alike, and is not scaled; give other data"
                )
                scale = torch.ones(())
            head.mean.copy_(scores.mean())
            head.scale.copy_(scale)
        self.normalised_at = self.global_step

    def _budget(self, trees: Sequence[Tree]) -> int:
        budget: int = self.datamodule.token_budget
        return max([budget, *(tree.tokens for tree in trees)])

    @torch.no_grad()
    def predict_step(
        self, numbered: list[tuple[int, Tree]], batch_idx: int
    ) -> list[dict[str, Any]]:
        """The scores of the responses of each row, as a JSON-able record."""
        trees = [tree for _, tree in numbered]
        if not trees:  # answered already
            return []
        each = score_trees(trees, self._score, self._budget(trees), dense=not self.block_sparse)
        rows = zip(trees, torch.split(each, [len(tree.responses) for tree in trees]), strict=True)
        return [
            record(t.group, {"responses": t.group.responses, "scores": s.tolist()}) for t, s in rows
        ]

    def _score(self, batch: Batch) -> Tensor:
        """The mean over members of each response's normalised score, ``[responses]``."""
        trees = batch.trees.to(self.device)
        return torch.stack(
            [
                self.adapters.head(m).normalize(self.raw(m, trees, training=False))
                for m in self.members
            ]
        ).mean(0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was measured too."""
        super().on_save_checkpoint(checkpoint)
        normal = {
            m: (self.adapters.head(m).mean.item(), self.adapters.head(m).scale.item())
            for m in self.members
        }
        checkpoint["normal"], checkpoint["normalised_at"] = normal, self.normalised_at

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.normalised_at = checkpoint["normalised_at"]
        for member, (mean, scale) in checkpoint["normal"].items():
            self.adapters.head(member).mean.fill_(mean)
            self.adapters.head(member).scale.fill_(scale)

    def compatibility_settings(self) -> dict[str, Any]:
        """The rows of a head mean nothing without their attributes."""
        rated = self.objective if isinstance(self.objective, RatedObjective) else None
        return {
            **super().compatibility_settings(),
            **({} if rated is None else {"objective": repr(rated)}),
        }

    def provenance(self) -> dict[str, Any]:
        """All that a score needs besides adapter and head."""
        return {
            **super().provenance(),
            "loads": asdict(self.base),
            "chat_template": self.chat_template,
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "normalised_at": self.normalised_at,
        }

    def save_adapter(self, folder: Path) -> None:
        """Write adapter, head, normalisation and provenance; one folder for each member."""
        for member in self.members:
            save_adapter(
                self.adapters,
                folder if len(self.members) == 1 else folder / member,
                member,
                self.provenance(),
            )


def preferred(tree: Tree) -> list[bool]:
    """Which responses nobody found worse than another.

    Example:
        >>> from lit_align.types import Group, Pair
        >>> preferred(Tree([1], [[2], [3]], [[True], [True]], Group("", ["", ""], (Pair(1, 0),))))
        [False, True]
    """
    group = tree.group
    worse = {pair.worse for pair in ordered_pairs(group.pairs)}
    best = min(filter(None, group.ranking), default=0)
    places = group.ranking or (best,) * len(tree.responses)
    found = [i not in worse and place == best for i, place in enumerate(places)]
    return (
        found if any(found) else [True] * len(found)
    )  # each is worse than another: nobody's favourite
