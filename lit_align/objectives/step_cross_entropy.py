"""Cross-entropy of the steps of a response (Uesato et al., 2022, https://arxiv.org/abs/2211.14275)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_align import Register, hookimpl
from lit_align.objectives import StepwiseObjective


@dataclass(frozen=True)
class StepCrossEntropy(StepwiseObjective):
    r"""Cross-entropy of whether a step is right, from the log-odds z that are read at its end.

    .. math:: -y \log \sigma(z) - (1 - y) \log \sigma(-z)

    A head with two outputs and a softmax over them, as for the classification of tokens, is the same with z the
    difference of its outputs: :math:`\mathrm{softmax}(a, b)_2 = \sigma(b - a)`. A label between 0 and 1, such as the
    share of continuations from there that end well (Wang et al., 2024, https://arxiv.org/abs/2312.08935), is learned
    as a probability.

    Example:
        Even odds, and odds of 4 to 1 that a wrong step is right: log 2 and log 5.

        >>> import torch
        >>> StepCrossEntropy()(torch.tensor([1.0, 4.0]).log(), torch.tensor([1.0, 0.0]))
        tensor([0.6931, 1.6094])
    """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logits, labels, reduction="none")


@hookimpl
def register_objectives(register: Register) -> None:
    register(StepCrossEntropy)
