"""Reward from a reward model trained with this library (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.annotators import annotator_key, salt_remedy
from lit_align.chat.plain_text import is_plain_text_adapter
from lit_align.data.scoring import limit_to_positions, score_trees, tokenize_groups
from lit_align.data.trained_prompts import read_prompt_keys
from lit_align.errors import ConfigError, ModelError
from lit_align.models.adapter_files import attach_adapter
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.adapters import same_base
from lit_align.models.base_content import base_content
from lit_align.models.check_once import check_once
from lit_align.models.heads import ScoreHead
from lit_align.models.load import Base, load_model, load_tokenizer, tokenizer_fingerprint
from lit_align.models.lora import Lora
from lit_align.models.personal_head import Annotators, PersonalHead, load_shifts
from lit_align.models.tree_forward import TreeForward
from lit_align.rewards import Group, Reward, Scores
from lit_align.types import Batch

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


class LoadedRewardModel(NamedTuple):
    """A reward model in memory: base with adapters, tokenizer, tree forward, and the adapters that score."""

    adapters: AdapterSet
    tokenizer: PreTrainedTokenizerBase
    tree_forward: TreeForward
    members: tuple[str, ...]


@dataclass(frozen=True)
class RewardModelScore(Reward):
    r"""The normalised score of a RewardModel run; an ensemble counts as its mean less its disagreement.

    .. math:: r = \operatorname{mean}_m r_m - k\,\operatorname{std}_m r_m

    If it was trained on the same base as the model in memory, it adds only an adapter to that; otherwise it loads its
    own base (Coste et al., 2024, https://arxiv.org/abs/2310.02743, on ensembles).

    Args:
        path: the run's ``adapter``.
        uncertainty_penalty: k: penalty per standard deviation between the members.
        max_length: tokens of a prompt and one response that are read; ``tokens_cut`` counts what was too long.
        token_budget: tokens in one forward pass.
        annotator: of a PersonalRewardModel: whose head scores, by name or by the hash of it; whoever has none is scored
            by the mean head, with a warning. Null takes the mean head.
        by_annotator: of a PersonalRewardModel: score each row by the head of its own annotator; the part
            ``trained/pooled`` is the score of the mean head.

    Raises:
        ConfigError: if both are set.
        ModelError: if the folder contains no reward model, or its head is missing, or it has no heads of annotators
            and one is asked for, or asked for by a name where heads have hashes under another salt.
    """

    path: str
    uncertainty_penalty: float = 1.0
    max_length: int = 4096
    token_budget: int = 8192
    annotator: str | None = None
    by_annotator: bool = False
    reads_steps: ClassVar[bool] = False  # whether the model scores steps, rather than responses

    def __post_init__(self) -> None:
        if not self.folders:
            raise ModelError(
                f"there is no reward model in {self.path!r}; give the adapter/ folder of a RewardModel run"
            )
        for path in self.folders:
            if not (path / "head.safetensors").is_file():
                raise ModelError(
                    f"{str(path)!r} has no head.safetensors, so it is an adapter and not a reward model; give the "
                    "adapter/ folder of a RewardModel run"
                )
        required = {"loads", "chat_template", "tokenizer", "normalised_at"}
        missing = required - self._provenance.keys()
        if missing:
            raise ModelError(
                f"provenance.json in {self.path!r} does not say {', '.join(sorted(missing))}, so no RewardModel "
                "run wrote it; give the adapter/ folder of one"
            )
        has_steps = self._provenance.get("step_separator") is not None
        if has_steps != self.reads_steps:
            kind, use = (
                ("a process", "ProcessScore") if has_steps else ("no process", "RewardModelScore")
            )
            raise ModelError(
                f"{self.path!r} is {kind} reward model, which {type(self).__name__} does not read; use {use}"
            )
        self._check_annotator()
        if self._provenance["normalised_at"] is None and not self.reads_steps:
            warnings.warn(
                f"the run of {self.path!r} ended before it normalised its scores, so 0 and 1 have no special meaning; "
                "train it to the end of an epoch",
                stacklevel=3,
            )

    def _check_annotator(self) -> None:
        """Refuse an annotator where everyone has one head, and warn of one who has none."""
        if self.annotator is not None and self.by_annotator:
            raise ConfigError(
                f"annotator is {self.annotator!r} and by_annotator true, which scores each row by its own; set one"
            )
        if self.by_annotator:
            _ = self._annotators  # refuses a model with one head for everyone
        if self.annotator is None:
            return
        keys = self._annotators.keys
        self._refuse_other_salt([self.annotator])
        if annotator_key(self.annotator) not in keys:
            warnings.warn(
                f"{self.annotator!r} has no head in {self.path!r}, so the mean head scores, as for anyone new; "
                f"{len(keys)} annotators have one",
                stacklevel=4,
            )

    @cached_property
    def _annotators(self) -> Annotators:
        _, annotators = load_shifts(self.folders[0])
        return annotators

    def _refuse_other_salt(self, names: Sequence[str]) -> None:
        """Refuse names that have other hashes on this machine than in the training: all would be new."""
        if self._annotators.differs_in_salt(names):
            raise ModelError(
                f"{self.path!r} has heads of annotators whose names were hashed under another salt than this "
                f"machine's, so that nobody here would find theirs; {salt_remedy()}, or give the hashes for the names"
            )

    @cached_property
    def folders(self) -> list[Path]:
        """The adapter of each member."""
        path = Path(self.path).expanduser()
        configs = [*path.glob("adapter_config.json"), *path.glob("reward*/adapter_config.json")]
        return sorted(config.parent for config in configs)

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        text = (self.folders[0] / "provenance.json").read_text("utf-8")
        provenance: dict[str, Any] = json.loads(text)
        return provenance

    @cached_property
    def reads_chat(self) -> bool:
        """Whether plain text is scored as turns of a chat, as in the training of the reward model."""
        return not is_plain_text_adapter(self.folders[0])

    @property
    def _base(self) -> Base:
        return Base(**self._provenance["loads"])

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        is_same_tokenizer = tokenizer_fingerprint(tokenizer) == self._provenance["tokenizer"]
        content = self._provenance.get("base_content")
        is_same = _is_same_base(self._base, content, adapters.loaded_as)
        if is_same and is_same_tokenizer:
            self.__dict__["loaded"] = self._load(adapters, tokenizer)
        else:
            warnings.warn(
                f"{self} was trained on another base or with other settings than the model in memory; it loads its own "
                f"base: {self._base}",
                stacklevel=2,
            )

    @cached_property
    def loaded(self) -> LoadedRewardModel:
        """The reward model on a base loaded for it alone; `attach` sets the shared one instead."""
        adapters = AdapterSet(load_model(self._base), Lora(), gradient_checkpointing=False)
        return self._load(adapters, self._load_tokenizer())

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = load_tokenizer(
            self._base,
            self._provenance["chat_template"],
            self._provenance.get("template_kwargs"),
        )
        if tokenizer_fingerprint(tokenizer) != self._provenance["tokenizer"]:
            raise ModelError(
                f"the tokenizer of {self._base.path!r}, or its chat template, is not the one that {self.path!r} was "
                "trained with; restore that one"
            )
        return tokenizer

    def _load(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> LoadedRewardModel:
        first = sum(role.startswith("trained") for role in adapters.names)
        members = tuple(f"trained{first + i}" for i in range(len(self.folders)))
        for member, path in zip(members, self.folders, strict=True):
            attach_adapter(adapters, member, path)
            if self.annotator is not None or self.by_annotator:
                adapters.heads[member] = PersonalHead.load(path).to(adapters.model.device)
        tree_forward = TreeForward(adapters.model)
        check_once(tree_forward)
        return LoadedRewardModel(adapters, tokenizer, tree_forward, members)

    def trained_prompts(self) -> frozenset[str]:
        return read_prompt_keys(self.folders[0])

    def can_split(self) -> bool:
        return True

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> Scores:
        if self.by_annotator:
            self._refuse_other_salt([group.annotator for group in groups])
        max_length = limit_to_positions(self.loaded.adapters.model, self.max_length)
        trees, tokens_cut = tokenize_groups(
            groups, self.loaded.tokenizer, max_length, self.reads_chat
        )
        by_head = score_trees(trees, self._member_scores, self.token_budget, dense=True).cpu()
        scores = by_head[:, 0]
        mean = scores.mean(1)
        parts = {"tokens_cut": tokens_cut}
        if self.by_annotator:
            parts["trained/pooled"] = by_head[:, 1].mean(1)
        if scores.shape[1] == 1:
            return Scores(mean, parts)
        std = scores.std(1)
        parts.update({"trained/mean": mean, "trained/std": std})
        return Scores(mean - self.uncertainty_penalty * std, parts)

    def _member_scores(self, batch: Batch) -> Tensor:
        """The score of each response by each member, ``[responses, 1, members]``, or also by their mean heads."""
        adapters = self.loaded.adapters
        trees = batch.trees.to(adapters.model.device)
        scores = []
        for member in self.loaded.members:
            with adapters.activate(member, training=False):
                head = adapters.head(member)
                hidden = self.loaded.tree_forward.last_hidden(trees)
                raw_scores = [self._head_outputs(head, hidden, batch)]
                if self.by_annotator:
                    raw_scores.append(head(hidden))
                scores.append(torch.stack([head.normalize(raw) for raw in raw_scores], 1))
        return torch.stack(scores, 2)

    def _head_outputs(self, head: ScoreHead, hidden: Tensor, batch: Batch) -> Tensor:
        """Raw scores, ``[responses, outputs]``, by the head of whoever is asked for."""
        if not isinstance(head, PersonalHead):
            raw: Tensor = head(hidden)
            return raw
        people = []
        for tree in batch.source:
            name = tree.group.annotator if self.annotator is None else self.annotator
            people += [head.index(annotator_key(name))] * len(tree.responses)
        personal: Tensor = head(hidden, torch.tensor(people, device=hidden.device))
        return personal


def _is_same_base(base: Base, content: str | None, other: Base | None) -> bool:
    """Whether both give the same hidden states: the same weights, or else the same name, in the same numbers.

    Args:
        base: what the reward model was trained on.
        content: the hash of its weights.
        other: the model in memory.
    """
    if other is None or (base.quantization, base.dtype) != (other.quantization, other.dtype):
        return False
    current = base_content(other.path, other.revision)
    if content is not None and current is not None:
        return content == current
    return same_base(base.path, other.path) and base.revision == other.revision


@hookimpl
def register_rewards(register: Register) -> None:
    register(RewardModelScore)
