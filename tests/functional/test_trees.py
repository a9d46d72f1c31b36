import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.packing import pack_rows
from lit_align.functional.trees import attention_mask, pad_rows, unroll
from lit_align.types import Group, Tree
from tests.strategies import layouts, padded

few = settings(max_examples=25, deadline=None, derandomize=True)


@few
@given(layouts(), st.none() | st.integers(1, 12))
def test_a_token_sees_what_came_before_it_on_its_own_way(rows, window):
    """What a token continues is its prompt and its response so far: it must see that, and nothing else."""
    trees = pack_rows(rows).trees
    seen = attention_mask(trees, window)
    for row, planted in enumerate(rows):
        at = 0
        for tree in planted:
            ways = []
            starts = [(tree.prompt, tree.responses)]
            starts += [(branch.prompt, [branch.ids]) for branch in tree.branches]
            for start, continuations in starts:
                prompt = list(range(at, at + len(start)))
                ways.append(prompt)
                at += len(prompt)
                for ids in continuations:
                    ways.append(prompt + list(range(at, at + len(ids))))
                    at += len(ids)
            for way in ways:
                for back, query in enumerate(way):
                    sees = way[max(0, back + 1 - (window or len(way))) : back + 1]
                    assert seen[row, query].nonzero()[:, 0].tolist() == sees
        assert seen[row, at:, at:].any(-1).all()
        assert not seen[row, at:, :at].any()
        assert not seen[row, :at, at:].any()


@few
@given(layouts())
def test_unrolled_rows_are_the_padded_texts(rows):
    trees = pack_rows(rows).trees
    flat = unroll(trees)
    ids, mask, where = padded(rows)
    row, column, token = where.T
    assert torch.equal(flat.input_ids, ids)
    assert torch.equal(flat.tree >= 0, mask.bool())
    assert torch.equal(flat.position_ids, torch.arange(ids.shape[1]) * mask)
    assert torch.equal(flat.predictor, row * ids.shape[1] + column - 1)
    assert torch.equal(flat.target, token)
    assert torch.equal(flat.owner, trees.owner)
    first, numbers = 0, []
    for tree in [tree for row in rows for tree in row]:
        for number in range(len(tree.responses)):
            numbers += [first + number] * len(tree.parts_of(number))
        first += len(tree.responses)
    assert torch.equal(
        flat.response >= 0, (flat.response == torch.tensor(numbers)[:, None]) & (flat.tree >= 0)
    )
    again = unroll(flat)
    assert all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for a, b in zip(flat, again, strict=True)
    )


@few
@given(layouts(), st.integers(1, 40))
def test_longer_rows_hold_the_same_trees(rows, multiple):
    trees = pack_rows(rows).trees
    longer = pad_rows(trees, multiple)
    length = trees.tree.shape[1]
    assert longer.tree.shape[1] % multiple == 0
    assert longer.tree.shape[1] - length < multiple
    assert all(torch.equal(a, b[:, :length]) for a, b in zip(trees[:4], longer[:4], strict=True))
    assert (longer.tree[:, length:] == -1).all()
    assert torch.equal(
        trees.input_ids.flatten()[trees.predictor], longer.input_ids.flatten()[longer.predictor]
    )
    assert torch.equal(unroll(longer).predictor, unroll(trees).predictor)


def test_a_response_without_tokens_keeps_its_place():
    tree = Tree([1, 2], [[3], [], [4]], [[True], [], [True]], Group("", ["", "", ""]))
    flat = unroll(pack_rows([[tree]]).trees)
    assert flat.input_ids.tolist() == [[1, 2, 3], [0, 0, 0], [1, 2, 4]]
    assert flat.tree.tolist() == [[0, 0, 0], [-1, -1, -1], [2, 2, 2]]
    assert flat.predictor.tolist() == [1, 7]
