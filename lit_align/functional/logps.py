r"""Log-probabilities of the scored tokens, without storing the logits of all of them at once.

The derivative of :math:`\log p_t` of a linear head with respect to its input is :math:`(e_t - p)^\top W`, whatever the
loss. With a frozen head it is computed in the forward pass, chunk by chunk, and saved as ``[n, d]``: the backward pass
is one multiplication. With a trainable head the chunks are computed again.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_align.types import Logps, PackedTrees, PerTokenLogps, TokenLogps

CHUNK_LOGITS = 2**24
"""Logits computed at once: 64 MiB in float32."""


def chunk_rows(vocabulary: int) -> int:
    """Scored tokens whose logits are computed at once.

    Example:
        >>> chunk_rows(vocabulary=128_256), chunk_rows(vocabulary=2**20)
        (130, 64)
    """
    return min(max(CHUNK_LOGITS // vocabulary, 64), 1024)


class LogitTransform(NamedTuple):
    """Scale and soft cap that a model applies to its logits: ``z = softcap * tanh(scale * z / softcap)``.

    Args:
        scale: logits are multiplied by it.
        softcap: bound of the logits' absolute value; None leaves them unbounded.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Transform ``logits`` of any shape, in place.

        Example:
            >>> LogitTransform(scale=0.5, softcap=2.0)(torch.tensor([4.0]))  # 2 tanh(1)
            tensor([1.5232])
        """
        if self.softcap is not None:
            return logits.mul_(self.scale / self.softcap).tanh_().mul_(self.softcap)
        return logits if self.scale == 1.0 else logits.mul_(self.scale)

    def at_temperature(self, temperature: float) -> LogitTransform:
        """The transform whose results are this one's divided by ``temperature``.

        Example:
            >>> LogitTransform(scale=0.5, softcap=2.0).at_temperature(0.5)(torch.tensor([4.0]))  # 2 tanh(1) / 0.5
            tensor([3.0464])
        """
        softcap = self.softcap and self.softcap / temperature
        return LogitTransform(self.scale / temperature, softcap)

    def derivative(self, transformed: Tensor) -> Tensor | float:
        """Derivative of the transformed logits with respect to the raw ones."""
        if self.softcap is None:
            return self.scale
        tanh = transformed / self.softcap
        return tanh.square_().neg_().add_(1).mul_(self.scale)


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    transform: LogitTransform = LogitTransform(),  # noqa: B008 - immutable
    statistics: bool = False,
) -> TokenLogps:
    """Log-probability of each target under a linear head, in float32 or better.

    Logits exist for ``clamp(2**24 / V, 64, 1024)`` rows at a time, twice over: 128 MiB at most, whatever n and, up to
    V = 262144, whatever V. The result can be differentiated once.

    Args:
        hidden: ``[n, d]``.
        weight: ``[V, d]``.
        bias: ``[V]`` or None.
        target: ``[n]``, ids in [0, V).
        transform: applied to the head's logits.
        statistics: also return entropy, mean logit, top-1 accuracy and collision probability; without gradient.

    Example:
        >>> token_logps(torch.zeros(1, 2), torch.ones(4, 2), None, torch.tensor([3])).logps.exp()
        tensor([0.2500])
    """
    with_gradient = torch.is_grad_enabled()
    results = _TokenLogps.apply(
        hidden.to(weight.dtype), weight, bias, target, transform, statistics, with_gradient
    )  # type: ignore[no-untyped-call]
    return TokenLogps(*results)


def sum_by_response(values: Tensor, owner: Tensor, responses: int) -> Tensor:
    """Sum over the scored tokens of each response, ``[responses]``.

    Args:
        values: ``[n]``, one for each scored token, such as its log-probability.
        owner: ``[n]``, the response it belongs to.
        responses: how many there are; one without scored tokens gets 0.

    Example:
        >>> sum_by_response(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0, 2, 2]), 3)
        tensor([-1.,  0., -6.])
    """
    return values.new_zeros(responses).index_add(0, owner, values)


def tokens_by_response(owner: Tensor, responses: int) -> Tensor:
    """Number of scored tokens of each response, ``[responses]``; ``bincount`` would make the host wait for a GPU.

    Example:
        >>> tokens_by_response(torch.tensor([0, 2, 2]), 3)
        tensor([1, 0, 2])
    """
    return sum_by_response(torch.ones_like(owner), owner, responses)


def pad_by_response(
    values: Tensor, owner: Tensor, responses: int, longest: int | None = None
) -> Tensor:
    """Values of scored tokens with one response a row, ``[responses, longest]``, padded with zeros.

    Args:
        values: ``[n]``, one for each scored token.
        owner: ``[n]``, the response it belongs to, ascending.
        responses: how many there are.
        longest: scored tokens of the response that has most; None reads it from ``owner``.

    Example:
        >>> pad_by_response(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0, 1, 1]), 2)
        tensor([[-1.,  0.],
                [-2., -4.]])
    """
    length = tokens_by_response(owner, responses)
    start = length.cumsum(0) - length
    number = torch.arange(len(owner), device=owner.device)
    column = number - start[owner]
    padded = values.new_zeros(responses, int(length.max()) if longest is None else longest)
    return padded.index_put((owner, column), values)


class _Statistics(NamedTuple):
    """Statistics of each scored token's distribution, in the order of `TokenLogps`."""

    entropy: Tensor
    mean_logit: Tensor
    top1: Tensor
    collision: Tensor

    @classmethod
    def like(cls, logps: Tensor) -> _Statistics:
        return cls(
            entropy=torch.empty_like(logps),
            mean_logit=torch.empty_like(logps),
            top1=torch.empty_like(logps, dtype=torch.bool),
            collision=torch.empty_like(logps),
        )

    def fill(self, rows: slice, logits: Tensor, normalizer: Tensor, target: Tensor) -> Tensor:
        """Fill in ``rows``; returns the probabilities, ``[rows, V]``."""
        self.mean_logit[rows] = logits.mean(-1)
        self.top1[rows] = logits.argmax(-1) == target
        probabilities = (logits - normalizer[:, None]).exp_()
        self.entropy[rows] = normalizer - torch.einsum("nv,nv->n", probabilities, logits)
        collision = torch.einsum("nv,nv->n", probabilities, probabilities)
        self.collision[rows] = collision.log_()
        return probabilities


def response_logps(
    trees: PackedTrees,
    tokens: TokenLogps,
    reference: Tensor,
    reference_tokens: Tensor | None,
    token_fields: frozenset[str],
) -> Logps:
    """Log-probabilities of responses from those of their tokens.

    Args:
        trees: the packed responses.
        tokens: the policy's log-probabilities of the scored tokens; with ``collision`` if ``token_fields`` names it.
        reference: log-probability of each response under the reference, ``[responses]``.
        reference_tokens: of each scored token, ``[n]``; None unless ``token_fields`` names it.
        token_fields: fields of `PerTokenLogps` to fill in; none if empty.
    """
    length = tokens_by_response(trees.owner, trees.responses)
    policy = sum_by_response(tokens.logps, trees.owner, trees.responses)
    if not token_fields:
        return Logps(policy, reference, length)
    values = {
        "policy": tokens.logps,
        "reference": reference_tokens,
        "collision": tokens.collision,
    }
    padded = {}
    for name, value in values.items():
        if value is not None:
            padded[name] = pad_by_response(value, trees.owner, trees.responses, trees.longest)
    return Logps(policy, reference, length, PerTokenLogps(**padded))


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        transform: LogitTransform,
        statistics: bool,
        with_gradient: bool,
    ) -> tuple[Tensor | None, ...]:
        exact = torch.promote_types(weight.dtype, torch.float32)
        logps = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        stats = None
        if statistics:
            stats = _Statistics.like(logps)
            ctx.mark_non_differentiable(*stats)
        trains_head = weight.requires_grad or (bias is not None and bias.requires_grad)
        jacobian = None
        if with_gradient and hidden.requires_grad and not trains_head:
            jacobian = torch.empty_like(hidden)
        for rows in chunk_slices(len(hidden), len(weight)):
            logits = transform(project_hidden(hidden[rows], weight, bias, exact))
            normalizer = logits.logsumexp(-1)
            target_logits = logits.gather(1, target[rows, None])
            logps[rows] = target_logits[:, 0] - normalizer
            probabilities = None
            if stats is not None:
                probabilities = stats.fill(rows, logits, normalizer, target[rows])
            if jacobian is not None:
                score = _score(logits, normalizer, target[rows], transform, probabilities)
                jacobian[rows] = (score.to(weight.dtype) @ weight).to(hidden.dtype)
                del score
            del logits, probabilities  # before the next chunk is computed
        ctx.transform = transform
        if jacobian is not None:
            ctx.save_for_backward(jacobian)
        elif with_gradient:
            ctx.save_for_backward(hidden, weight, bias, target)
        return logps, *(stats or (None,) * 4)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        if len(ctx.saved_tensors) == 1:
            jacobian = cast(Tensor, ctx.saved_tensors[0])
            gradient = grad[:, None] * jacobian
            return gradient.to(jacobian.dtype), *(None,) * 6
        hidden, weight, bias, target = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        hidden_grad = torch.empty_like(hidden) if needs_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=grad.dtype) if needs_weight else None
        bias_grad = torch.zeros_like(bias, dtype=grad.dtype) if needs_bias else None
        for rows in chunk_slices(len(hidden), len(weight)):
            logits = ctx.transform(project_hidden(hidden[rows], weight, bias, grad.dtype))
            normalizer = logits.logsumexp(-1)
            score = _score(logits, normalizer, target[rows], ctx.transform)
            logit_grad = score.mul_(grad[rows, None])
            if bias_grad is not None:
                bias_grad += logit_grad.sum(0)
            logit_grad = logit_grad.to(weight.dtype)
            if hidden_grad is not None:
                hidden_grad[rows] = logit_grad @ weight
            if weight_grad is not None:
                weight_grad += logit_grad.T @ hidden[rows]
            del logits, score, logit_grad
        if weight_grad is not None:
            weight_grad = weight_grad.to(weight.dtype)
        if bias_grad is not None:
            bias_grad = bias_grad.to(bias.dtype)
        return hidden_grad, weight_grad, bias_grad, *(None,) * 4


def chunk_slices(n: int, vocabulary: int) -> list[slice]:
    """Rows of n scored tokens whose logits are computed at once, chunk by chunk."""
    size = chunk_rows(vocabulary)
    return [slice(start, start + size) for start in range(0, n, size)]


def project_hidden(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, exact: torch.dtype
) -> Tensor:
    """Raw logits ``[n, V]`` in ``exact``; CUDA accumulates in it and rounds once."""
    if weight.is_cuda and weight.dtype != exact:
        logits = torch.mm(hidden, weight.T, out_dtype=exact)
    else:
        logits = (hidden @ weight.T).to(exact)
    return logits if bias is None else logits.add_(bias)


def _score(
    logits: Tensor,
    normalizer: Tensor,
    target: Tensor,
    transform: LogitTransform,
    probabilities: Tensor | None = None,
) -> Tensor:
    """Derivative of each target's log-probability by the raw logits, ``[n, V]``; overwrites probabilities or logits."""
    derivative = transform.derivative(logits)
    if probabilities is None:
        probabilities = logits.sub_(normalizer[:, None]).exp_()
    score = probabilities.neg_()
    ones = torch.ones_like(score[:, :1])
    score.scatter_add_(1, target[:, None], ones)
    if isinstance(derivative, float) and derivative == 1.0:
        return score
    return score.mul_(derivative)
