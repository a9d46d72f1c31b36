"""Splits of examples that are stratified by target and never separate equal inputs or members of a group."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from lit_align.orca.modalities import Examples

NUM_BINS = 5  # numeric targets are stratified by bins of equal count


def split_examples(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Hold out ``share`` of each class; examples with the same split key stay on one side.

    Of each class at least one key is kept, and one held out if there are two.

    Returns:
        The examples that are kept, and those that are held out.

    Example:
        >>> inputs = [torch.tensor([[float(i)]]) for i in range(6)]
        >>> kept, held_out = split_examples(Examples(inputs, ["a", "b", "a", "b", "a", "once"]), 0.3, seed=0)
        >>> sorted(kept.targets), sorted(held_out.targets)
        (['a', 'a', 'b', 'once'], ['a', 'b'])
    """
    keys = split_keys(examples)
    stratum_of_key = dict(zip(keys, _strata(examples), strict=True))
    keys_by_stratum: dict[int, list[Hashable]] = {}
    for key, stratum in stratum_of_key.items():
        keys_by_stratum.setdefault(stratum, []).append(key)
    generator = torch.Generator().manual_seed(seed)
    held_out: set[Hashable] = set()
    for _, candidates in sorted(keys_by_stratum.items()):
        num_keys = len(candidates)
        count = max(1, round(share * num_keys))
        count = min(count, num_keys - 1)  # one is kept
        order = torch.randperm(num_keys, generator=generator).tolist()
        for i in order[:count]:
            held_out.add(candidates[i])
    kept_rows, held_out_rows = [], []
    for row, key in enumerate(keys):
        if key in held_out:
            held_out_rows.append(row)
        else:
            kept_rows.append(row)
    return examples.take(kept_rows), examples.take(held_out_rows)


def split_keys(examples: Examples, by_input: bool = False) -> list[Hashable]:
    """Key of each example; those with the same key stay in one split.

    It is the example's group or, without groups or ``by_input``, its input.
    """
    if examples.groups is not None and not by_input:
        return list(examples.groups)
    keys: list[Hashable] = []
    for x in examples.inputs:
        keys.append((tuple(x.shape), x.numpy().tobytes()))
    return keys


def _strata(examples: Examples) -> list[int]:
    """Stratum of each example: its class, or the bin of its number; one for all where there is neither."""
    targets = examples.targets
    single_stratum = [0] * len(examples)
    if examples.groups is not None:
        return single_stratum
    if isinstance(targets, list):
        names = sorted(set(targets))
        return [names.index(name) for name in targets]
    numbers = targets.flatten()
    if targets.dtype == torch.bool or len(numbers) > len(targets):
        return single_stratum
    quantiles = torch.linspace(0, 1, NUM_BINS + 1)[1:-1]
    edges = numbers.quantile(quantiles)
    strata: list[int] = torch.bucketize(numbers, edges).tolist()
    return strata
