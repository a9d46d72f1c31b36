"""Packing loses no token, keeps to its budget, and says of every scored token who predicts it."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.packing import pack, pack_rows
from lit_align.errors import DataError
from lit_align.types import Batch, Group, Pair, Tree


def tree(prompt, *responses, pairs=(), source="a:1", scored=None):
    scored = [[True] * len(r) for r in responses] if scored is None else scored
    group = Group("", [""] * len(responses), tuple(pairs), source=source)
    return Tree(list(prompt), [list(r) for r in responses], scored, group)


@st.composite
def trees(draw):
    ids = st.integers(0, 50)
    made = []
    for i in range(draw(st.integers(1, 8))):
        responses = draw(st.lists(st.lists(ids, min_size=1, max_size=6), min_size=1, max_size=4))
        scored = [
            draw(st.lists(st.booleans(), min_size=len(r), max_size=len(r))) for r in responses
        ]
        k = st.integers(0, len(responses) - 1)
        pairs = draw(
            st.lists(st.builds(Pair, k, k, st.floats(0.5, 1), st.floats(0, 9)), max_size=3)
        )
        prompt = draw(st.lists(ids, min_size=1, max_size=6))
        made.append(tree(prompt, *responses, scored=scored, pairs=pairs, source=f"a:{i}"))
    return made


def read_back(batch: Batch) -> list[tuple]:
    """Every tree of a batch, from its tensors alone."""
    packed, found = batch.trees, []
    fields = packed.input_ids, packed.tree, packed.response, packed.position_ids
    flat_ids, flat_tree, flat_response, position = (field.flatten() for field in fields)
    for t in range(int(flat_tree.max()) + 1):
        prompt_at = ((flat_tree == t) & (flat_response == -1)).nonzero().flatten()
        assert position[prompt_at].tolist() == list(range(len(prompt_at)))
        responses, scored = [], []
        for r in sorted(set(flat_response[flat_tree == t].tolist()) - {-1}):
            at = (flat_response == r).nonzero().flatten()
            assert position[at].tolist() == list(range(len(prompt_at), len(prompt_at) + len(at)))
            line = [*prompt_at.tolist()[-1:], *at.tolist()]  # the response as the model reads it
            mine = packed.owner == r
            successor = dict(pairwise(line))
            learned = [successor[p] for p in packed.predictor[mine].tolist()]
            assert learned == sorted(learned)
            assert flat_ids[learned].tolist() == packed.target[mine].tolist()
            responses.append(flat_ids[at].tolist())
            scored.append([i in learned for i in at.tolist()])
        found.append((flat_ids[prompt_at].tolist(), responses, scored))
    return found


@given(trees(), st.integers(30, 60), st.sampled_from([1, 8, 128]))
@settings(max_examples=100, deadline=None)
def test_every_tree_can_be_read_back(many, budget, multiple):
    batches = pack(many, budget, multiple)
    assert sorted(t.group.source for b in batches for t in b.source) == sorted(
        t.group.source for t in many
    )
    for batch in batches:
        packed = batch.trees
        assert [tuple(t[:3]) for t in batch.source] == read_back(batch)
        assert packed.input_ids.shape[0] == 1
        assert packed.input_ids.shape[1] % multiple == 0
        assert int((packed.tree >= 0).sum()) == sum(t.tokens for t in batch.source) <= budget
        padding = packed.tree == -1
        assert not packed.position_ids[padding].any()
        assert (packed.response[padding] == -1).all()
        assert packed.responses == sum(len(t.responses) for t in batch.source)
        assert sorted(packed.owner.tolist()) == packed.owner.tolist()
        first, expected = 0, []
        for t in batch.source:
            expected += [
                (first + p.better, first + p.worse, p.probability, p.margin, -1)
                for p in t.group.pairs
            ]
            first += len(t.responses)
        if batch.pairs is None:
            assert not expected
        else:
            found = torch.stack([column.double() for column in batch.pairs[:5]], 1)
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double))
            is_one = torch.tensor(expected)[:, 2] == 1  # in float32
            assert batch.pairs.are_certain == bool(is_one.all())
            for side, tokens in enumerate(batch.pairs.tokens):
                responses = {row[side] for row in expected}
                owners = packed.owner.tolist()
                assert tokens.tolist() == [
                    at for at, owner in enumerate(owners) if owner in responses
                ]
        owners = packed.owner.tolist()
        assert packed.longest == max(map(owners.count, owners), default=0)


@given(trees())
@settings(max_examples=30, deadline=None)
def test_several_rows_share_one_numbering(many):
    batch = pack_rows([many[::2], many[1::2]])
    assert [tuple(t[:3]) for t in batch.source] == read_back(batch)
    assert batch.source == (*many[::2], *many[1::2])


def test_best_fit_needs_two_rows_where_next_fit_needs_three():
    sizes = [4, 7, 6, 3]  # in order, a row of 10 would hold 4 | 7 | 6+3
    batches = pack([tree([1] * (n - 1), [2]) for n in sizes], budget=10)
    assert sorted(b.trees.input_ids.shape[1] for b in batches) == [10, 10]


def test_worked_example():
    packed = pack([tree([5, 6], [7, 8], [9], pairs=[Pair(0, 1)])], budget=8, multiple=4)[0]
    assert packed.trees.input_ids.tolist() == [[5, 6, 7, 8, 9, 0, 0, 0]]
    assert packed.trees.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 0, 0]]
    assert packed.trees.tree.tolist() == [[0, 0, 0, 0, 0, -1, -1, -1]]
    assert packed.trees.response.tolist() == [[-1, -1, 0, 0, 1, -1, -1, -1]]
    assert packed.trees.predictor.tolist() == [1, 2, 1]
    assert packed.trees.target.tolist() == [7, 8, 9]
    assert packed.trees.owner.tolist() == [0, 0, 1]
    assert packed.pairs is not None
    assert packed.pairs.chosen.tolist() == [0]


def test_a_tree_over_the_budget_is_named():
    with pytest.raises(
        DataError,
        match=r"b.jsonl:7 has 12 tokens .* token_budget of 11; raise token_budget or lower",
    ):
        pack([tree([1] * 10, [2, 3], source="b.jsonl:7")], budget=11)
