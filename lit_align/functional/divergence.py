r"""Divergence between two models' whole distributions at each scored token, without storing the logits of all of them.

As for log-probabilities, the derivative by the input of the student's head is computed in the forward pass, chunk by
chunk, and saved as ``[n, d]``; of the teacher nothing is saved.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_align.errors import ModelError
from lit_align.functional.logps import LogitTransform, chunk_slices, project_hidden


class Predictions(NamedTuple):
    """What a model predicts at the scored tokens, before the product with the vocabulary.

    Args:
        states: ``[n, d]``, the input of a linear head; ``[n, V]``, logits in float32, where the head is more than that.
        weight: ``[V, d]`` of the head; None where ``states`` are logits.
        bias: ``[V]`` or None.
        transform: applied to the head's logits.
    """

    states: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    transform: LogitTransform = LogitTransform()

    @property
    def vocabulary(self) -> int:
        """V."""
        return len(self.weight) if self.weight is not None else self.states.shape[1]

    @property
    def exact(self) -> torch.dtype:
        """What logits are computed in."""
        dtype = self.states.dtype if self.weight is None else self.weight.dtype
        return torch.promote_types(dtype, torch.float32)

    def first(self, vocabulary: int) -> Predictions:
        """The same over the first tokens of the vocabulary alone."""
        if vocabulary == self.vocabulary:
            return self
        if self.weight is None:
            return self._replace(states=self.states[:, :vocabulary])
        bias = None if self.bias is None else self.bias[:vocabulary]
        return self._replace(weight=self.weight[:vocabulary], bias=bias)

    def logits(self, rows: slice) -> Tensor:
        """Transformed logits of some rows, ``[rows, V]``, newly made."""
        states = self.states[rows].detach()
        if self.weight is None:
            return states.to(self.exact, copy=True)
        hidden = states.to(self.weight.dtype)
        return self.transform(project_hidden(hidden, self.weight, self.bias, self.exact))


def generalized_jsd(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    r"""Generalised Jensen-Shannon divergence of two distributions, ``[n]``, in nats.

    .. math:: D_\beta(T \,\|\, S) = \beta \operatorname{KL}(T \,\|\, M) + (1 - \beta) \operatorname{KL}(S \,\|\, M),
        \quad M = \beta T + (1 - \beta) S \quad \text{(eq. 1)}

    and at the ends, where that is 0, their limits by slope: the forward KL divergence :math:`\operatorname{KL}(T \|
    S)` at β = 0, the reverse one :math:`\operatorname{KL}(S \| T)` at β = 1 (Agarwal et al., 2024,
    https://arxiv.org/abs/2306.13649).

    Args:
        student: log-probabilities under S, ``[n, V]``.
        teacher: log-probabilities under T, ``[n, V]``.
        beta: β, from 0 to 1.

    Example:
        S = (0.5, 0.5) and T = (0.8, 0.2): log 1.6 · 0.8 + log 0.4 · 0.2, and - (log 1.6 + log 0.4) / 2.

        >>> student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
        >>> [round(generalized_jsd(student, teacher, beta).item(), 4) for beta in (0.0, 1.0, 0.5)]
        [0.1927, 0.2231, 0.0507]
    """
    if beta == 0:
        return _kl(teacher, student)
    if beta == 1:
        return _kl(student, teacher)
    mixture = _log_mixture(student, teacher, beta)
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


def token_divergence(student: Predictions, teacher: Predictions, beta: float) -> Tensor:
    """`generalized_jsd` at each scored token, ``[n]``, in float32 or better, with gradient by the student's states.

    Logits of both exist for a chunk of rows at a time, as in `token_logps`. Where one of two models of a family pads
    its vocabulary further, the entries that only it has are left out. The result can be differentiated once.

    Args:
        student: that learns, under a frozen head.
        teacher: that it is compared with.
        beta: from 0, the forward KL divergence, to 1, the reverse one.

    Raises:
        ModelError: if the student's head is trained.
    """
    if student.weight is not None and student.weight.requires_grad:
        raise ModelError(
            "the language-model head is trained, and a divergence has no gradient by it; freeze the head"
        )
    shared = min(student.vocabulary, teacher.vocabulary)
    student, teacher = student.first(shared), teacher.first(shared)
    divergence: Tensor = _TokenDivergence.apply(
        student.states, student, teacher, beta, torch.is_grad_enabled()
    )  # type: ignore[no-untyped-call]
    return divergence


def token_entropy(predictions: Predictions) -> Tensor:
    r"""Entropy at each scored token, ``[n]``, in nats, with gradient by the states; in chunks, as `token_divergence`.

    .. math:: H(S) = \log V - \operatorname{KL}(S \,\|\, U)

    with the uniform distribution U over a vocabulary of V, of which one entry is in memory.

    Args:
        predictions: under a frozen head.

    Raises:
        ModelError: if the head is trained.

    Example:
        >>> token_entropy(Predictions(torch.tensor([[0.5, 0.25, 0.25]]).log())) / math.log(2)
        tensor([1.5000])
    """
    shape = len(predictions.states), predictions.vocabulary
    uniform = Predictions(predictions.states.new_zeros(()).expand(shape))
    return math.log(predictions.vocabulary) - token_divergence(predictions, uniform, beta=1.0)


class _TokenDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        student: Predictions,
        teacher: Predictions,
        beta: float,
        with_gradient: bool,
    ) -> Tensor:
        divergence = torch.empty(len(states), dtype=student.exact, device=states.device)
        jacobian = None
        if with_gradient and states.requires_grad:
            jacobian = torch.empty_like(states)
        for rows in chunk_slices(len(states), student.vocabulary):
            logits = student.logits(rows)
            own = logits.log_softmax(-1)
            taught = teacher.logits(rows).to(own).log_softmax(-1)
            divergence[rows] = generalized_jsd(own, taught, beta)
            if jacobian is not None:
                score = _score(own, taught, beta)
                if student.weight is None:
                    jacobian[rows] = score.to(jacobian)
                else:
                    score.mul_(student.transform.derivative(logits))
                    jacobian[rows] = (score.to(student.weight.dtype) @ student.weight).to(jacobian)
                del score
            del logits, own, taught  # before the next chunk is computed
        if jacobian is not None:
            ctx.save_for_backward(jacobian)
        return divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (jacobian,) = ctx.saved_tensors
        return (grad[:, None] * jacobian).to(jacobian.dtype), None, None, None, None


def _score(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    r"""Derivative of the divergence by the student's logits, ``[n, V]``.

    With :math:`g_v = \partial D / \partial S_v` up to a constant it is :math:`S_v (g_v - \sum_u S_u g_u)`; g is
    :math:`(1 - \beta) \log(S / M)`, since the terms through M cancel, and :math:`\log(S / T)` at β = 1.
    """
    probabilities = student.exp()
    if beta == 0:
        return probabilities.sub_(teacher.exp())
    other = teacher if beta == 1 else _log_mixture(student, teacher, beta)
    slope = (student - other).mul_(1 if beta == 1 else 1 - beta)
    mean = (probabilities * slope).sum(-1, keepdim=True)
    return probabilities.mul_(slope.sub_(mean))


def _log_mixture(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    return torch.logaddexp(student + math.log1p(-beta), teacher + math.log(beta))


def _kl(first: Tensor, second: Tensor) -> Tensor:
    return (first.exp() * (first - second)).sum(-1)
