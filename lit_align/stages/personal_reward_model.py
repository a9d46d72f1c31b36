"""A reward model for each person: one adapter for all, and a head for each annotator, shrunk towards the mean head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_align.annotators import (
    SALT_VARIABLE,
    annotator_key,
    is_clear,
    salt_check,
    salt_remedy,
)
from lit_align.batch_labels import PairLabels, RankLabels
from lit_align.checks import check_at_least, check_positive
from lit_align.data.packing import pack, pack_rows
from lit_align.data.transfer import numbers_to_device
from lit_align.errors import ConfigError
from lit_align.functional.mixtures import shared_minima, spread_out
from lit_align.functional.shrinkage import shrunk_minimum
from lit_align.models.personal_head import Annotators, PersonalHead
from lit_align.objectives import Objective, PairwiseObjective, RankedObjective
from lit_align.processes import Processes
from lit_align.stages.exact_step import MetricSums
from lit_align.stages.reward_model import RewardModel
from lit_align.types import Batch, Tree


class LabelledStates(NamedTuple):
    """Rows and what a head reads of them.

    Args:
        batch: with their labels.
        hidden: ``[responses, d + 1]`` hidden states in double precision, and a 1 after them.
    """

    batch: Batch
    hidden: Tensor

    @classmethod
    def join(cls, parts: Sequence[LabelledStates]) -> LabelledStates:
        """All of them as a single batch in their order, which has the labels and no text."""
        trees = [_without_text(tree) for part in parts for tree in part.batch.source]
        batch = pack_rows([[tree] for tree in trees])
        return cls(batch, torch.cat([part.hidden for part in parts]))


def _without_text(tree: Tree) -> Tree:
    """A row with its labels and a token of each response, of which the hidden states are there already."""
    responses = [tokens[:1] for tokens in tree.responses]
    scored = [mask[:1] for mask in tree.scored]
    return tree._replace(prompt=tree.prompt[:1], responses=responses, scored=scored, branches=())


class PersonalRewardModel(RewardModel):
    r"""Train a reward model with a head for each annotator, whose rows have the column ``annotator``.

    The adapter and the mean head W are everyone's; the head of annotator p, who gave :math:`n_p` of the rows, is
    :math:`W + \Delta_p`. The loss is minus the log of the posterior under a Gaussian prior of the differences,

    .. math::
        \sum_i \ell_i(W + \Delta_{p(i)}) + \frac{\lambda (d + 1)}{2} \sum_p \lVert \Delta_p \rVert^2, \qquad
        \Delta_p \sim N\Big(0, \frac{I}{\lambda (d + 1)}\Big)

    with d the width of the hidden states, so that λ = 1 expects people to differ as much as untrained heads do. In a
    step each row carries :math:`1 / n_p` of its annotator's penalty: few votes are shrunk more. At the end of an epoch
    each :math:`\Delta_p` is set to its exact minimum, given the adapter and W. Where W is at its minimum the
    differences sum to 0, so that W is the mean of the heads; it scores for whoever has none (Evgeniou & Pontil, 2004,
    https://doi.org/10.1145/1014052.1014067, on a mean with shrunk differences).

    Args:
        objective: the loss: BradleyTerry over pairs, PlackettLuce over rankings or Regression over ratings.
        shrinkage: λ, above 0; large values leave everyone the mean head.
        components: K: at the end of an epoch the differences become mixtures of K shared ones, weighted for each person
            by how probable each of them makes the person's votes, see `shared_minima`; null gives each person an own
            one.
        members: size of an ensemble, see RewardModel.
        settings: settings that all stages share.

    Raises:
        ConfigError: if shrinkage is not above 0, or there are no components, or more than annotators; or if names were
            hashed under another salt in a checkpoint, or on another host.
    """

    def __init__(
        self,
        objective: Objective,
        shrinkage: float = 1.0,
        components: int | None = None,
        members: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(objective, members, **settings)
        check_positive("shrinkage", shrinkage, "1 is usual")
        if components is not None:
            check_at_least("components", components, 1, "null gives each person an own head")
        self.shrinkage, self.components = shrinkage, components
        self.annotators = Annotators()
        self._indices: dict[str, int] = {}  # by name

    def evaluation(self, folder: Path) -> str:
        """The words after ``lit-align evaluate`` that name the personal heads of a run."""
        return f"personal --personal {folder}"

    def setup(self, stage: str) -> None:
        """Find out who labelled the rows, and that their hashes are those of a checkpoint, before any weights load."""
        checkpoint = self.resumption.checkpoint
        super().setup(stage)
        if stage != "fit":
            return
        if not self.datamodule.repeats_rows:
            raise ConfigError(
                f"{type(self.datamodule).__name__} makes its rows anew each round, labelled by nobody in particular; "
                "set data.class_path to Comparisons, Rankings or Ratings, with rows that people labelled"
            )
        trees = self.datamodule.trees["train"]
        self.annotators = count_annotators(trees)
        votes = self.annotators.votes
        if not votes:
            raise ConfigError(
                "no row of data.train says whose labels it has, and a PersonalRewardModel has a head for each of them; "
                "name the column with data.columns, as in {annotator: worker}, or use the stage RewardModel"
            )
        if self.components is not None and self.components > len(votes):
            raise ConfigError(
                f"model.components is {self.components}, and the rows are of {len(votes)} annotators; give at most "
                "as many"
            )
        refuse_salts(self.annotators, Processes.of(self.trainer))
        if checkpoint is not None:
            refuse_other_salt(self.annotators, Annotators.from_dict(checkpoint["annotators"]))
        rank_zero_info(
            f"{len(votes):,} annotators with {min(votes):,} to {max(votes):,} rows; {len(trees) - sum(votes):,} rows "
            "of nobody train the mean head alone"
        )

    def configure_model(self) -> None:
        """Give each annotator a head, which begins as the mean head."""
        is_new = self._adapters is None
        super().configure_model()
        if is_new:
            self._make_heads()

    def _make_heads(self) -> None:
        for member, head in self._heads().items():
            self.adapters.heads[member] = PersonalHead(head, self.annotators)

    def personal_head(self, member: str) -> PersonalHead:
        """The heads of one member."""
        head = self.adapters.head(member)
        assert isinstance(head, PersonalHead)
        return head

    def head_outputs(self, member: str, hidden: Tensor, batch: Batch) -> Tensor:
        """Outputs for each response, ``[responses, outputs]``, by the head of whose row it is."""
        people = [self._index(tree) for tree in batch.source for _ in tree.responses]
        indices = numbers_to_device(torch.tensor(people), hidden.device)
        scores: Tensor = self.personal_head(member)(hidden, indices)
        return scores

    def _index(self, tree: Tree) -> int:
        """The index of a row's annotator, or `NOBODY`."""
        name = tree.group.annotator
        if name not in self._indices:
            head = self.personal_head(self.members[0])
            self._indices[name] = head.index(annotator_key(name))
        return self._indices[name]

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, MetricSums]:
        """With each row's share of the prior of its annotator's head, in training."""
        losses, sums = super().losses(batch, statistics)
        if self.adapters.peft.training:
            losses = losses + self._penalty(batch)
        return losses, sums

    def _penalty(self, batch: Batch) -> Tensor:
        """Over all members, half the precision times the sum over rows of the squared norm over the count of rows."""
        shares = torch.zeros(len(self.annotators.keys))
        for tree in batch.source:
            index = self._index(tree)
            if index >= 0:
                shares[index] += 1 / self.annotators.votes[index]
        penalties = []
        for member in self.members:
            head = self.personal_head(member)
            norms = head.shift.square().sum((1, 2))
            weights = numbers_to_device(shares, norms.device)
            penalties.append(self._precision(head) / 2 * (weights * norms).sum())
        return torch.stack(penalties).sum()

    def _precision(self, head: PersonalHead) -> float:
        return self.shrinkage * (head.weight.shape[1] + 1)

    def on_train_epoch_end(self) -> None:
        """Set each annotator's head to its minimum, then normalize."""
        for member in self.members:
            self.fit_heads(member)
        super().on_train_epoch_end()

    @torch.no_grad()
    def fit_heads(self, member: str) -> None:
        """Set a member's differences from the mean head to the minimum of the loss, given all else.

        Args:
            member: name of its adapter.
        """
        head = self.personal_head(member)
        start, precision = torch.zeros(head.shift.shape[1:]).double(), self._precision(head)
        read: Iterable[LabelledStates] = self._states_of_people(member)
        if self.components is not None:
            read = [*read]  # of all rows
        # otherwise those of one person at a time are in memory
        shifts = []
        for states in read:
            loss = partial(self._summed_loss, head, states)
            shifts.append(shrunk_minimum(loss, start, precision))
        differences = torch.stack(shifts)
        if self.components is not None:
            starts = [differences[index] for index in spread_out(differences, self.components)]
            states = LabelledStates.join([*read])
            read = ()  # hidden states are large
            losses = partial(self._losses_by_person, head, states, self._people(states.batch))
            solutions, memberships = shared_minima(losses, starts, precision)
            differences = torch.einsum("pk,k...->p...", memberships, solutions)
        head.shift.copy_(differences)

    def _states_of_people(self, member: str) -> Iterator[LabelledStates]:
        """What the head reads of each annotator's rows."""
        all_trees = self.datamodule.trees["train"]  # which may be on disk
        places: dict[int, list[int]] = {}
        for place, tree in enumerate(all_trees):
            places.setdefault(self._index(tree), []).append(place)
        for index in range(len(self.annotators.keys)):
            trees = [all_trees[place] for place in places[index]]
            budget = max(self.datamodule.token_budget, *(tree.tokens for tree in trees))
            batches = pack(trees, budget, dense=not self.block_sparse)
            yield LabelledStates.join([self._read_batch(member, batch) for batch in batches])

    def _read_batch(self, member: str, batch: Batch) -> LabelledStates:
        trees = batch.trees.to(self.device)
        with self.adapters.activate(member, training=False):
            hidden = self.tree_forward.last_hidden(trees).double().cpu()
        return LabelledStates(batch, torch.cat([hidden, hidden.new_ones(len(hidden), 1)], 1))

    def _label_losses_of(self, head: PersonalHead, read: LabelledStates, shift: Tensor) -> Tensor:
        """The loss of each label, in double precision, where the mean head is moved by ``shift``."""
        mean = torch.cat([head.weight, head.bias[:, None]], 1).detach().double().cpu()
        return self.label_losses(read.batch, read.hidden @ (mean + shift).T).losses

    def _summed_loss(self, head: PersonalHead, read: LabelledStates, shift: Tensor) -> Tensor:
        return self._label_losses_of(head, read, shift).sum()

    def _losses_by_person(
        self, head: PersonalHead, read: LabelledStates, people: Tensor, shift: Tensor
    ) -> Tensor:
        sums = shift.new_zeros(len(self.annotators.keys))
        return sums.index_add(0, people, self._label_losses_of(head, read, shift))

    def _people(self, batch: Batch) -> Tensor:
        """The index of the annotator of each label of a batch."""
        people = [self._index(tree) for tree in batch.source for _ in tree.responses]
        by_response = torch.tensor(people)
        match self.objective, batch:
            case PairwiseObjective(), Batch(pairs=PairLabels() as pairs):
                return by_response[pairs.chosen]
            case RankedObjective(), Batch(rankings=RankLabels() as rankings):
                return by_response[rankings.order[:, 0]]
        return by_response  # a rating for each response

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save who has a head, as hashes of their names."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["annotators"] = self.annotators._asdict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make a head for each of them.

        Raises:
            ConfigError: if their names were hashed under another salt.
        """
        annotators = Annotators.from_dict(checkpoint["annotators"])
        refuse_other_salt(self.annotators, annotators)
        if annotators != self.annotators:  # Lightning loads a checkpoint into a model without data
            self.annotators = annotators
            if self._adapters is not None:
                self._make_heads()
        super().on_load_checkpoint(checkpoint)


def count_annotators(trees: Iterable[Tree]) -> Annotators:
    """Those who labelled rows, by the hashes of their names, and how many rows each."""
    names = Counter(tree.group.annotator for tree in trees)
    by_key: Counter[str] = Counter()
    for name, count in names.items():
        if name:
            by_key[annotator_key(name)] += count
    keys = tuple(sorted(by_key))
    check = salt_check() if any(map(is_clear, names)) else ""
    return Annotators(keys, tuple(by_key[key] for key in keys), check)


def refuse_salts(annotators: Annotators, processes: Processes) -> None:
    """Refuse processes that hash the names in the same rows differently, as on hosts that each have a salt.

    Args:
        annotators: of the rows, as this process has counted them.
        processes: of the run; all of them call this.

    Raises:
        ConfigError: if their salts differ.
    """
    checks = processes.gather(lambda: annotators.salt_check)
    if len({*checks}) > 1:
        raise ConfigError(
            f"the {processes.world} processes of the run hash the names of annotators under "
            f"{len({*checks})} different salts, so that the same head would be another person's in each; set "
            f"{SALT_VARIABLE} to one secret on all hosts"
        )


def refuse_other_salt(annotators: Annotators, saved: Annotators) -> None:
    """Refuse a checkpoint whose heads are nobody's under the salt of this machine.

    Args:
        annotators: of the rows; without any, or with hashes alone, every salt will do.
        saved: in the checkpoint.

    Raises:
        ConfigError: if the salts differ.
    """
    is_same = saved.salt_check == annotators.salt_check
    if not saved.salt_check:  # a checkpoint of before salts were checked
        is_same = saved.keys == annotators.keys
    if annotators.salt_check and not is_same:
        raise ConfigError(
            f"the heads in the checkpoint are of {len(saved.keys)} annotators whose names were hashed under another "
            f"salt than this machine's, so that no row would find its head; {salt_remedy()}"
        )
