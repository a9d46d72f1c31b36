"""Settings of torch on a GPU; a CPU is left alone."""

import pytest
import torch

from lit_align.models.cuda_settings import default_precision, set_matmul_precision
from lit_align.models.load import Base

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _restored():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("dtype", "precision"), [("auto", "high"), ("bfloat16", "high"), ("float32", "highest")]
)
def test_float32_is_exact_where_the_base_computes_in_it(dtype, precision):
    assert default_precision(Base("model", dtype=dtype), CUDA) == precision


def test_what_is_set_holds_on_a_gpu_alone():
    base = Base("model", dtype="bfloat16")
    set_matmul_precision(base, torch.device("cpu"), "medium")
    assert torch.get_float32_matmul_precision() == "highest"
    set_matmul_precision(base, CUDA)
    assert torch.get_float32_matmul_precision() == "high"
    set_matmul_precision(base, CUDA, "highest")
    assert torch.get_float32_matmul_precision() == "highest"
