"""Divergences from a teacher against TRL's own losses on the same logits, with gradients."""

import pytest
import torch
from torch.testing import assert_close

from lit_align.functional.divergence import Predictions, token_divergence
from lit_align.functional.logps import LogitTransform

pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")
ROWS, LONGEST, WIDTH, VOCABULARY = 4, 6, 5, 23
BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]


class Drawn:
    """Hidden states of two models under their heads, in double precision; the last tokens of two rows are padding."""

    def __init__(self, seed):
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(shape, generator=draw, dtype=torch.float64)

        self.student, self.teacher = (
            normal(ROWS, LONGEST, WIDTH).requires_grad_(),
            normal(ROWS, LONGEST, 2 * WIDTH),
        )
        self.heads = normal(VOCABULARY, WIDTH), normal(VOCABULARY, 2 * WIDTH)
        length = torch.tensor([6, 3, 5, 6])
        self.mask = torch.arange(LONGEST) < length[:, None]
        self.labels = torch.where(self.mask, 0, -100)

    def ours(self, beta, temperature=1.0):
        """Mean over the tokens that are learned from."""
        transform = LogitTransform(1 / temperature)
        student, teacher = (
            Predictions(states[self.mask], weight, None, transform)
            for states, weight in zip((self.student, self.teacher), self.heads, strict=True)
        )
        return token_divergence(student, teacher, beta).mean()


def agree(ours, theirs, given):
    assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(loss, given.student)[0] for loss in (ours, theirs)]
    assert gradients[0].abs().max() > 1e-3
    assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.9])
@pytest.mark.parametrize("beta", BETAS)
def test_it_is_the_generalized_jsd_of_trl(beta, temperature):
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    given = Drawn(0)
    logits = (given.student @ given.heads[0].T, given.teacher @ given.heads[1].T)
    theirs = GKDTrainer.generalized_jsd_loss(*logits, given.labels, beta, temperature)
    agree(given.ours(beta, temperature), theirs, given)


@pytest.mark.parametrize("beta", BETAS)
def test_it_is_what_the_stable_trainer_computes_from_hidden_states(beta):
    """Its kernel computes in single precision, whatever it is given."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    given = Drawn(1)
    loss, _, count = _chunked_divergence_loss(
        *(given.student.float(), given.teacher.float(), *(head.float() for head in given.heads)),
        given.mask,
        beta,
        temperature=0.7,
    )
    ours = given.ours(beta, 0.7)
    assert count == given.mask.sum()
    assert_close(loss.double(), ours, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(it, given.student)[0] for it in (loss, ours)]
    assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alpha", BETAS)
def test_it_is_what_self_distillation_computes_of_whole_distributions(alpha):
    from trl.experimental.sdft.loss_utils import compute_divergence

    given = Drawn(2)
    student = (given.student @ given.heads[0].T).log_softmax(-1)
    teacher = (given.teacher @ given.heads[1].T).log_softmax(-1)
    theirs = compute_divergence(student, teacher, alpha)[given.mask].mean()
    agree(given.ours(alpha), theirs, given)
