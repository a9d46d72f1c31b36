"""Loss and gradient of every objective that TRL has too, against TRL's own code, in double precision.

``python -m tests.peers.test_trl`` prints the table of the largest differences.
"""

import re
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lit_align.coming_from_losses import LOSSES
from lit_align.objectives import Objective, UnpairedObjective
from lit_align.objectives.bco import BCO
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.objectives.ipo import IPO
from lit_align.objectives.kto import KTO
from lit_align.objectives.mix import Mix
from lit_align.objectives.orpo import ORPO
from lit_align.objectives.simpo import SimPO
from lit_align.objectives.slic import SLiC
from lit_align.types import Logps, PerTokenLogps
from tests import objective_registry
from tests.peers import trl_code
from tests.peers.trl_code import PAIRS, Drawn, drawn

pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")
ZOO = objective_registry.classes()
SEEDS = range(3)


class Parity(NamedTuple):
    """One of our losses, and what it is called over there."""

    ours: Objective
    name: str
    theirs: Callable[[Drawn], Tensor]
    loss: Callable[[Objective, Drawn], Tensor]
    even: bool = False
    tolerance: float = 1e-8

    @property
    def title(self) -> str:
        return f"{type(self.ours).__name__} = {self.name}"


def sides(given: Drawn) -> list[Logps]:
    """Chosen and rejected responses as our objectives see them."""
    length = given.mask.sum(1)
    tokens = PerTokenLogps(given.policy, given.reference, given.collision)
    every = Logps(given.policy.sum(1), given.reference.sum(1), length, tokens)
    index = torch.arange(2 * PAIRS)
    return [every.take(index[:PAIRS]), every.take(index[PAIRS:])]


def pair_loss(objective: Objective, given: Drawn) -> Tensor:
    return objective(*sides(given)).mean()


def binary_loss(objective: UnpairedObjective, given: Drawn) -> Tensor:
    chosen, rejected = sides(given)
    policy, reference = given.elsewhere
    kl = (policy - reference).mean().clamp(min=0) if objective.baseline == "kl" else torch.zeros(())
    up = torch.ones(PAIRS, dtype=torch.bool)
    return torch.cat([objective(chosen, up, kl), objective(rejected, ~up, kl)]).mean()


def binary_loss_of_both(objective: UnpairedObjective, given: Drawn) -> Tensor:
    return 2 * binary_loss(objective, given)


def chosen_token_loss(objective: Objective, given: Drawn) -> Tensor:
    return objective(given.policy[:PAIRS][given.mask[:PAIRS].bool()]).mean()


def with_noise(noise: float) -> Callable[[Objective, Drawn], Tensor]:
    def loss(objective: Objective, given: Drawn) -> Tensor:
        chosen, rejected = sides(given)
        flipped = objective(rejected, chosen) - objective.supervised_term(rejected)
        return ((1 - noise) * objective(chosen, rejected) + noise * flipped).mean()

    return loss


def dpo(
    ours: Objective,
    loss_type,
    name: str | None = None,
    loss=pair_loss,
    even: bool = False,
    **settings,
) -> Parity:
    return Parity(
        ours,
        name or loss_type,
        lambda given: trl_code.dpo(given, loss_type, **settings),
        loss,
        even,
    )


def free(ours: Objective, name: str, loss=pair_loss, **settings) -> Parity:
    which = "orpo" if name == "ORPO" else "cpo"
    return Parity(
        ours, name, lambda given: trl_code.reference_free(given, which, **settings), loss, even=True
    )


PARITY = [
    dpo(DPO(beta=0.1), "sigmoid", beta=0.1),
    dpo(DPO(beta=0.7), "sigmoid", beta=0.7),
    dpo(SLiC(delta=1.0, beta=0.2, relative=True, weight=0.0), "hinge", beta=0.2),
    dpo(IPO(beta=0.1, length_average=True), "ipo", beta=0.1),
    dpo(ZOO["EXO"](beta=0.2, label_smoothing=0.05), "exo_pair", beta=0.2, label_smoothing=0.05),
    dpo(ZOO["NCA"](beta=0.2), "nca_pair", beta=0.2),
    dpo(ZOO["RobustDPO"](beta=0.2, flipped=0.1), "robust", beta=0.2, label_smoothing=0.1),
    dpo(BCO(beta=0.2), "bco_pair", loss=binary_loss_of_both, beta=0.2),
    dpo(ZOO["SPPO"](beta=0.2), "sppo_hard", beta=0.2),
    dpo(ZOO["AOT"](beta=0.2), "aot", beta=0.2),
    dpo(ZOO["AOTUnpaired"](beta=0.2), "aot_unpaired", beta=0.2),
    dpo(ZOO["APOZero"](beta=0.2), "apo_zero", beta=0.2),
    dpo(ZOO["APODown"](beta=0.2), "apo_down", beta=0.2),
    dpo(ZOO["DiscoPOP"](beta=0.05, tau=0.05), "discopop", beta=0.05, discopop_tau=0.05),
    dpo(CrossEntropy(), "sft", loss=chosen_token_loss, beta=0.1),
    dpo(ZOO["LengthNormalizedDPO"](beta=2.0), "sigmoid_norm", beta=2.0),
    *(
        dpo(
            ZOO["FDPO"](beta=0.2, divergence=ours),
            "sigmoid",
            name,
            beta=0.2,
            f_divergence_type=name,
        )
        for ours, name in (
            ("reverse_kl", "reverse_kl"),
            ("forward_kl", "forward_kl"),
            ("js", "js_divergence"),
        )
    ),
    dpo(
        ZOO["FDPO"](beta=0.2, divergence="alpha", alpha=0.3),
        "sigmoid",
        "alpha_divergence",
        beta=0.2,
        f_divergence_type="alpha_divergence",
        f_alpha_divergence_coef=0.7,  # TRL counts from the other end
    )._replace(
        tolerance=1e-5
    ),  # and has no bound for its exponents in double precision: single it is
    dpo(ZOO["LDDPO"](beta=0.2, alpha=0.4), "sigmoid", "ld_alpha", beta=0.2, ld_alpha=0.4),
    dpo(ZOO["WPO"](beta=0.2), "sigmoid", "use_weighting", beta=0.2, use_weighting=True),
    dpo(
        Mix([DPO(beta=0.2), CrossEntropy()], [1.0, 0.5]),
        ["sigmoid", "sft"],
        "[sigmoid, sft]",
        even=True,
        beta=0.2,
        loss_weights=[1.0, 0.5],
    ),
    Parity(
        KTO(0.2, 1.0, 1.5),
        "KTO",
        lambda given: trl_code.kto(given, beta=0.2, desirable_weight=1.0, undesirable_weight=1.5),
        binary_loss,
    ),
    Parity(
        ZOO["APOZeroUnpaired"](0.2),
        "apo_zero_unpaired",
        lambda given: trl_code.kto(
            given, "apo_zero_unpaired", beta=0.2, desirable_weight=1.0, undesirable_weight=1.0
        ),
        binary_loss,
    ),
    free(ORPO(weight=0.3), "ORPO", beta=0.3),
    free(
        ZOO["CPO"](beta=0.2, weight=0.5),
        "CPO",
        loss_type="sigmoid",
        beta=0.2,
        cpo_alpha=0.5,
        alpha=0.0,
    ),
    free(
        ZOO["CPO"](
            beta=0.2, weight=0.0
        ),  # TRL imitates a response whose label is in doubt as if it were not
        "CPO, label_smoothing",
        with_noise(0.1),
        **{
            "loss_type": "sigmoid",
            "beta": 0.2,
            "cpo_alpha": 0.0,
            "alpha": 0.0,
            "label_smoothing": 0.1,
        },
    ),
    free(
        SimPO(beta=2.0, gamma=0.5),
        "simpo",
        loss_type="simpo",
        beta=2.0,
        cpo_alpha=0.0,
        alpha=0.0,
        simpo_gamma=0.5,
    ),
]


def differences(case: Parity, seed: int) -> tuple[float, float]:
    """Relative difference of the loss, and of its gradient by the log-probability of each token."""
    given = drawn(seed, case.even)
    if case.tolerance > 1e-8:
        given = given._replace(policy=given.policy.detach().to(torch.float32).requires_grad_())
        given = given._replace(reference=given.reference.to(torch.float32))
    losses = case.theirs(given), case.loss(case.ours, given)
    theirs, ours = (torch.autograd.grad(loss, given.policy)[0] * given.mask for loss in losses)
    by_loss = ((losses[0] - losses[1]).abs() / losses[0].abs()).item()
    return by_loss, (torch.dist(theirs, ours) / theirs.norm()).item()


@pytest.fixture(autouse=True)
def in_double_precision(monkeypatch):
    """TRL makes or rounds some numbers in single precision; here the same code runs in double."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_it_is_the_version_that_is_named():
    assert version("trl") == "1.16.0"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", PARITY, ids=lambda case: case.title)
def test_parity_with_trl(case, seed):
    by_loss, by_gradient = differences(case, seed)
    assert by_loss < case.tolerance
    assert by_gradient < case.tolerance


def test_every_kind_of_loss_is_here():
    """All that ``loss_type`` takes over there, as its own error message lists them."""
    with pytest.raises(ValueError, match="Unknown loss type") as refused:
        trl_code.dpo(drawn(0), "none", beta=0.1)
    listed = str(refused.value).split("[")[1].rstrip("]").replace("'", "").split(", ")
    assert len(listed) == 15
    assert set(listed) <= {case.name for case in PARITY}


def test_what_is_said_of_a_kind_of_loss_is_what_was_compared():
    """The objective of each kind with its settings, as the hint for ``loss_type`` names them."""
    compared = {case.name.lower(): repr(case.ours) for case in PARITY}
    for name, text in LOSSES.items():
        if name in compared:
            assert compared[name].partition("(")[0] == text.split()[0].rstrip(",")
            for setting, value in re.findall(r"(\w+): (\w+)", text):
                assert re.search(rf"\b{setting}={value}\b", compared[name], re.IGNORECASE)
    assert set(LOSSES) - set(compared) == {"nll", "dft"}  # of the trainer of demonstrations


def table() -> str:
    """Largest differences over the seeds, as Markdown."""
    rows = ["| objective | TRL's name | loss | gradient |", "|---|---|---|---|"]
    for case in PARITY:
        worst = [
            max(found) for found in zip(*(differences(case, seed) for seed in SEEDS), strict=True)
        ]
        rows.append(f"| `{case.ours}` | {case.name} | {worst[0]:.0e} | {worst[1]:.0e} |")
    return "\n".join(rows)


if __name__ == "__main__":
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    print(table())
