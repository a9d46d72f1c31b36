"""A decoded token takes few kernels and hardly ever makes the host wait; how many rows read 4-bit weights packed."""

import importlib
import json
import shutil
from collections import namedtuple

import pytest
import torch

from lit_align.compat.bitsandbytes import packed_product_rule
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.decoding.batch_rows import fastest_rows, rows_at_once
from lit_align.models.load import Base, load_model
from tests.counts.decoding import count_decoding
from tests.counts.host_waits import HostWaits, pretend_on_gpu
from tests.counts.kernels import Kernels

CPU = torch.device("cpu")
BFLOAT16 = torch.bfloat16

Card = namedtuple("Card", "multi_processor_count major minor")
RTX_3090, RTX_4090, H100 = Card(82, 8, 6), Card(128, 8, 9), Card(132, 9, 0)


def test_what_counts_as_a_kernel_and_as_a_wait():
    layer, x = torch.nn.Linear(3, 2), torch.ones(4, 3)
    pretend_on_gpu(layer)
    with HostWaits() as waits, Kernels() as kernels, torch.no_grad():
        y = layer(x)  # one product
        y.view(-1).T[None]
        bool(y.sum() > 0)  # two kernels, and the host reads
        y[y > 0]  # two, the second of unknown size
        y[0] = 1
        x.tolist()
        torch.ones(2).to(y.device)
    assert waits.by_kind() == {
        "reads a value: __bool__": 1,
        "has a size that depends on values: a boolean index": 1,
        "copies a host tensor": 1,
    }
    assert kernels.counts["addmm"] == kernels.counts["sum"] == 1


@pytest.fixture(scope="module")
def counts(tiny, tmp_path_factory):
    """Counts of one token of a 4-bit Llama in bfloat16 with an adapter, with two layers and with one."""
    shallow = tmp_path_factory.mktemp("shallow") / "llama"
    shutil.copytree(tiny, shallow)
    settings = json.loads((shallow / "config.json").read_text())
    (shallow / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 1}))
    measured = []
    for folder in (tiny, str(shallow)):
        model = load_model(Base(folder, "nf4", "bfloat16"), CPU)
        adapters = AdapterSet(model, Lora(r=4), gradient_checkpointing=False)
        with adapters.activate("policy", training=False) as active:
            measured.append(count_decoding(active))
    return measured


def test_the_host_waits_once_in_sixteen_tokens(counts):
    for measured in counts:
        assert measured.host_waits == {"reads a value: tolist": 1 / 16}


def test_a_token_of_32_layers_takes_a_known_number_of_kernels(counts):
    """Two copies a layer append to the keys and values, and none moves them."""
    deeper, shallower = counts
    whole = deeper.at_depth(shallower, 2, 1, 32)
    assert whole.kernels.get("cat", 0) <= 2 * 32 + 1  # halves of rotated queries and keys
    assert "index" not in whole.kernels
    assert "where" not in whole.kernels
    assert whole.num_kernels <= 3300


@pytest.fixture
def rule(monkeypatch):
    """bitsandbytes' own rule, evaluated for cards that are not there: numbers of devices that no machine has."""
    # only builds of torch for CUDA have it
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 0, raising=False)
    ops = importlib.import_module("bitsandbytes.backends.cuda.ops")
    cards = {100: RTX_3090, 101: RTX_4090, 102: H100}
    monkeypatch.setattr(ops, "_gpu_dispatch_props", lambda index: tuple(cards[index]))

    def for_card(card):
        (index,) = (number for number, known in cards.items() if known is card)
        return packed_product_rule(torch.device("cuda", index), BFLOAT16)

    return for_card


@pytest.mark.parametrize(
    ("card", "square", "wide"), [(RTX_3090, 64, 128), (RTX_4090, 8, 128), (H100, 7, 32)]
)
def test_rows_up_to_which_a_weight_is_read_packed(rule, card, square, wide):
    uses_packed = rule(card)
    for outputs, limit in ((4096, square), (14336, wide)):
        largest = max(rows for rows in range(1, 512) if uses_packed(rows, outputs, 4096))
        assert largest == limit


LLAMA_8B = {(4096, 4096): 64, (1024, 4096): 64, (14336, 4096): 64, (4096, 14336): 32}
"""4-bit weights by outputs and inputs."""


def test_a_batch_is_cut_only_where_that_takes_less_time(rule):
    """Packed, the weights are 3.6 GB: 4 ms of a 3090, less than the launches of a step take."""
    uses_packed = rule(RTX_3090)
    assert fastest_rows(64, LLAMA_8B, uses_packed, 936e9) == 64
    assert fastest_rows(72, LLAMA_8B, uses_packed, 936e9) == 72
    # a card of a tenth of the bandwidth waits for its memory, and reads ten times as much for 72 rows as for 64
    assert fastest_rows(72, LLAMA_8B, uses_packed, 94e9) == 64
    assert fastest_rows(640, LLAMA_8B, uses_packed, 94e9) in (128, 640)


def test_on_a_cpu_all_rows_go_together(tiny):
    assert rows_at_once(load_model(Base(tiny, "nf4", "float32"), CPU), 500) == 500
