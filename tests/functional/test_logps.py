import pytest
import torch
from torch.nn.functional import logsigmoid
from torch.utils.flop_counter import FlopCounterMode

from lit_align.functional.logps import LogitTransform, sum_by_response, token_logps
from tests.peak_memory import Peak

TRANSFORMS = [
    LogitTransform(),
    LogitTransform(scale=0.4),
    LogitTransform(softcap=2.5),
    LogitTransform(scale=1.7, softcap=3.0),
]


def plain(hidden, weight, bias, target, transform):
    """The same by way of all logits and autograd."""
    logits = (hidden @ weight.T + (0 if bias is None else bias)) * transform.scale
    if transform.softcap:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    return logits.log_softmax(-1).gather(1, target[:, None])[:, 0]


def made(n=5, d=4, vocabulary=11, dtype=torch.float64, train=False, bias=True):
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, d, generator=random, dtype=torch.float64).to(dtype).requires_grad_()
    weight = (
        torch.randn(vocabulary, d, generator=random, dtype=torch.float64)
        .to(dtype)
        .requires_grad_(train)
    )
    offset = (
        torch.randn(vocabulary, generator=random, dtype=torch.float64)
        .to(dtype)
        .requires_grad_(train)
    )
    target = torch.randint(vocabulary, (n,), generator=random)
    return hidden, weight, offset if bias else None, target


def nonlinear(logps):
    """A loss whose gradient differs from token to token and depends on several of them."""
    owner = torch.arange(len(logps)) % 3
    return (
        -logsigmoid(sum_by_response(logps, owner, 3) / 10).sum()
        - (logps.exp() * torch.arange(len(logps))).mean()
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_gradient_is_that_of_finite_differences(transform, bias, train):
    hidden, weight, offset, target = made(train=train, bias=bias)

    def logps(hidden, weight, offset):
        return token_logps(hidden, weight, offset, target, transform=transform).logps

    assert torch.autograd.gradcheck(logps, (hidden, weight, offset))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-6)])
def test_over_several_chunks_value_and_gradient_are_those_of_all_logits(
    transform, train, dtype, tolerance
):
    given = made(
        n=2500, d=6, vocabulary=17, dtype=dtype, train=train
    )  # chunks of 1024 rows: two and a bit
    wanted = [x for x in given[:3] if x.requires_grad]
    fused, whole = token_logps(*given, transform=transform).logps, plain(*given, transform)
    assert (fused - whole).abs().max() <= tolerance * 10
    for got, right in zip(
        torch.autograd.grad(nonlinear(fused), wanted),
        torch.autograd.grad(nonlinear(whole), wanted),
        strict=True,
    ):
        assert (got - right).norm() <= tolerance * right.norm()


def test_half_precision_costs_no_more_than_the_rounding_of_its_logits():
    """bfloat16 keeps 8 bits: a logit below 2**k is off by up to 2**(k - 9), and so is each log-probability, twice."""
    hidden, weight, offset, target = made(
        n=200, d=32, vocabulary=300, dtype=torch.bfloat16, train=True
    )
    fused = token_logps(hidden, weight, offset, target).logps
    exact_inputs = [x.detach().double().requires_grad_() for x in (hidden, weight, offset)]
    right = plain(*exact_inputs, target, LogitTransform())
    assert fused.dtype == torch.float32
    assert (fused - right).abs().max() < 2 * 2 ** (5 - 9)  # logits here are below 2**5
    gradients = torch.autograd.grad(fused.sum(), (hidden, weight, offset))
    for got, exact in zip(gradients, torch.autograd.grad(right.sum(), exact_inputs), strict=True):
        assert got.dtype == torch.bfloat16
        assert (got - exact).norm() < 1e-2 * exact.norm()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_statistics_are_those_of_the_whole_distribution(transform):
    hidden, weight, offset, target = made(n=1500, vocabulary=7)
    seen = token_logps(hidden, weight, offset, target, transform=transform, statistics=True)
    logits = transform(hidden @ weight.T + offset).detach()
    drawn = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(seen.entropy, drawn.entropy())
    torch.testing.assert_close(
        seen.collision, drawn.probs.square().sum(-1).log()
    )  # two draws that agree
    torch.testing.assert_close(seen.mean_logit, logits.mean(-1))
    assert torch.equal(seen.top1, drawn.probs.argmax(-1) == target)
    assert not any(part.requires_grad for part in seen[1:] if part is not None)
    assert seen.logps.requires_grad
    without = token_logps(hidden, weight, offset, target, transform=transform)
    assert torch.equal(without.logps, seen.logps)
    assert set(without[1:]) == {None}


def test_no_scored_tokens_are_no_trouble():
    hidden, weight, offset, target = made(n=0)
    logps = token_logps(hidden, weight, offset, target, statistics=True).logps
    logps.sum().backward()
    assert logps.shape == (0,)
    assert hidden.grad.shape == (0, 4)


def test_a_second_derivative_is_refused():
    hidden, weight, offset, target = made()
    logps = token_logps(hidden, weight, offset, target).logps
    (first,) = torch.autograd.grad(logps.exp().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("train", "grad", "products"), [(False, False, 1), (False, True, 2), (True, True, 4)]
)
def test_only_the_products_that_are_needed(train, grad, products):
    """Logits cost 2nVd. Scoring needs no more; a frozen head adds the Jacobian; a trainable one computes the logits
    again and multiplies them once for the hidden states and once for the weight.
    """
    n, d, vocabulary = 50, 8, 40
    given = made(n, d, vocabulary, torch.float32, train=train, bias=False)
    with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counted:
        logps = token_logps(*given).logps
        if grad:
            logps.sum().backward()
    assert counted.get_total_flops() == products * 2 * n * vocabulary * d


D = 8
MIB = 2**20


def peak_of(path, n, vocabulary, train=False, transform=TRANSFORMS[0], **options):
    given = made(n, D, vocabulary, torch.float32, train=train, bias=False)
    with Peak(*(x for x in given if x is not None)) as peak:
        path(*given, transform=transform, **options).sum().backward()
    return peak.above_start


def fused(*given, **options):
    return token_logps(*given, **options).logps


@pytest.mark.parametrize(("train", "transform"), [(False, TRANSFORMS[0]), (True, TRANSFORMS[3])])
def test_peak_memory_does_not_grow_with_tokens_times_vocabulary(train, transform):
    """A chunk has 2**24 / V rows: at 2**14 entries and 2**15 alike, 2**24 float32 logits, 64 MiB, and two such at once.

    What grows is of size n * d or V * d; all logits at once would be 64 MiB times n V / 2**24.
    """
    for n, vocabulary in ((1024, 2**14), (2048, 2**14), (1024, 2**15)):
        small = 4 * (
            4 * n * D + 4 * vocabulary * D
        )  # float32: hidden states, the head, their gradients
        assert peak_of(fused, n, vocabulary, train, transform) <= 2 * 64 * MIB + small


def test_the_peak_of_all_logits_does():
    at_first = peak_of(plain, 512, 2**14)
    assert at_first >= 2 * 32 * MIB
    assert peak_of(plain, 1024, 2**14) >= 1.95 * at_first
    assert peak_of(plain, 512, 2**15) >= 1.95 * at_first


def test_statistics_need_no_more_memory():
    n = 1024
    assert peak_of(fused, n, 2**14, statistics=True) <= 2 * 64 * MIB + 4 * (
        4 * n * D + 4 * 2**14 * D + 8 * n
    )
