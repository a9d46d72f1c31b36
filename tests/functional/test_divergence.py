"""The divergence of two heads: its value, its gradient and its memory, against all logits at once."""

import math

import pytest
import torch

from lit_align.errors import ModelError
from lit_align.functional import logps
from lit_align.functional.divergence import (
    Predictions,
    generalized_jsd,
    token_divergence,
    token_entropy,
)
from lit_align.functional.logps import LogitTransform
from tests.peak_memory import Peak

BETAS = [0.0, 0.3, 0.5, 1.0]
TRANSFORMS = [LogitTransform(), LogitTransform(scale=0.4), LogitTransform(1.7, softcap=3.0)]


def made(n=5, d=4, vocabulary=11, seed=0, dtype=torch.float64, transform=LogitTransform()):  # noqa: B008
    random = torch.Generator().manual_seed(seed)
    states, weight, bias = (
        torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)
        for shape in [(n, d), (vocabulary, d), (vocabulary,)]
    )
    return Predictions(states.requires_grad_(), weight, bias, transform)


def all_logits(predictions):
    logits = predictions.states @ predictions.weight.T + predictions.bias
    logits = logits * predictions.transform.scale
    cap = predictions.transform.softcap
    return logits if cap is None else cap * torch.tanh(logits / cap)


def whole(student, teacher, beta):
    own, taught = (all_logits(side).log_softmax(-1) for side in (student, teacher))
    return generalized_jsd(own, taught.detach(), beta)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("beta", BETAS)
def test_gradient_is_that_of_finite_differences(beta, transform):
    student, teacher = made(transform=transform), made(d=3, seed=1)

    def divergence(states):
        return token_divergence(student._replace(states=states), teacher, beta)

    assert torch.autograd.gradcheck(divergence, student.states)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_over_several_chunks_it_is_that_of_all_logits(beta, dtype, tolerance):
    student, teacher = made(2500, 6, 17, dtype=dtype), made(2500, 9, 17, seed=1, dtype=dtype)
    fused, right = token_divergence(student, teacher, beta), whole(student, teacher, beta)
    assert (fused - right).abs().max() <= tolerance * (1 + right.max())
    weights = torch.linspace(-1, 2, 2500, dtype=dtype)
    got, expected = (
        torch.autograd.grad((side * weights).sum(), student.states)[0] for side in (fused, right)
    )
    assert (got - expected).norm() <= tolerance * expected.norm()
    assert not fused.isnan().any()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_entropy_and_its_gradient_are_those_of_all_logits(transform):
    """-Σ p log p in float64, over two chunks; by a logit its derivative is -p (log p + H)."""
    predictions = made(1500, 6, 17, transform=transform)
    log_probs = all_logits(predictions).log_softmax(-1)
    right, fused = -(log_probs.exp() * log_probs).sum(-1), token_entropy(predictions)
    torch.testing.assert_close(fused, right, rtol=1e-12, atol=1e-12)
    weights = torch.linspace(-1, 2, 1500, dtype=torch.float64)
    got, expected = (
        torch.autograd.grad((side * weights).sum(), predictions.states)[0]
        for side in (fused, right)
    )
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64, requires_grad=True)
    entropy = token_entropy(Predictions(logits))
    assert entropy.item() == pytest.approx(math.log(4) - 0.75 * math.log(3))
    (slope,) = torch.autograd.grad(entropy, logits)
    by_hand = 0.25 * 0.75 * math.log(3)  # -1/4 (log 1/4 + log 4 - 3/4 log 3)
    torch.testing.assert_close(slope, torch.tensor([[by_hand, -by_hand]]).double())


@pytest.mark.parametrize("beta", BETAS)
def test_logits_in_the_place_of_a_head_give_the_same(beta):
    student, teacher = made(), made(seed=1)
    logits = all_logits(student).detach().requires_grad_()
    fused = token_divergence(student, teacher, beta)
    plain = token_divergence(Predictions(logits), Predictions(all_logits(teacher)), beta)
    torch.testing.assert_close(plain, fused)
    (by_logits,) = torch.autograd.grad(plain.sum(), logits)
    (by_states,) = torch.autograd.grad(fused.sum(), student.states)
    torch.testing.assert_close(by_logits @ student.weight, by_states)


@pytest.mark.parametrize("beta", BETAS)
def test_entries_that_only_one_vocabulary_has_are_left_out(beta):
    """Models of one family pad their vocabularies to different sizes."""
    student, teacher = made(vocabulary=11), made(vocabulary=16, seed=1)
    cut = teacher._replace(weight=teacher.weight[:11], bias=teacher.bias[:11])
    padded, same = token_divergence(student, teacher, beta), token_divergence(student, cut, beta)
    assert torch.equal(padded, same)
    assert len(token_divergence(teacher, student, beta)) == 5


@pytest.mark.parametrize("beta", BETAS)
def test_far_apart_and_equal_it_is_finite(beta):
    """Between logits 2,000 nats apart, and between equal distributions, where it and its gradient are 0."""
    student, teacher = made(dtype=torch.float32), made(seed=1, dtype=torch.float32)
    far = teacher._replace(transform=LogitTransform(scale=500.0))
    close = student._replace(states=student.states.detach())
    for other in (far, close):
        divergence = token_divergence(student, other, beta)
        (gradient,) = torch.autograd.grad(divergence.sum(), student.states)
        assert divergence.isfinite().all()
        assert gradient.isfinite().all()
    assert divergence.abs().max() < 1e-6
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("beta", BETAS)
def test_no_logits_of_all_tokens_are_kept(beta, monkeypatch):
    """[n, V] of 4,096 tokens and 1,024 words is 16 MiB; what is saved is [n, d], and 64 rows of logits are 256 KiB."""
    n, d, vocabulary = 4096, 8, 2**10
    chunk = 4 * 64 * vocabulary
    monkeypatch.setattr(logps, "CHUNK_LOGITS", 64 * vocabulary)
    student, teacher = (made(n, d, vocabulary, seed, torch.float32) for seed in (0, 1))
    saved = []

    def pack(tensor):
        saved.append(tensor.untyped_storage().nbytes())
        return tensor

    before = [student.states, student.weight, student.bias]
    with Peak(*before) as peak, torch.autograd.graph.saved_tensors_hooks(pack, lambda it: it):
        token_divergence(student, teacher, beta).sum().backward()
    assert max(saved) <= 4 * n * d
    assert chunk < peak.above_start < 10 * chunk < 4 * n * vocabulary / 6


def test_a_head_that_learns_is_refused():
    student = made()
    student.weight.requires_grad_()
    with pytest.raises(ModelError, match="freeze the head"):
        token_divergence(student, made(), 0.5)
