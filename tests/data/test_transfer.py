"""Tensors that cross to a device together arrive as they were."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.transfer import move_together

DTYPES = (torch.long, torch.bool, torch.float32, torch.float64, torch.uint8)
ELSEWHERE = torch.device("cpu", 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=9
    )
)
def test_what_arrives_is_what_was_sent(kinds):
    draw = torch.Generator().manual_seed(0)
    sent = [torch.randint(0, 2, shape, generator=draw).to(dtype) for dtype, shape in kinds]
    moved = move_together(sent, ELSEWHERE)
    for before, after in zip(sent, moved, strict=True):
        assert after.dtype == before.dtype
        assert torch.equal(after, before)
    storages = {tensor.untyped_storage().data_ptr() for tensor in moved if tensor.numel()}
    assert len(storages) <= 1


def test_a_transposed_tensor_arrives():
    table = torch.arange(6).view(2, 3).T
    assert torch.equal(move_together([table], ELSEWHERE)[0], table)


def test_what_is_there_already_stays():
    table = torch.ones(2)
    assert move_together([table], torch.device("cpu"))[0] is table
