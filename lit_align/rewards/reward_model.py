"""A reward model of one's own (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from lit_align import Register, hookimpl
from lit_align.data.scoring import limit_to_positions, score_trees, tokenize_groups
from lit_align.errors import ModelError
from lit_align.models.adapter_files import attach_adapter
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.adapters import same_base
from lit_align.models.load import Base, load_model, load_tokenizer, tokenizer_fingerprint
from lit_align.models.tree_forward import TreeForward
from lit_align.rewards import Group, Reward, Scores
from lit_align.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Seat(NamedTuple):
    """Where a reward model does its work: a base in memory, who reads for it, and the roles that score."""

    adapters: AdapterSet
    tokenizer: PreTrainedTokenizerBase
    read: TreeForward
    members: tuple[str, ...]


@dataclass(frozen=True)
class RewardModelScore(Reward):
    r"""The score of a RewardModel run, normalised; several members count as their mean less their disagreement.

    .. math:: r = \operatorname{mean}_m r_m - k\,\operatorname{std}_m r_m

    On the base of the model that is trained it takes the room of an adapter and nothing else; otherwise it loads a base
    of its own (Coste et al., 2024, https://arxiv.org/abs/2310.02743, on ensembles).

    Args:
        path: the run's ``adapter``.
        uncertainty_penalty: k: what a standard deviation between members costs.
        max_length: tokens of a prompt and one response that are read; ``tokens_cut`` counts what was too long.
        token_budget: tokens that pass through the model at once.

    Raises:
        ModelError: if the folder holds no reward model, or its head is lost.
    """

    path: str
    uncertainty_penalty: float = 1.0
    max_length: int = 4096
    token_budget: int = 8192

    def __post_init__(self) -> None:
        if not self._folders:
            raise ModelError(
                f"there is no reward model in {self.path!r}; give the adapter/ folder of a RewardModel run"
            )
        for path in self._folders:
            if not (path / "head.safetensors").is_file():
                raise ModelError(
                    f"{str(path)!r} has no head.safetensors, so it is an adapter and not a reward model; give the "
                    "adapter/ folder of a RewardModel run"
                )
        lacking = {"loads", "chat_template", "tokenizer", "normalised_at"} - self._provenance.keys()
        if lacking:
            raise ModelError(
                f"provenance.json in {self.path!r} does not say {', '.join(sorted(lacking))}, so no RewardModel "
                "run wrote it; give the adapter/ folder of one"
            )
        if self._provenance["normalised_at"] is None:
            warnings.warn(
                f"the run of {self.path!r} ended before it measured an ordinary score, so 0 and 1 mean nothing "
                "special; train it to the end of an epoch",
                stacklevel=3,
            )

    @cached_property
    def _folders(self) -> list[Path]:
        path = Path(self.path).expanduser()
        found = [*path.glob("adapter_config.json"), *path.glob("reward*/adapter_config.json")]
        return sorted(path.parent for path in found)

    @cached_property
    def _provenance(self) -> dict[str, object]:
        record: dict[str, object] = json.loads(
            (self._folders[0] / "provenance.json").read_text("utf-8")
        )
        return record

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        mine, there = self._base, adapters.loaded_as
        alike = (
            there is not None
            and same_base(mine.path, there.path)
            and _numbers(mine) == _numbers(there)
        )
        if alike and tokenizer_fingerprint(tokenizer) == self._provenance["tokenizer"]:
            self.__dict__["seat"] = self._seated(adapters, tokenizer)
        else:
            warnings.warn(
                f"{self} was trained on another base, or as it is loaded here: {mine}; it loads that one for itself",
                stacklevel=2,
            )

    @property
    def _base(self) -> Base:
        return Base(**cast("Any", self._provenance["loads"]))

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = load_tokenizer(
            self._base, cast("str | None", self._provenance["chat_template"])
        )
        if tokenizer_fingerprint(tokenizer) != self._provenance["tokenizer"]:
            raise ModelError(
                f"the tokenizer of {self._base.path!r}, or its chat template, is not the one that {self.path!r} was "
                "trained with; give back that one"
            )
        return tokenizer

    @cached_property
    def seat(self) -> Seat:
        """A base of its own; not asked for once there is one to share."""
        adapters = AdapterSet(load_model(self._base), Lora(), gradient_checkpointing=False)
        return self._seated(adapters, self._tokenizer())

    def _seated(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> Seat:
        taken = sum(role.startswith("trained") for role in adapters.names)
        members = tuple(f"trained{taken + i}" for i in range(len(self._folders)))
        for member, path in zip(members, self._folders, strict=True):
            attach_adapter(adapters, member, path)
        read = TreeForward(adapters.model)
        read.check()
        return Seat(adapters, tokenizer, read, members)

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> Scores:
        trees, lost = tokenize_groups(
            groups,
            self.seat.tokenizer,
            limit_to_positions(self.seat.adapters.model, self.max_length),
        )
        each = score_trees(trees, self._members, self.token_budget, dense=True)
        mean, parts = each.mean(1), {"tokens_cut": lost}
        if each.shape[1] == 1:
            return Scores(mean, parts)
        spread = each.std(1)
        return Scores(
            mean - self.uncertainty_penalty * spread,
            {**parts, "trained/mean": mean, "trained/std": spread},
        )

    def _members(self, batch: Batch) -> torch.Tensor:
        """What each member gives each response, ``[responses, members]``."""
        adapters, trees, each = (
            self.seat.adapters,
            batch.trees.to(self.seat.adapters.model.device),
            [],
        )
        for member in self.seat.members:
            with adapters.activate(member, training=False):
                head = adapters.head(member)
                each.append(head.normalize(head(self.seat.read.last_hidden(trees))).cpu())
        return torch.stack(each, 1)


def _numbers(base: Base) -> tuple[str | None, ...]:
    """What decides which numbers a base gives, besides its name."""
    return base.quantization, base.dtype, base.revision


@hookimpl
def register_rewards(register: Register) -> None:
    register(RewardModelScore)
