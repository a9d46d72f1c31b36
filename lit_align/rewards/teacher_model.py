"""A teacher in memory: an adapter on the policy's base, that base without one, or another model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lit_align.data.scoring import limit_to_positions, score_trees
from lit_align.errors import ConfigError, ModelError
from lit_align.functional.divergence import Predictions
from lit_align.models.adapter_files import attach_adapter
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.check_once import check_once
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.lora import Lora
from lit_align.models.tree_forward import TreeForward
from lit_align.types import PackedTrees, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


class LoadedTeacher(NamedTuple):
    """The teacher in memory: role among a base's adapters, tokenizer and forward pass; the policy's tokenizer."""

    adapters: AdapterSet
    role: str
    tokenizer: PreTrainedTokenizerBase
    tree_forward: TreeForward
    policy_tokenizer: PreTrainedTokenizerBase

    @torch.no_grad()
    def predictions(self, trees: PackedTrees, temperature: float = 1.0) -> Predictions:
        """What it predicts at the scored tokens of trees that are packed already."""
        with self.adapters.activate(self.role, training=False):
            return self.tree_forward.predictions(trees, temperature)

    def follow(self, rate: float) -> None:
        """Move it towards the policy's adapter by a share of the way."""
        self.adapters.interpolate(self.role, "policy", rate)

    def token_logps(
        self, trees: Sequence[Tree], temperature: float, token_budget: int
    ) -> list[Tensor]:
        """Log-probabilities of the tokens of each response, on the CPU, in the order of ``trees``."""

        def score(packed: PackedTrees) -> Tensor:
            predictions = self.predictions(packed, temperature)
            with torch.no_grad():
                return self.tree_forward.score(predictions, packed.target).logps.float().cpu()

        logps = self._by_token(trees, score, token_budget)
        lengths = [len(response) for tree in trees for response in tree.responses]
        return [*torch.split(logps, lengths)]

    def predictions_of(
        self, trees: Sequence[Tree], temperature: float, token_budget: int
    ) -> Predictions:
        """What it predicts at all tokens of the responses of ``trees``, in their order."""
        heads: list[Predictions] = []

        def read(packed: PackedTrees) -> Tensor:
            predictions = self.predictions(packed, temperature)
            heads[:] = [predictions]
            return predictions.states

        states = self._by_token(trees, read, token_budget)
        (head,) = heads  # the same in every batch
        return head._replace(states=states)

    def _by_token(
        self, trees: Sequence[Tree], score: Callable[[PackedTrees], Tensor], token_budget: int
    ) -> Tensor:
        """What ``score`` gives for each scored token, ``[n, ...]``; it reads trees on the model's device."""
        check_positions(self.adapters, trees)
        settings = self.adapters.loaded_as
        dense = settings is None or settings.attention != "flex_attention"
        device = self.adapters.model.device
        return score_trees(
            trees, lambda batch: score(batch.trees.to(device)), token_budget, dense, by_step=True
        )


@dataclass(frozen=True)
class TeacherModel:
    """A model to learn from: one of an adapter on the policy's base, and another base with the same vocabulary.

    Args:
        adapter: folder of an adapter on the policy's base.
        base: another model with the same vocabulary, in 4 bits unless it says otherwise.

    Raises:
        ConfigError: unless it is one of them.
        ModelError: if the other model has another vocabulary.
    """

    adapter: str | None = None
    base: Base | None = None

    def __post_init__(self) -> None:
        if (self.adapter is None) == (self.base is None):
            raise ConfigError("a teacher is one of adapter and base; name one of them")

    def load(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> LoadedTeacher:
        """Load it beside the policy.

        Args:
            adapters: of the policy.
            tokenizer: the policy's.
        """
        if self.base is not None:
            return load_other_base(self.base, adapters, tokenizer)
        role = new_role(adapters)
        attach_adapter(adapters, role, str(self.adapter))
        return teacher_of_role(adapters, role, tokenizer)


def teacher_of_role(
    adapters: AdapterSet, role: str, tokenizer: PreTrainedTokenizerBase
) -> LoadedTeacher:
    """A role on the policy's base as a teacher."""
    tree_forward = TreeForward(adapters.model)
    check_once(tree_forward)
    return LoadedTeacher(adapters, role, tokenizer, tree_forward, tokenizer)


def average_of_policy(adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> LoadedTeacher:
    """A frozen copy of the policy's adapter as a teacher, which `LoadedTeacher.follow` moves."""
    role = new_role(adapters)
    adapters.add_frozen(role, copy.deepcopy(adapters.lora_config("policy")))
    adapters.load_weights(role, adapters.copy_weights("policy"), "the policy")
    return teacher_of_role(adapters, role, tokenizer)


def load_other_base(
    base: Base, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase
) -> LoadedTeacher:
    """Another model as a teacher, on the policy's device.

    Raises:
        ModelError: if its tokens are not the policy's.
    """
    own = load_tokenizer(base)
    if own.get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            f"the teacher {base.path!r} has another vocabulary than the policy, so it cannot read the policy's tokens; "
            "take one of the same family, or let it write answers for SFT"
        )
    model = load_model(base, adapters.model.device)
    others = AdapterSet(model, Lora(), gradient_checkpointing=False)
    tree_forward = TreeForward(others.model)
    check_once(tree_forward)
    return LoadedTeacher(others, "reference", own, tree_forward, tokenizer)


def new_role(adapters: AdapterSet) -> str:
    """The name of one more teacher among the adapters of a base."""
    count = sum(name.startswith("teacher") for name in adapters.names)
    return f"teacher_{count + 1}" if count else "teacher"


def check_positions(adapters: AdapterSet, trees: Sequence[Tree]) -> None:
    """Refuse what is longer than the teacher can read.

    Raises:
        ModelError: naming the row and the length.
    """
    for tree in trees:
        longest = len(tree.prompt) + max(map(len, tree.responses))
        longest = max(
            [longest, *(len(branch.prompt) + len(branch.ids) for branch in tree.branches)]
        )
        limit = limit_to_positions(adapters.model, longest)
        if limit < longest:
            raise ModelError(
                f"the teacher's prompt for {tree.group.source} and a response have {longest} tokens, and it reads "
                f"{limit}; show it less, or lower max_new_tokens or data.max_length"
            )
