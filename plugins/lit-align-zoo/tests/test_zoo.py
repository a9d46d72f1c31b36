"""Each loss is its paper's formula, at points worked out by hand and, in double precision, anywhere."""

import tomllib
from importlib import import_module
from math import e, exp, log
from pathlib import Path

import pytest
import torch
from lit_align_zoo.aot import AOT
from lit_align_zoo.aot_unpaired import AOTUnpaired
from lit_align_zoo.apo_down import APODown
from lit_align_zoo.apo_zero import APOZero
from lit_align_zoo.apo_zero_unpaired import APOZeroUnpaired
from lit_align_zoo.cpo import CPO
from lit_align_zoo.discopop import DiscoPOP
from lit_align_zoo.exo import EXO
from lit_align_zoo.f_dpo import FDPO, STEEPEST
from lit_align_zoo.ld_dpo import LDDPO
from lit_align_zoo.length_normalized_dpo import LengthNormalizedDPO
from lit_align_zoo.nca import NCA
from lit_align_zoo.robust_dpo import RobustDPO
from lit_align_zoo.sppo import SPPO
from lit_align_zoo.wpo import WPO
from torch.testing import assert_close

from lit_align.advantages import Advantage
from lit_align.objectives import Logps, PerTokenLogps, PolicyObjective
from lit_align.objectives.dpo import DPO
from lit_align.objectives.kto import KTO
from lit_align.testing import check_objective

PLUGIN = Path(__file__).parent.parent
DIVERGENCES = ["reverse_kl", "forward_kl", "js", "alpha"]
LIKE_DPO = [
    RobustDPO(),
    EXO(),
    AOT(),
    AOTUnpaired(),
    DiscoPOP(),
    LengthNormalizedDPO(),
    LDDPO(),
    WPO(),
]
LIKE_DPO += [FDPO(divergence=divergence) for divergence in DIVERGENCES]
OTHERS = [CPO(), NCA(), SPPO(), APOZero(), APODown()]
PAIRWISE = LIKE_DPO + OTHERS


# The formulas, one pair at a time, as slowly and as plainly as they are printed.


def sigma(x):
    return 1 / (1 + torch.exp(-x))


def ratio(side, i):
    return side.policy[i] - side.reference[i]


def logistic(x):
    return -torch.log(sigma(x))


def cpo(won, lost, i, beta, weight):
    return (
        logistic(beta * won.policy[i] - beta * lost.policy[i])
        - weight * won.policy[i] / won.length[i]
    )


def exo(won, lost, i, beta, label_smoothing):
    """KL between two distributions over the two: softmax of the policy's rewards, and the smoothed label."""
    believed = torch.softmax(torch.stack([beta * ratio(won, i), beta * ratio(lost, i)]), 0)
    label = torch.tensor([1 - label_smoothing, label_smoothing], dtype=torch.float64)
    return (believed * (believed / label).log()).sum()


def nca(won, lost, i, beta):
    """The loss over K = 2 responses of which the chosen one has all of the reward."""
    total = 0.0
    for side, share in ((won, 1.0), (lost, 0.0)):
        reward = beta * ratio(side, i)
        total = total - share * torch.log(sigma(reward)) - torch.log(sigma(-reward)) / 2
    return total


def sppo(won, lost, i, beta):
    eta = 1 / beta
    return (ratio(won, i) - eta * (1 - 0.5)) ** 2 + (ratio(lost, i) - eta * (0 - 0.5)) ** 2


def apo_zero(won, lost, i, beta):
    return 1 - sigma(beta * ratio(won, i)) + sigma(beta * ratio(lost, i))


def apo_down(won, lost, i, beta):
    return sigma(beta * ratio(won, i)) + 1 - sigma(beta * ratio(won, i) - beta * ratio(lost, i))


def smaller(values, i):
    """How many are smaller: the place of value ``i``."""
    return sum(bool(value < values[i]) for value in values)


def aot(won, lost, i, beta):
    policy, reference = won.policy - lost.policy, won.reference - lost.reference
    return logistic(beta * (policy[i] - sorted(reference)[smaller(policy, i)]))


def aot_unpaired(won, lost, i, beta):
    up, down = won.policy - won.reference, lost.policy - lost.reference
    return logistic(beta * (up[i] - sorted(down)[smaller(up, i)]))


def discopop(won, lost, i, beta, tau):
    x = beta * (ratio(won, i) - ratio(lost, i))
    return (1 - sigma(x / tau)) * logistic(x) + sigma(x / tau) * torch.exp(-x)


def length_normalized(won, lost, i, beta):
    return logistic(
        beta * ratio(won, i) / int(won.length[i]) - beta * ratio(lost, i) / int(lost.length[i])
    )


def ld_dpo(won, lost, i, beta, alpha):
    shared = min(int(won.length[i]), int(lost.length[i]))
    rewards = []
    for side in (won, lost):
        by_token = side.tokens.policy[i] - side.tokens.reference[i]
        weights = [1.0 if t < shared else alpha for t in range(int(side.length[i]))]
        rewards.append(sum(weight * by_token[t] for t, weight in enumerate(weights)))
    return logistic(beta * (rewards[0] - rewards[1]))


def f_dpo(won, lost, i, beta, divergence, alpha=None):
    slope = {
        "reverse_kl": lambda t: torch.log(t) + 1,
        "forward_kl": lambda t: -1 / t,
        "js": lambda t: torch.log(2 * t / (1 + t)),
        "alpha": lambda t: (1 - t ** (-alpha)) / alpha,
    }[divergence]
    return logistic(
        beta * slope(torch.exp(ratio(won, i))) - beta * slope(torch.exp(ratio(lost, i)))
    )


def wpo(won, lost, i, beta):
    weight = 1.0
    for side in (won, lost):
        length = int(side.length[i])
        log_weight = sum(
            side.tokens.policy[i, t].detach() - side.tokens.collision[i, t] for t in range(length)
        )
        weight = weight * exp(log_weight / length)
    return weight * logistic(beta * (ratio(won, i) - ratio(lost, i)))


FORMULAS = [
    (CPO, cpo, {"beta": 0.3, "weight": 0.7}),
    (EXO, exo, {"beta": 0.3, "label_smoothing": 0.05}),
    (EXO, exo, {"beta": 0.1, "label_smoothing": 1e-3}),
    (NCA, nca, {"beta": 0.2}),
    (SPPO, sppo, {"beta": 0.1}),
    (APOZero, apo_zero, {"beta": 0.2}),
    (APODown, apo_down, {"beta": 0.2}),
    (AOT, aot, {"beta": 0.2}),
    (AOTUnpaired, aot_unpaired, {"beta": 0.2}),
    (DiscoPOP, discopop, {"beta": 0.05, "tau": 0.05}),
    (DiscoPOP, discopop, {"beta": 0.2, "tau": 1.0}),
    (LengthNormalizedDPO, length_normalized, {"beta": 5.0}),
    (LDDPO, ld_dpo, {"beta": 0.2, "alpha": 0.5}),
    (LDDPO, ld_dpo, {"beta": 0.2, "alpha": 0.0}),
    (FDPO, f_dpo, {"beta": 0.1, "divergence": "reverse_kl"}),
    (FDPO, f_dpo, {"beta": 0.1, "divergence": "forward_kl"}),
    (FDPO, f_dpo, {"beta": 0.1, "divergence": "js"}),
    (FDPO, f_dpo, {"beta": 0.1, "divergence": "alpha", "alpha": 0.3}),
    (WPO, wpo, {"beta": 0.2}),
]


def drawn(seed, pairs=7, longest=9):
    """Random responses, and the leaf that holds the log-probability of each of their tokens."""
    draw = torch.Generator().manual_seed(seed)
    length = torch.randint(1, longest + 1, (pairs,), generator=draw)
    inside = torch.arange(longest) < length[:, None]
    policy, reference, collision = (
        -torch.rand(pairs, longest, generator=draw, dtype=torch.float64) * most
        for most in (1.5, 1.5, 1.0)
    )
    leaf = policy.requires_grad_()
    tokens = PerTokenLogps(*(inside * field for field in (leaf, reference, collision)))
    return Logps(tokens.policy.sum(1), tokens.reference.sum(1), length, tokens), leaf


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("made", "formula", "settings"),
    FORMULAS,
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_loss_and_gradient_are_the_formulas(made, formula, settings, seed):
    (chosen, up), (rejected, down) = drawn(seed), drawn(seed + 100)
    losses = made(**settings)(chosen, rejected)
    wanted = torch.stack([formula(chosen, rejected, i, **settings) for i in range(len(losses))])
    assert_close(losses, wanted, rtol=1e-9, atol=1e-12)
    found = torch.autograd.grad(losses.sum(), [up, down], retain_graph=True)
    assert_close(found, torch.autograd.grad(wanted.sum(), [up, down]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_apo_on_thumbs_is_the_formula(seed):
    responses, leaf = drawn(seed)
    unpaired = torch.arange(len(responses.length)) % 3 == 0
    settings = {"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    losses = APOZeroUnpaired(**settings)(responses, unpaired, torch.zeros(()))
    gains = [sigma(0.2 * ratio(responses, i)) for i in range(len(unpaired))]
    wanted = torch.stack(
        [1.5 * (1 - gain) if up else 0.5 * gain for gain, up in zip(gains, unpaired, strict=True)]
    )
    assert_close(losses, wanted)
    assert_close(
        torch.autograd.grad(losses.sum(), leaf, retain_graph=True),
        torch.autograd.grad(wanted.sum(), leaf),
        atol=1e-12,
        rtol=1e-9,
    )


# By hand.


def of(chosen, rejected=None):
    """Sides of which log-ratios are given."""
    sides = [torch.tensor(values, dtype=torch.float64) for values in (chosen, rejected or chosen)]
    one = torch.ones(len(chosen), dtype=torch.long)
    return tuple(
        Logps(
            side,
            torch.zeros_like(side),
            one,
            PerTokenLogps(side[:, None], 0 * side[:, None], side[:, None]),
        )
        for side in sides
    )


@pytest.mark.parametrize(
    ("objective", "chosen", "rejected", "wanted"),
    [
        (
            CPO(beta=0.5, weight=2.0),
            -log(9),
            -3 * log(9),
            log(1 + 1 / 9) + 2 * log(9),
        ),  # σ(log 9) = 9 / 10
        (EXO(beta=1.0, label_smoothing=0.1), log(9), 0.0, 0.0),  # believes what the label says
        (EXO(beta=1.0, label_smoothing=0.1), 0.0, log(9), 0.8 * log(9)),  # believes the opposite
        (NCA(beta=1.0), log(2), 0.0, log(3 / 2) + log(3) / 2 + log(2) / 2),
        (SPPO(beta=0.5), 0.0, 0.0, 2.0),
        (APOZero(beta=1.0), log(3), log(3), 1.0),
        (APODown(beta=1.0), log(3), 0.0, 1.0),
        (APODown(beta=1.0), -log(3), -2 * log(3), 0.5),
        (DiscoPOP(beta=1.0, tau=1.0), log(3), 0.0, log(4 / 3) / 4 + 3 / 4 / 3),
        (LengthNormalizedDPO(beta=1.0), log(3), 0.0, log(4 / 3)),
        (
            FDPO(beta=1.0, divergence="forward_kl"),
            log(2),
            -log(2),
            log(1 + exp(-1.5)),
        ),  # -1/2 against -2
        (FDPO(beta=1.0, divergence="js"), 0.0, -log(3), log(3 / 2)),  # log 1 against log 1/2
        (
            FDPO(beta=1.0, divergence="alpha"),
            log(4),
            -log(4),
            log(1 + exp(-3.0)),
        ),  # 2 (1 - 1/2) against 2 (1 - 2)
        (WPO(beta=1.0), log(3), 0.0, log(4 / 3)),  # agrees with itself: weight 1
    ],
    ids=str,
)
def test_by_hand(objective, chosen, rejected, wanted):
    assert_close(objective(*of([chosen], [rejected])).item(), wanted, rtol=1e-9, atol=1e-12)


# What all of them must satisfy.


@pytest.mark.parametrize("objective", PAIRWISE, ids=str)
def test_conforms(objective):
    if isinstance(objective, DiscoPOP):  # between its two optima it slopes the wrong way
        with pytest.raises(AssertionError, match="the wrong way at small margins"):
            check_objective(objective)
    else:
        check_objective(objective)


def test_thumbs_conform():
    check_objective(APOZeroUnpaired())


@pytest.mark.parametrize("objective", PAIRWISE, ids=str)
def test_finite_in_single_precision_however_far_apart(objective):
    far = [
        (up, down)
        for up in (-2e4, -100.0, 0.0, 100.0, 2e4)
        for down in (-2e4, -100.0, 0.0, 100.0, 2e4)
    ]
    leaves = [torch.tensor(side).requires_grad_() for side in zip(*far, strict=True)]
    zero, one = torch.zeros(len(far)), torch.ones(len(far), dtype=torch.long)
    tokens = [
        PerTokenLogps(leaf[:, None], zero[:, None], leaf.detach()[:, None].clamp(min=-12))
        for leaf in leaves
    ]
    sides = [Logps(leaf, zero, one, by) for leaf, by in zip(leaves, tokens, strict=True)]
    losses = objective(*sides)
    assert losses.isfinite().all()
    for gradient in torch.autograd.grad(losses.sum(), leaves):
        assert gradient.isfinite().all()
        assert gradient.square().sum().isfinite(), "cannot be clipped by its norm"


@pytest.mark.parametrize("objective", LIKE_DPO, ids=str)
def test_a_coin_toss_label_has_no_gradient_under_a_loss_of_the_margin(objective):
    """Where both sides gained the same, the gradients of the two orders of a pair cancel."""
    assert objective.margin_only
    (side, leaf), (other, other_leaf) = drawn(0), drawn(0)
    both = objective(side, other) + objective(other, side)
    assert_close(torch.autograd.grad(both.sum(), [leaf, other_leaf]), (torch.zeros_like(leaf),) * 2)


@pytest.mark.parametrize("objective", OTHERS, ids=str)
def test_the_others_mind_if_both_sides_fall(objective):
    assert not objective.margin_only
    here, below = objective(*of([3.0], [-1.0])), objective(*of([-3.0], [-7.0]))
    assert (here - below).abs() > 1e-3


def test_every_file_is_an_entry_point():
    entries = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"][
        "lit_align"
    ]
    files = sorted(file.stem for file in (PLUGIN / "lit_align_zoo").glob("[!_]*.py"))
    assert list(entries) == files
    registered = []
    for name, module in entries.items():
        assert module == f"lit_align_zoo.{name}"
        for kind in ("objectives", "advantages"):
            register = getattr(import_module(module), f"register_{kind}", None)
            if register is not None:
                register(registered.append)
    assert len(set(registered)) == len(registered) == len(files)
    of_pairs = {cls for cls in registered if not issubclass(cls, PolicyObjective | Advantage)}
    assert {*map(type, PAIRWISE), APOZeroUnpaired} == of_pairs


# What the papers say of them.


def test_cpo_without_imitation_is_dpo_against_a_uniform_reference():
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    level = [
        side._replace(reference=torch.full_like(side.policy, -7.0)) for side in (chosen, rejected)
    ]
    assert_close(CPO(beta=0.3, weight=0.0)(chosen, rejected), DPO(beta=0.3)(*level))


def test_cpo_imitates_token_by_token():
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    both = CPO(weight=2.0)(chosen, rejected) - CPO(weight=0.0)(chosen, rejected)
    assert_close(both, CPO(weight=2.0).supervised_term(chosen))
    assert_close(both, -2 * chosen.policy / chosen.length)


@pytest.mark.parametrize("smoothing", [1e-3, 0.1, 0.4])
def test_exo_is_least_where_the_policy_believes_the_label(smoothing):
    best = log((1 - smoothing) / smoothing)
    loss = EXO(beta=1.0, label_smoothing=smoothing)
    below, there, above = loss(*of([best - 0.1, best, best + 0.1], [0.0, 0.0, 0.0]))
    assert_close(there.item(), 0.0, atol=1e-12, rtol=0)
    assert below > 0
    assert above > 0


def test_exo_turns_the_divergence_of_dpo_around():
    """DPO with a smoothed label is KL(label || belief) but for a constant, EXO KL(belief || label)."""
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    smoothing = 0.2
    q = torch.sigmoid(
        0.5 * (chosen.policy - chosen.reference - rejected.policy + rejected.reference)
    )
    belief, label = torch.stack([q, 1 - q]), torch.tensor([[1 - smoothing], [smoothing]])

    def divergence(one, other):
        return (one * (one / other).log()).sum(0)

    dpo = DPO(beta=0.5)
    smoothed = (1 - smoothing) * dpo(chosen, rejected) + smoothing * dpo(rejected, chosen)
    entropy = -(label * label.log()).sum(0)
    assert_close(
        smoothed - entropy, divergence(label, belief), check_dtype=False, atol=1e-7, rtol=1e-6
    )
    assert_close(
        EXO(beta=0.5, label_smoothing=smoothing)(chosen, rejected),
        divergence(belief, label),
        atol=1e-7,
        rtol=1e-6,
    )


def test_nca_raises_the_chosen_response_up_to_log_2():
    (chosen, rejected), beta = of([4.0, 10 * log(2), 9.0], [0.0, 0.0, 0.0]), 0.1
    leaf = chosen.policy.requires_grad_()
    (slope,) = torch.autograd.grad(NCA(beta=beta)(chosen, rejected).sum(), leaf)
    assert slope[0] < 0
    assert_close(slope[1].item(), 0.0, atol=1e-12, rtol=0)
    assert slope[2] > 0


@pytest.mark.parametrize("beta", [0.001, 0.1, 2.0])
def test_sppo_is_0_at_its_targets_alone(beta):
    goal = 1 / (2 * beta)
    assert_close(SPPO(beta=beta)(*of([goal, 0.0], [-goal, -goal])).tolist(), [0.0, goal**2])


def test_aot_of_one_pair_is_dpo():
    for seed in range(3):
        (chosen, _), (rejected, _) = drawn(seed, pairs=1), drawn(seed + 9, pairs=1)
        wanted = DPO(beta=0.3)(chosen, rejected)
        assert_close(AOT(beta=0.3)(chosen, rejected), wanted)
        assert_close(AOTUnpaired(beta=0.3)(chosen, rejected), wanted)


def test_aot_gives_each_pair_its_loss_wherever_it_stands():
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    for loss in (AOT(), AOTUnpaired()):
        assert_close(loss(chosen.take(order), rejected.take(order)), loss(chosen, rejected)[order])


def test_unpaired_aot_does_not_ask_who_was_compared_with_whom():
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    shuffled = rejected.take(torch.tensor([3, 0, 6, 2, 5, 1, 4]))
    assert_close(AOTUnpaired()(chosen, shuffled), AOTUnpaired()(chosen, rejected))
    assert not torch.allclose(AOT()(chosen, shuffled), AOT()(chosen, rejected))


def test_aot_of_a_swapped_label_is_the_loss_of_the_opposite_margin():
    """So that soft labels, which mix both orders pair by pair, are the smoothing of the distribution's loss."""
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    loss = AOT(beta=0.4)
    margin = loss(rejected, chosen) - loss(chosen, rejected)  # -log σ(-x) + log σ(x) = x
    assert_close(loss(chosen, rejected), torch.nn.functional.softplus(-margin))


def test_apo_on_thumbs_is_half_of_apo_on_pairs_and_kto_without_baseline():
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    up, down = torch.ones(7, dtype=torch.bool), torch.zeros(7, dtype=torch.bool)
    zero = torch.zeros(())
    loss = APOZeroUnpaired(beta=0.2)
    assert_close(
        loss(chosen, up, zero) + loss(rejected, down, zero), APOZero(beta=0.2)(chosen, rejected)
    )
    assert_close(loss(chosen, up, zero + 5.0), KTO(beta=0.2)(chosen, up, zero))


def test_apo_down_lowers_both_once_they_are_told_apart():
    chosen, rejected = of([10.0], [-20.0])
    leaves = [side.policy.requires_grad_() for side in (chosen, rejected)]
    for slope in torch.autograd.grad(APODown(beta=0.1)(chosen, rejected).sum(), leaves):
        assert slope > 0


@pytest.mark.parametrize("tau", [0.02, 0.05, 0.5, 1.0])
def test_discopop_is_as_printed_wherever_that_is_finite(tau):
    margins = torch.linspace(-700 * tau, 700 * tau, 2001, dtype=torch.float64)
    found = DiscoPOP(beta=1.0, tau=tau)(*of(margins.tolist(), [0.0] * 2001))
    share = 1 / (1 + (-margins / tau).exp())
    wanted = (1 - share) * (1 + (-margins).exp()).log() + share * (-margins).exp()
    assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_discopop_has_the_optima_of_the_paper():
    """As set in the paper it has a minimum at -2.3714 nats and a maximum at 1.44012."""
    chosen, rejected = of([-2.3714, 1.44012, -2.5, 0.0, 1.6], [0.0] * 5)
    leaf = chosen.policy.requires_grad_()
    (slope,) = torch.autograd.grad(DiscoPOP()(chosen, rejected).sum(), leaf)
    assert slope[:2].abs().max() < 1e-5
    assert slope[2:].sign().tolist() == [-1, 1, -1]


def test_length_normalised_dpo_at_equal_lengths_is_dpo_at_a_smaller_beta():
    sides = [side._replace(length=torch.full((7,), 4)) for side, _ in (drawn(0), drawn(1))]
    assert_close(LengthNormalizedDPO(beta=2.0)(*sides), DPO(beta=0.5)(*sides))


def test_length_desensitised_dpo_is_dpo_where_all_tokens_count():
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    assert_close(LDDPO(beta=0.3, alpha=1.0)(chosen, rejected), DPO(beta=0.3)(chosen, rejected))
    assert not torch.allclose(
        LDDPO(beta=0.3, alpha=0.5)(chosen, rejected), DPO(beta=0.3)(chosen, rejected)
    )


def test_length_desensitised_dpo_may_ignore_what_one_side_says_after_the_other_is_done():
    (chosen, up), (rejected, down) = drawn(0), drawn(1)
    gradients = torch.autograd.grad(LDDPO(alpha=0.0)(chosen, rejected).sum(), [up, down])
    shared = torch.minimum(chosen.length, rejected.length)[:, None]
    for gradient in gradients:
        assert ((gradient != 0) == (torch.arange(9) < shared)).all()


def test_f_dpo_holds_dpo_and_its_alpha_lies_between_the_two_divergences():
    (chosen, _), (rejected, _) = drawn(0), drawn(1)
    reverse, forward = (
        FDPO(divergence=name)(chosen, rejected) for name in ("reverse_kl", "forward_kl")
    )
    assert_close(reverse, DPO()(chosen, rejected))
    assert_close(
        FDPO(divergence="alpha", alpha=1e-7)(chosen, rejected), reverse, rtol=1e-5, atol=1e-6
    )
    assert_close(
        FDPO(divergence="alpha", alpha=1 - 1e-7)(chosen, rejected), forward, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("divergence", "curvature"), zip(DIVERGENCES, [1.0, 1.0, 0.5, 1.0], strict=True)
)
def test_f_dpo_starts_as_dpo_does(divergence, curvature):
    """f'' is 1 at the reference for each but Jensen-Shannon's, of which it is 1 / (t (1 + t)) = 1/2."""
    chosen, rejected = of([0.0])
    leaf = chosen.policy.requires_grad_()
    loss = FDPO(beta=0.1, divergence=divergence)(chosen, rejected)
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    assert_close([loss.item(), slope.item()], [log(2), -0.1 * curvature / 2])


@pytest.mark.parametrize("divergence", ["forward_kl", "alpha"])
def test_f_dpo_still_pulls_a_chosen_response_back_from_where_the_exponential_is_held(divergence):
    power = {"forward_kl": 1.0, "alpha": 0.5}[divergence]
    edge = -STEEPEST / power
    chosen, rejected = of([edge + 1e-6, edge - 1e-6, 10 * edge], [0.0] * 3)
    objective = FDPO(beta=0.1, divergence=divergence)
    leaf = chosen.policy.requires_grad_()
    losses = objective(chosen, rejected)
    (slope,) = torch.autograd.grad(losses.sum(), leaf)
    wanted = torch.full((3,), -0.1 * e**STEEPEST, dtype=torch.float64)
    assert_close(slope, wanted, rtol=1e-5, atol=0.0)
    assert losses[2] > losses[1] > losses[0]


def test_wpo_weighs_by_how_likely_the_policy_says_it_and_learns_nothing_from_the_weight():
    (chosen, up), (rejected, down) = drawn(0), drawn(1)
    sides = [
        side._replace(tokens=side.tokens._replace(collision=side.tokens.policy.detach()))
        for side in (chosen, rejected)
    ]
    assert_close(WPO()(*sides), DPO()(chosen, rejected))
    share = WPO()(chosen, rejected) / DPO()(chosen, rejected)
    found = torch.autograd.grad(WPO()(chosen, rejected).sum(), [up, down], retain_graph=True)
    wanted = torch.autograd.grad((share.detach() * DPO()(chosen, rejected)).sum(), [up, down])
    assert_close(found, wanted)


@pytest.mark.parametrize("made", sorted({*map(type, PAIRWISE), APOZeroUnpaired}, key=str))
@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_a_beta_that_is_not_positive_is_refused(made, beta):
    with pytest.raises(ValueError, match=r"beta must be positive, got .*; "):
        made(beta=beta)


@pytest.mark.parametrize(
    ("made", "settings", "message"),
    [
        (CPO, {"weight": -0.1}, "weight must be at least 0"),
        (EXO, {"label_smoothing": 0.0}, "label_smoothing must be over 0"),
        (EXO, {"label_smoothing": 0.5}, "label_smoothing must be over 0"),
        (DiscoPOP, {"tau": 0.0}, "tau must be over 0"),
        (DiscoPOP, {"tau": 1.1}, "tau must be over 0"),
        (LDDPO, {"alpha": -0.1}, "alpha must be between 0 and 1"),
        (LDDPO, {"alpha": 1.1}, "alpha must be between 0 and 1"),
        (FDPO, {"alpha": 0.0}, "alpha must be over 0"),
        (FDPO, {"alpha": 1.0}, "alpha must be over 0"),
        (FDPO, {"divergence": "kl"}, "divergence 'kl' is none of"),
        (APOZeroUnpaired, {"desirable_weight": 0.0}, "desirable_weight must be positive"),
        (APOZeroUnpaired, {"undesirable_weight": -1.0}, "undesirable_weight must be positive"),
    ],
)
def test_settings_without_a_sense_are_refused(made, settings, message):
    with pytest.raises(ValueError, match=message):
        made(**settings)
