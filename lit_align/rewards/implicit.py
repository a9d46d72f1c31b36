"""The implicit reward of a trained policy (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.chat.plain_text import is_plain_text_adapter
from lit_align.checkpoint_files import find_checkpoint, read_checkpoint
from lit_align.data.scoring import limit_to_positions, score_trees, tokenize_groups
from lit_align.errors import ModelError
from lit_align.functional.logps import response_logps, sum_by_response
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.check_once import check_once
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.lora import Lora
from lit_align.models.tree_forward import TreeForward
from lit_align.objectives import Objective
from lit_align.objectives.base import ImplicitRewardObjective
from lit_align.rewards import Group, Reward, Scores
from lit_align.types import Batch, Logps, PackedTrees

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

ADAPTER_PREFIX = "_adapters."  # of the adapters' weights in a stage's checkpoint
REWARD_IMPLYING_KINDS = "an objective over comparisons, binary labels or rankings"


class TrainedPolicy(NamedTuple):
    """The policy of a saved run: objective, base with adapters, tokenizer, tree forward, and how it reads text."""

    objective: ImplicitRewardObjective
    adapters: AdapterSet
    tokenizer: PreTrainedTokenizerBase
    tree_forward: TreeForward
    dense: bool
    reads_chat: bool


@dataclass(frozen=True)
class Implicit(Reward):
    r"""The reward that training on preferences has implicitly given a policy, in the units of its objective.

    .. math:: r = \beta\log\frac{\pi_\theta(y\mid x)}{\pi_\text{ref}(y\mid x)}

    This is equation 5 without the term that cancels.

    Prompts and responses are tokenised as in training: through the run's chat template or as plain text.
    The part ``tokens_cut`` counts the tokens that were too many: a response loses its end.

    Args:
        run: the numbered folder of a run, or a checkpoint.
        reference: false leaves the reference out; the base model's own biases, such as length, then decide, and the
            accuracy collapses (Lambert et al., 2024, https://arxiv.org/abs/2403.13787).
        max_length: tokens of a prompt and one response that are read.
        token_budget: tokens in one forward pass.

    Raises:
        ModelError: at the first score, if there is no such run, or its objective implies no reward.
        DataError: if a prompt leaves no room for a response.
    """

    run: str
    reference: bool = True
    max_length: int = 2048
    token_budget: int = 8192

    def can_split(self) -> bool:
        return True

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> Scores:
        policy = self._policy
        max_length = limit_to_positions(policy.adapters.model, self.max_length)
        trees, tokens_cut = tokenize_groups(groups, policy.tokenizer, max_length, policy.reads_chat)
        total = score_trees(trees, self._rewards, self.token_budget, dense=policy.dense)
        return Scores(total, {"tokens_cut": tokens_cut})

    def _rewards(self, batch: Batch) -> Tensor:
        """The implicit reward of each response of the batch, ``[responses]``."""
        objective = self._policy.objective
        logps = _policy_logps(self._policy, batch.trees)
        if not self.reference:
            logps = _without_reference(logps)
        return objective.implicit_reward(logps).float().cpu()

    @cached_property
    def _policy(self) -> TrainedPolicy:
        return load_policy(self.run)


def load_policy(run: str) -> TrainedPolicy:
    """The policy of a saved run, in eval mode.

    Raises:
        ModelError: if there is no such run, its objective implies no reward, or the checkpoint does not fit.
    """
    file = find_checkpoint(run)
    checkpoint = read_checkpoint(file, mmap=True)
    settings = checkpoint["hyper_parameters"]
    if "objective" not in settings:
        raise ModelError(
            f"{run} is a run of {settings['_class_path']}, which trains no language model; "
            f"give one of {REWARD_IMPLYING_KINDS}"
        )
    objective, base, lora = _instantiate(settings)
    if objective.for_reward_model:
        raise ModelError(f"{run} is a reward model; give its adapter/ folder to RewardModelScore")
    if not isinstance(objective, ImplicitRewardObjective):
        raise ModelError(
            f"{run} is a run of {type(objective).__name__}, which implies no reward; give one of "
            f"{REWARD_IMPLYING_KINDS}"
        )
    init_adapter = settings.get("init_adapter")
    adapters = AdapterSet(
        load_model(base), lora, init_adapter=init_adapter, gradient_checkpointing=False
    )
    _load_weights(adapters, checkpoint["state_dict"], file)
    tree_forward = TreeForward(adapters.model)
    check_once(tree_forward)
    tokenizer = load_tokenizer(base, settings.get("chat_template"), settings.get("template_kwargs"))
    dense = base.attention != "flex_attention"
    reads_chat = not is_plain_text_adapter(file.with_suffix(".adapter"))
    return TrainedPolicy(objective, adapters, tokenizer, tree_forward, dense, reads_chat)


def _instantiate(settings: dict[str, Any]) -> tuple[Objective, Base, Lora]:
    """Objective, base and LoRA settings from the plain values in a checkpoint."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    for name, setting_type in (("objective", Objective), ("base", Base), ("lora", Lora)):
        parser.add_argument(f"--{name}", type=setting_type)
    config = parser.parse_object({name: settings[name] for name in ("objective", "base", "lora")})
    instances = parser.instantiate_classes(config)
    return instances.objective, instances.base, instances.lora


def _load_weights(adapters: AdapterSet, state_dict: dict[str, Tensor], file: Path) -> None:
    weights = {name.removeprefix(ADAPTER_PREFIX): value for name, value in state_dict.items()}
    expected = {name: value.shape for name, value in adapters.trainable().items()}
    if {name: value.shape for name, value in weights.items()} != expected:
        raise ModelError(
            f"the weights in {file} do not fit the adapter that its settings describe; use the checkpoint as the run "
            "wrote it"
        )
    adapters.load_state_dict(weights, strict=False)


def _policy_logps(policy: TrainedPolicy, packed: PackedTrees) -> Logps:
    """Log-probabilities of responses under policy and reference, as far as the objective reads them."""
    adapters, objective = policy.adapters, policy.objective
    trees = packed.to(adapters.model.device)
    with adapters.activate("policy", training=False):
        tokens = policy.tree_forward(trees, statistics="collision" in objective.token_fields)
    reads_tokens = "reference" in objective.token_fields
    reference_tokens = None
    if reads_tokens or objective.needs_reference:
        with adapters.activate("reference", training=False):
            reference_tokens = policy.tree_forward(trees).logps
        reference = sum_by_response(reference_tokens, trees.owner, trees.responses)
    else:
        reference = tokens.logps.new_zeros(trees.responses)
    if not reads_tokens:
        reference_tokens = None
    return response_logps(trees, tokens, reference, reference_tokens, objective.token_fields)


def _without_reference(logps: Logps) -> Logps:
    """With a reference that gives everything probability 1."""
    tokens = logps.tokens
    if tokens is not None and tokens.reference is not None:
        tokens = tokens._replace(reference=torch.zeros_like(tokens.reference))
    return logps._replace(reference=torch.zeros_like(logps.reference), tokens=tokens)


@hookimpl
def register_rewards(register: Register) -> None:
    register(Implicit)
