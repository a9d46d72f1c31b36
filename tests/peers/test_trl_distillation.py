"""Divergences from a teacher against TRL's own losses on the same logits, with gradients."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from lit_align.advantages import Rollouts
from lit_align.advantages.reverse_kl import ReverseKL
from lit_align.functional.divergence import Predictions, token_divergence
from lit_align.functional.logps import LogitTransform
from lit_align.objectives import PolicyTokens
from lit_align.objectives.gkd import GKD
from lit_align.objectives.policy_gradient import PolicyGradient

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
    gradients = [
        torch.autograd.grad(loss, given.student, retain_graph=True)[0] for loss in (ours, theirs)
    ]
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


class Sampled(Drawn):
    """The same of sampled tokens, whose policy may have moved since, by so much that some weights are cut."""

    beta = 1.0

    def __init__(self, seed, moved):
        super().__init__(seed)
        draw = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(VOCABULARY, self.mask.shape, generator=draw)
        self.logits = [self.student @ self.heads[0].T, self.teacher @ self.heads[1].T]
        moves = torch.randn(self.mask.shape, generator=draw, dtype=torch.float64)
        self.logps, self.taught = (
            logits.log_softmax(-1).gather(-1, self.ids[..., None])[..., 0] for logits in self.logits
        )
        self.old_logps = self.logps.detach() + moved * moves

    @property
    def tokens(self):
        old = self.old_logps[self.mask]
        owner = self.mask.nonzero()[:, 0]
        divergence = token_divergence(
            *(
                Predictions(states[self.mask], weight, None, LogitTransform(1.0))
                for states, weight in zip((self.student, self.teacher), self.heads, strict=True)
            ),
            self.beta,
        )
        return PolicyTokens(self.logps[self.mask], old, old, owner, divergence=divergence)

    def sequence_mean(self, losses):
        """``loss_aggregation: sequence``."""
        by_token = torch.zeros_like(self.old_logps).masked_scatter(self.mask, losses)
        return (by_token.sum(1) / self.mask.sum(1)).mean()

    def theirs(self, which, mode, cap):
        """``_compute_self_distillation_loss`` of ``SDFTTrainer`` or ``SDPOTrainer``."""
        if which == "sdft":
            from trl.experimental.sdft.sdft_trainer import SDFTTrainer as Trainer
        else:
            from trl.experimental.sdpo.sdpo_trainer import SDPOTrainer as Trainer

        settings = {"distillation_mode": mode, "distillation_alpha": self.beta}
        reads = SimpleNamespace(
            args=SimpleNamespace(**settings, distillation_is_clip=cap),
            accelerator=SimpleNamespace(gather=lambda x: x),
            _metrics={"train": defaultdict(list)},
            _log_self_distillation_metric=lambda mode, value: None,
        )
        student, teacher = self.logits
        logits = SimpleNamespace(
            completion_ids=self.ids,
            loss_mask=self.mask.long(),
            student_logits=student,
            teacher_logits=teacher,
        )
        inputs = {"old_per_token_logps": self.old_logps}
        return Trainer._compute_self_distillation_loss(reads, torch.nn.Identity(), inputs, logits)


def reverse_kl_loss(drawn):
    """`PolicyGradient` over `ReverseKL`."""
    rollouts = Rollouts(
        drawn.taught.detach() * drawn.mask,
        drawn.mask,
        torch.arange(ROWS),
        0 * drawn.old_logps,
        torch.tensor(0.0),
        old_logps=drawn.old_logps * drawn.mask,
    )
    advantages = ReverseKL()(rollouts)[drawn.mask]
    return drawn.sequence_mean(PolicyGradient()(drawn.tokens, advantages))


@pytest.mark.parametrize("which", ["sdft", "sdpo"])
def test_in_the_first_update_reverse_kl_is_the_sampled_token_loss(which):
    drawn = Sampled(3, moved=0.0)
    agree(reverse_kl_loss(drawn), drawn.theirs(which, "sampled_token", None), drawn)


def test_later_reverse_kl_is_that_of_the_policy_that_sampled():
    """Theirs has that of the policy that learns: the losses differ by (log π - log π_old) log π."""
    drawn = Sampled(4, moved=0.5)
    drift = ((drawn.logps - drawn.old_logps).detach() * drawn.logps)[drawn.mask]
    ours = reverse_kl_loss(drawn) + drawn.sequence_mean(drift)
    assert drift.abs().max() > 0.1
    agree(ours, drawn.theirs("sdft", "sampled_token", None), drawn)


@pytest.mark.parametrize("cap", [0.7, 2.0, 1e12])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("which", ["sdft", "sdpo"])
def test_gkd_weighs_and_caps_as_self_distillation_does(which, beta, cap):
    """Also where a token is more than e to the 20th times as probable as before."""
    drawn = Sampled(5, moved=1.0)
    drawn.beta = beta
    drawn.old_logps[0, 0] -= 25
    objective = GKD(beta, cap=cap)
    tokens = drawn.tokens
    assert objective.clip_mask(tokens).sum() >= (cap < 1e9)
    ours = drawn.sequence_mean(objective(tokens, 0 * drawn.logps[drawn.mask]))
    agree(ours, drawn.theirs(which, "full_logits", cap), drawn)
