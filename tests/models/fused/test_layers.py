"""Single fused layers in float64, against their definition differentiated by torch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import gelu, silu

from lit_align.models.fused.gated_mlp import ACTIVATIONS, GatedMlp
from lit_align.models.fused.projections import Projection, project
from lit_align.models.fused.recognition import same_code
from lit_align.models.fused.rms_norm import rms_norm
from lit_align.models.fused.rotary import apply_rotary

few = settings(max_examples=15, deadline=None, derandomize=True)
sizes = st.integers(1, 6)


def frozen_linear(inputs, outputs, bias=True):
    return nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64).requires_grad_(False)


def projection(inputs, outputs, rank, scaling=1.5, bias=True):
    """With an adapter of this rank; without one if it is 0."""
    base = frozen_linear(inputs, outputs, bias)
    if not rank:
        return Projection(base)
    lora_a = torch.randn(rank, inputs, dtype=torch.float64, requires_grad=True)
    lora_b = torch.randn(outputs, rank, dtype=torch.float64, requires_grad=True)
    return Projection(base, lora_a, lora_b, scaling)


def defined(x, projection):
    """The definition: ``W x + b + s B A x``."""
    result = projection.base(x)
    if projection.lora_a is None:
        return result
    return result + projection.scaling * (x @ projection.lora_a.T) @ projection.lora_b.T


def gradients(outputs, inputs, seed=1):
    random = torch.Generator().manual_seed(seed)
    directions = [torch.randn(out.shape, generator=random, dtype=out.dtype) for out in outputs]
    return torch.autograd.grad(outputs, inputs, directions)


def assert_same(actual, expected):
    for result, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(result, right)


@few
@given(
    shape=st.lists(sizes, min_size=1, max_size=3),
    ranks=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    width=sizes,
    seed=st.integers(0, 99),
)
def test_projections_are_what_they_are_defined_as(shape, ranks, width, seed):
    torch.manual_seed(seed)
    x = torch.randn(*shape, width, dtype=torch.float64, requires_grad=True)
    group = [projection(width, 2 + number, rank) for number, rank in enumerate(ranks)]
    weights = [w for p in group for w in (p.lora_a, p.lora_b) if w is not None]
    actual, expected = project(x, group), [defined(x, p) for p in group]
    assert_same(actual, expected)
    assert_same(gradients(actual, [x, *weights]), gradients(expected, [x, *weights]))
    with torch.no_grad():
        assert_same(project(x, group), expected)
    if weights:  # the first layer's input needs no gradient
        actual = project(x.detach(), group)[: len(ranks)]
        expected = [defined(x.detach(), p) for p in group]
        adapted = [number for number, rank in enumerate(ranks) if rank]
        assert_same(
            gradients([actual[i] for i in adapted], weights),
            gradients([expected[i] for i in adapted], weights),
        )


def test_an_output_that_is_not_used_has_no_part_in_the_gradients():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    group = [projection(4, 2, 2), projection(4, 3, 1)]
    query, _ = project(x, group)
    actual = torch.autograd.grad(
        query.sum(), [x, *group[0][1:3], *group[1][1:3]], allow_unused=True
    )
    expected = torch.autograd.grad(defined(x, group[0]).sum(), [x, *group[0][1:3]])
    assert_same(actual[:3], expected)
    assert actual[3:] == (None, None)


@few
@given(
    ranks=st.tuples(*[st.integers(0, 2)] * 3),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    rows=sizes,
    seed=st.integers(0, 99),
)
def test_a_gated_mlp_is_what_it_is_defined_as(ranks, activation, rows, seed):
    torch.manual_seed(seed)
    definition = {
        "silu": silu,
        "gelu": gelu,
        "gelu_tanh": lambda gate: gelu(gate, approximate="tanh"),
    }[activation]
    x = torch.randn(2, rows, 4, dtype=torch.float64, requires_grad=True)
    gate, up, down = (
        projection(4, 5, ranks[0]),
        projection(4, 5, ranks[1]),
        projection(5, 4, ranks[2]),
    )
    weights = [w for p in (gate, up, down) for w in (p.lora_a, p.lora_b) if w is not None]
    actual = GatedMlp(gate, up, down, ACTIVATIONS[activation])(x)
    expected = defined(definition(defined(x, gate)) * defined(x, up), down)
    assert_same([actual], [expected])
    assert_same(gradients([actual], [x, *weights]), gradients([expected], [x, *weights]))
    with torch.no_grad():
        without_gradient = GatedMlp(gate, up, down, ACTIVATIONS[activation])(x)
    assert_same([without_gradient], [expected])


@few
@given(rows=sizes, width=st.sampled_from([1, 2, 64, 576]), size=st.sampled_from([1e-4, 1.0, 1e4]))
def test_a_norm_is_what_it_is_defined_as(rows, width, size):
    """With an entry that outweighs the others, as the first tokens of real models have."""
    torch.manual_seed(0)
    x = size * torch.randn(rows, width)
    x[0, 0] *= 100
    x.requires_grad_()
    weight, eps = torch.rand(width) + 0.5, 1e-6
    exact = x.double()
    inverse = (exact.square().mean(-1, keepdim=True) + eps).rsqrt()
    expected = weight * exact * inverse
    direction = torch.randn(rows, width)
    (gradient,) = torch.autograd.grad(expected, x, direction.double(), retain_graph=True)
    # the part along x nearly cancels, so roundings are those of the parts and not of their difference
    scale = (inverse * weight * direction).norm(dim=-1).detach()
    for rounds_last in (False, True):
        actual = rms_norm(x, weight, eps, rounds_last)
        torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)
        (actual_gradient,) = torch.autograd.grad(actual, x, direction)
        assert ((actual_gradient - gradient).norm(dim=-1) / scale).max() < 1e-6


def test_a_rotary_embedding_is_what_it_is_defined_as():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(0)
    query = torch.randn(2, 5, 3, 8, dtype=torch.float64).transpose(1, 2).requires_grad_()
    key = torch.randn(2, 5, 1, 8, dtype=torch.float64).transpose(1, 2).requires_grad_()
    cos, sin = torch.randn(2, 2, 5, 8, dtype=torch.float64)
    actual = apply_rotary(query, key, cos, sin)
    expected = apply_rotary_pos_emb(query, key, cos, sin)
    assert_same(actual, expected)
    assert_same(gradients(actual, [query, key]), gradients(expected, [query, key]))
    with torch.no_grad():
        assert_same(apply_rotary(query, key, cos, sin), expected)


def test_layers_are_known_by_their_code():
    def known(x):
        """With a docstring."""
        return 2.0 * x

    def same(x):
        return 2.0 * x

    def other(x):
        return 3.0 * x

    assert same_code(known, same)
    assert not same_code(known, other)
