"""Every embedder keeps the promises, and each check catches one that breaks only that one."""

import math

import pytest
import torch
from torch import nn

from lit_align.errors import ConfigError, DataError
from lit_align.orca.embedders import Embedder
from lit_align.orca.embedders.patches import Patches
from lit_align.orca.embedders.spectrogram import Spectrogram
from lit_align.orca.embedders.symbols import Symbols
from lit_align.orca.embedders.tabular import Tabular
from lit_align.orca.modalities import InputSpec, collate
from lit_align.orca.testing import check_embedder
from lit_align.orca.types import BackboneSpec, Embedded, TokenStats
from lit_align.plugins import load_plugins

BACKBONE = BackboneSpec(8, 64, TokenStats(torch.zeros(8), torch.ones(8)))


def series(*lengths, channels=2):
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(channels, length, generator=draw) for length in lengths]


def holed(values):
    values[0][:, 3:9] = torch.nan
    return values


CASES = {
    "ragged": (Patches(size=4), "series", series(13, 7, 4, 1)),
    "prime": (Patches(), "series", series(521, 521)),
    "missing": (Patches(size=3), "series", holed(series(13, 7))),
    "image": (Patches(size=3), "image", [x.view(1, 7, 5) for x in series(35, 35, 35, channels=1)]),
    "volume": (Patches(size=2), "image", [x.view(2, 3, 5, 4) for x in series(60, 60)]),
    "table": (
        Tabular(),
        "tabular",
        [torch.tensor([1.0, torch.nan, 3.0]), torch.tensor([2.0, 5.0, torch.nan])],
    ),
    "symbols": (Symbols(), "symbols", [torch.tensor([[1, 2, 3, 0]]), torch.tensor([[2, 4]])]),
    "sound": (Spectrogram(window=16, hop=4), "series", series(61, 17, 3, 1, channels=1)),
    "stereo": (Spectrogram(window=10, hop=7), "series", series(61, 17)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_embedder_keeps_the_promises(case):
    check_embedder(*CASES[case])


def test_each_built_in_embedder_is_among_them():
    assert {type(embedder) for embedder, *_ in CASES.values()} == set(
        load_plugins().registries["register_embedders"].classes()
    )


def attached(embedder, kind, inputs, backbone=BACKBONE):
    embedder.attach(InputSpec.from_inputs(kind, inputs), backbone)
    return embedder


@pytest.mark.parametrize(
    ("shape", "max_patches", "size", "tokens"),
    [
        ((96,), 64, 2, 48),
        ((521,), 64, 9, 58),
        ((64,), 64, 1, 64),
        ((28, 28), 64, 4, 49),
        ((17, 16), 64, 3, 36),
    ],
)
def test_the_smallest_patch_that_makes_few_enough_tokens(shape, max_patches, size, tokens):
    embedder = attached(Patches(max_patches=max_patches), "image", [torch.zeros(1, *shape)])
    assert embedder.patch == (size,) * len(shape)
    assert embedder.n_tokens(InputSpec("image", 1, shape)) == tokens


def test_a_patch_is_what_a_convolution_with_that_stride_sees():
    """Against torch's own convolution, whose weight is laid out [out, channels, height, width]."""
    embedder = attached(Patches(size=4), "image", [torch.zeros(3, 8, 12)])
    x = torch.randn(2, 3, 8, 12)
    weight = embedder.project.weight.view(8, 3, 4, 4)
    wanted = (
        nn.functional.conv2d(x, weight, embedder.project.bias, stride=4).flatten(2).transpose(1, 2)
    )
    found = embedder(x, torch.ones_like(x, dtype=torch.bool))
    torch.testing.assert_close(found.tokens, wanted)
    assert found.grid == (2, 3)


def test_a_gap_is_no_token_and_a_token_knows_which_of_its_values_are_missing():
    x, mask = collate([torch.tensor([[1.0, 0.0, torch.nan, torch.nan, torch.nan, 0.0]])])
    embedder = attached(Patches(size=2), "series", [x[0], torch.zeros(1, 5)])
    found = embedder(x, mask)
    assert found.mask.tolist() == [[True, False, True]]
    known = embedder(x, torch.ones_like(mask)).tokens
    torch.testing.assert_close(found.tokens[0, 0], known[0, 0])
    assert not torch.allclose(found.tokens[0, 2], known[0, 2])  # 0 and missing differ


def test_pooled_is_the_mean_of_what_is_there():
    tokens = torch.tensor([[[1.0], [3.0], [50.0]]])
    assert Embedded(tokens, torch.tensor([[True, True, False]])).pooled().tolist() == [[2.0]]


def test_a_tone_is_found_at_its_frequency():
    """A sine of 8 periods in 64 samples: among the 33 frequencies of a window the 8th has the most power."""
    embedder = Spectrogram(window=64, hop=64)
    x = torch.sin(2 * math.pi * torch.arange(64.0) / 8).view(1, 1, 64)
    embedder.attach(InputSpec("series", 1, (64,)), BACKBONE._replace(d_model=33, stats=None))
    embedder.project.weight.data, embedder.project.bias.data = torch.eye(33), torch.zeros(33)
    power = embedder(x, torch.ones_like(x, dtype=torch.bool)).tokens[0, 0]
    assert power.argmax() == 8
    # Hann weighs by 1/2 on average: the line has amplitude 64/4, its power 256 over 64 samples is 4
    torch.testing.assert_close(power[8].exp(), torch.tensor(4.0), rtol=1e-2, atol=0)


def test_moments_of_a_constant_channel_are_the_backbone_s_mean():
    embedder = attached(Patches(size=2), "series", [torch.ones(1, 4)])
    stats = TokenStats(torch.arange(8.0), torch.ones(8))
    embedder.match_stats(stats, torch.ones(3, 1, 4), torch.ones(3, 1, 4, dtype=torch.bool))
    tokens = embedder(torch.ones(1, 1, 4), torch.ones(1, 1, 4, dtype=torch.bool)).tokens
    torch.testing.assert_close(tokens, torch.arange(8.0).expand(1, 2, 8))


def test_refusals():
    with pytest.raises(ConfigError, match="Tabular reads tabular data, not series; choose another"):
        attached(Tabular(), "series", series(4))
    with pytest.raises(
        ConfigError, match="Patches makes 131 tokens, the backbone reads 64; make it coarser"
    ):
        attached(Patches(size=4), "series", series(521))
    with pytest.raises(ConfigError, match="size is 0"):
        Patches(size=0)
    with pytest.raises(ConfigError, match="hop is 9, window 8"):
        Spectrogram(window=8, hop=9)
    embedder = attached(Patches(size=1), "series", series(64))
    with pytest.raises(
        DataError, match="an input makes 65 tokens, the backbone reads 64; shorten it"
    ):
        embedder(torch.zeros(1, 2, 65), torch.ones(1, 2, 65, dtype=torch.bool))


class Plain(Embedder):
    input_kinds = frozenset({"series"})

    def build(self, inputs, d_model):
        self.project = nn.Linear(inputs.channels, d_model)

    def n_tokens(self, inputs):
        return inputs.shape[0]

    def embed(self, x, mask):
        return Embedded(self.project(x.transpose(1, 2)), mask.any(1))


class Miscounting(Plain):
    def n_tokens(self, inputs):
        return inputs.shape[0] + 1


class Unmasked(Plain):
    def embed(self, x, mask):
        return super().embed(x, torch.ones_like(mask))


class Normalising(Plain):
    def embed(self, x, mask):
        return super().embed(x - x.mean(0), mask)


class Idle(Plain):
    def build(self, inputs, d_model):
        super().build(inputs, d_model)
        self.more = nn.Linear(1, 1)


class Deaf(Plain):
    @torch.no_grad()
    def match_stats(self, stats, x, mask):
        pass


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (Miscounting, "announces 10 tokens"),
        (Unmasked, "the rest of the batch changes"),
        (Normalising, "the rest of the batch changes"),
        (Idle, "get no gradient: more.weight, more.bias"),
        (Deaf, "after match_stats the mean"),
    ],
)
def test_each_promise_catches_who_breaks_it(broken, why):
    check_embedder(Plain(), "series", series(9, 5))
    with pytest.raises(AssertionError, match=why):
        check_embedder(broken(), "series", series(9, 5))
