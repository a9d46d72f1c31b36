r"""Log-probabilities of the scored tokens, without ever holding the logits of all of them.

The derivative of :math:`\log p_t` of a linear head with respect to its input is :math:`(e_t - p)^\top W`, whatever the
loss. With a frozen head it is computed in the forward pass, chunk by chunk, and kept as ``[n, d]``: the backward pass
is one multiplication. With a trainable head the chunks are computed again.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_align.types import Logps, PackedTrees, PerTokenLogps, TokenLogps


class LogitTransform(NamedTuple):
    """What a model does to its logits last: ``z = softcap * tanh(scale * z / softcap)``.

    Args:
        scale: logits are multiplied by it.
        softcap: bound that they approach; None leaves them unbounded.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """LogitTransform ``logits`` of any shape, in place.

        Example:
            >>> LogitTransform(scale=0.5, softcap=2.0)(torch.tensor([4.0]))  # 2 tanh(1)
            tensor([1.5232])
        """
        if self.softcap is not None:
            return logits.mul_(self.scale / self.softcap).tanh_().mul_(self.softcap)
        return logits if self.scale == 1.0 else logits.mul_(self.scale)

    def at(self, temperature: float) -> LogitTransform:
        """What gives the same logits divided by ``temperature``.

        Example:
            >>> LogitTransform(scale=0.5, softcap=2.0).at(0.5)(torch.tensor([4.0]))  # 2 tanh(1) / 0.5
            tensor([3.0464])
        """
        return LogitTransform(self.scale / temperature, self.softcap and self.softcap / temperature)

    def slope(self, finished: Tensor) -> Tensor | float:
        """Derivative of what came out with respect to what went in."""
        if self.softcap is None:
            return self.scale
        return (finished / self.softcap).square_().neg_().add_(1).mul_(self.scale)


def token_logps(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    finish: LogitTransform = LogitTransform(),  # noqa: B008 - immutable
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
        finish: what follows the head.
        statistics: also report entropy, mean logit, whether the target was the likeliest, and the chance that two draws
            agree; without gradient.

    Example:
        >>> token_logps(torch.zeros(1, 2), torch.ones(4, 2), None, torch.tensor([3])).logps.exp()
        tensor([0.2500])
    """
    with_gradient = torch.is_grad_enabled()
    parts = _TokenLogps.apply(
        hidden.to(weight.dtype), weight, bias, target, finish, statistics, with_gradient
    )  # type: ignore[no-untyped-call]
    return TokenLogps(*parts)


def sum_by_response(tokens: Tensor, owner: Tensor, responses: int) -> Tensor:
    """Sum over the scored tokens of each response, ``[responses]``.

    Args:
        tokens: ``[n]``, a value of each scored token.
        owner: ``[n]``, the response it belongs to.
        responses: how many there are; one without scored tokens gets 0.

    Example:
        >>> sum_by_response(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0, 2, 2]), 3)
        tensor([-1.,  0., -6.])
    """
    return tokens.new_zeros(responses).index_add(0, owner, tokens)


def pad_by_response(tokens: Tensor, owner: Tensor, responses: int) -> Tensor:
    """Values of scored tokens side by side, ``[responses, longest]``, zero behind the end of a response.

    Args:
        tokens: ``[n]``, a value of each scored token.
        owner: ``[n]``, the response it belongs to; those of one response stand together.
        responses: how many there are.

    Example:
        >>> pad_by_response(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0, 1, 1]), 2)
        tensor([[-1.,  0.],
                [-2., -4.]])
    """
    length = torch.bincount(owner, minlength=responses)
    place = torch.arange(len(owner), device=owner.device) - (length.cumsum(0) - length)[owner]
    return tokens.new_zeros(responses, int(length.max())).index_put((owner, place), tokens)


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
    length = torch.bincount(trees.owner, minlength=trees.responses)
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
            padded[name] = pad_by_response(value, trees.owner, trees.responses)
    return Logps(policy, reference, length, PerTokenLogps(**padded))


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        finish: LogitTransform,
        statistics: bool,
        with_gradient: bool,
    ) -> tuple[Tensor | None, ...]:
        n, exact = len(hidden), torch.promote_types(weight.dtype, torch.float32)
        trains_head = weight.requires_grad or (bias is not None and bias.requires_grad)
        jacobian = (
            torch.empty_like(hidden)
            if with_gradient and hidden.requires_grad and not trains_head
            else None
        )
        logps = torch.empty(n, dtype=exact, device=hidden.device)
        entropy, mean, collision, top1 = (
            (
                *(torch.empty_like(logps) for _ in range(3)),
                torch.empty_like(logps, dtype=torch.bool),
            )
            if statistics
            else (None,) * 4
        )
        for rows in _chunks(n, len(weight)):
            z = finish(_project(hidden[rows], weight, bias, exact))
            total = z.logsumexp(-1)
            logps[rows] = z.gather(1, target[rows, None])[:, 0] - total
            if (
                entropy is not None
                and mean is not None
                and top1 is not None
                and collision is not None
            ):
                mean[rows], top1[rows] = z.mean(-1), z.argmax(-1) == target[rows]
                p = (z - total[:, None]).exp_()
                entropy[rows] = total - torch.einsum("nv,nv->n", p, z)
                collision[rows] = torch.einsum("nv,nv->n", p, p).log_()
                del p
            if jacobian is not None:
                jacobian[rows] = (
                    _score(z, total, target[rows], finish).to(weight.dtype) @ weight
                ).to(hidden.dtype)
            del z  # before the next chunk is made
        ctx.finish = finish
        if jacobian is not None:
            ctx.save_for_backward(jacobian)
        elif with_gradient:
            ctx.save_for_backward(hidden, weight, bias, target)
        ctx.mark_non_differentiable(
            *(part for part in (entropy, mean, top1, collision) if part is not None)
        )
        return logps, entropy, mean, top1, collision

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        unneeded = (None,) * 4
        if len(ctx.saved_tensors) == 1:
            jacobian = cast(Tensor, ctx.saved_tensors[0])
            return (grad[:, None] * jacobian).to(jacobian.dtype), None, None, *unneeded
        hidden, weight, bias, target = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        by_hidden = torch.empty_like(hidden) if needs_hidden else None
        by_weight = torch.zeros_like(weight, dtype=grad.dtype) if needs_weight else None
        by_bias = torch.zeros_like(bias, dtype=grad.dtype) if needs_bias else None
        for rows in _chunks(len(hidden), len(weight)):
            z = ctx.finish(_project(hidden[rows], weight, bias, grad.dtype))
            by_logits = _score(z, z.logsumexp(-1), target[rows], ctx.finish).mul_(grad[rows, None])
            if by_bias is not None:
                by_bias += by_logits.sum(0)
            by_logits = by_logits.to(weight.dtype)
            if by_hidden is not None:
                by_hidden[rows] = by_logits @ weight
            if by_weight is not None:
                by_weight += by_logits.T @ hidden[rows]
            del z, by_logits
        return (
            by_hidden,
            None if by_weight is None else by_weight.to(weight.dtype),
            None if by_bias is None else by_bias.to(bias.dtype),
            None,
            *unneeded,
        )


def _chunks(n: int, vocabulary: int) -> list[slice]:
    size = min(max(2**24 // vocabulary, 64), 1024)
    return [slice(start, start + size) for start in range(0, n, size)]


def _project(hidden: Tensor, weight: Tensor, bias: Tensor | None, exact: torch.dtype) -> Tensor:
    """Raw logits ``[n, V]`` in ``exact``; CUDA accumulates and rounds once, into it."""
    if weight.is_cuda and weight.dtype != exact:
        z = torch.mm(hidden, weight.T, out_dtype=exact)
    else:
        z = (hidden @ weight.T).to(exact)
    return z if bias is None else z.add_(bias)


def _score(z: Tensor, total: Tensor, target: Tensor, finish: LogitTransform) -> Tensor:
    """Derivative of each target's log-probability by the raw logits, ``[n, V]``; overwrites ``z``."""
    slope = finish.slope(z)
    score = z.sub_(total[:, None]).exp_().neg_()
    score.scatter_add_(1, target[:, None], torch.ones_like(score[:, :1]))
    return score if isinstance(slope, float) and slope == 1.0 else score.mul_(slope)
