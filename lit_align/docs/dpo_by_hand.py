"""DPO in one file, on the functions of lit_align alone: no Trainer, no plugin, no YAML. Read it from top to bottom.

    python dpo_by_hand.py MODEL PAIRS.jsonl FOLDER

Direct Preference Optimization (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290) learns from pairs of responses
to a prompt x, of which y_w was preferred to y_l. Its loss (eq. 7) is

    -log σ(β [log π_θ(y_w|x) / π_ref(y_w|x)] - β [log π_θ(y_l|x) / π_ref(y_l|x)])

so all that it needs are four log-probabilities: of two responses, under two models.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align.data.formats import built_in
from lit_align.data.packing import pack, split_every
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.data.tokenize import ChatTokenizer
from lit_align.functional.logps import sum_by_response
from lit_align.models.adapter_files import save_adapter
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.lora import Lora
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Batch, LabelKind, Tree

BETA = 0.1  # pull towards the reference
LEARNING_RATE = 1e-4
BATCH_SIZE = 8  # prompts in a step of the optimizer
TOKEN_BUDGET = (
    4096  # tokens that pass through the model at once; changes the memory, not the result
)
MAX_LENGTH = 1024  # tokens of a prompt and one response
SEED = 0


def read_trees(paths: Sequence[str], base: Base) -> list[Tree]:
    """The pairs as tokens: a tree is a prompt with its two responses, so the model reads the prompt only once.

    The formats recognise the layout of the rows by their columns; those that cannot be used are left out. The chat
    template marks what is scored: what the assistant says, and the token that ends its turn.
    """
    groups = load_groups(DataSource(paths, LabelKind.PAIRS, formats=built_in()))
    tokenizer = ChatTokenizer(load_tokenizer(base), max_length=MAX_LENGTH, overlong="truncate")
    return [tokenizer.encode(group).tree for group in groups]


def steps(trees: Sequence[Tree], seed: int) -> Iterator[list[Batch]]:
    """One epoch in random order: for each step of the optimizer, its micro-batches under the token budget."""
    order = list(trees)
    random.Random(seed).shuffle(order)
    for step_trees in split_every(order, BATCH_SIZE):
        yield pack(step_trees, TOKEN_BUDGET, dense=True)


def response_logps(adapters: AdapterSet, forward: TreeForward, role: str, batch: Batch) -> Tensor:
    """The log π(y|x) of each response, ``[responses]``: the sum over its scored tokens.

    Policy and reference are the same model in memory. The policy's adapter is on it or off: without it, the model is
    the reference, because a fresh LoRA adapter adds zero. Before the first step both are therefore equal, exactly.
    """
    with adapters.activate(role):
        tokens = forward(batch.trees)
    return sum_by_response(tokens.logps, batch.trees.owner, batch.trees.responses)


def dpo_losses(policy: Tensor, reference: Tensor, chosen: Tensor, rejected: Tensor) -> Tensor:
    """Eq. 7 for each pair, ``[pairs]``.

    Args:
        policy: log π_θ of each response, ``[responses]``, with gradient.
        reference: log π_ref, ``[responses]``.
        chosen: the index of each pair's preferred response, ``[pairs]``.
        rejected: that of the other.

    Example:
        Where the policy is still the reference, every loss is log 2.

        >>> logps = torch.tensor([-3.0, -5.0])
        >>> dpo_losses(logps, logps, torch.tensor([0]), torch.tensor([1]))
        tensor([0.6931])
    """
    rewards = BETA * (
        policy - reference
    )  # eq. 5: the reward that the policy implies, up to a constant
    return -logsigmoid(rewards[chosen] - rewards[rejected])


def train_step(
    adapters: AdapterSet, forward: TreeForward, optimizer: torch.optim.Optimizer, step: list[Batch]
) -> float:
    """Learn from one step, and return the mean loss of its pairs.

    The losses of the micro-batches are summed and divided by the number of pairs in the whole step. So the gradient is
    that of the mean, however the step was cut.
    """
    num_pairs = sum(len(batch.pairs.chosen) for batch in step if batch.pairs)
    total = 0.0
    for batch in step:
        assert batch.pairs is not None
        with torch.no_grad():
            reference = response_logps(adapters, forward, "reference", batch)
        policy = response_logps(adapters, forward, "policy", batch)
        losses = dpo_losses(policy, reference, batch.pairs.chosen, batch.pairs.rejected)
        loss = losses.sum() / num_pairs
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    weights = list(adapters.trainable().values())
    torch.nn.utils.clip_grad_norm_(weights, max_norm=1.0)
    optimizer.step()
    optimizer.zero_grad()
    return total


def train(
    base: Base, lora: Lora, paths: Sequence[str], folder: Path, epochs: int = 1
) -> list[float]:
    """Align ``base`` with the pairs in ``paths``, write the adapter into ``folder``, and return each step's loss."""
    trees = read_trees(paths, base)
    adapters = AdapterSet(load_model(base), lora, seed=SEED, gradient_checkpointing=False)
    forward = TreeForward(adapters.model)
    forward.check()  # that this architecture reads packed trees as it reads plain rows
    adapters.peft.train()
    optimizer = torch.optim.AdamW(adapters.trainable().values(), lr=LEARNING_RATE, weight_decay=0.0)
    losses = []
    for epoch in range(epochs):
        for step in steps(trees, SEED + epoch):
            losses.append(train_step(adapters, forward, optimizer, step))
            print(f"step {len(losses)}: loss {losses[-1]:.4f}")
    save_adapter(adapters, folder)
    return losses


if __name__ == "__main__":
    model, *files, target = sys.argv[1:]
    train(Base(model), Lora(), files, Path(target))
