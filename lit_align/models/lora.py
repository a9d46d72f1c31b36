"""Settings of LoRA adapters."""

from __future__ import annotations

from dataclasses import dataclass

from lit_align.checks import check_between, check_positive


@dataclass
class Lora:
    """Low-rank adapters (Hu et al., 2021, https://arxiv.org/abs/2106.09685).

    An adapter that starts from a saved one takes over its r, alpha and targets.

    Args:
        r: rank; parameters and optimizer state grow with it.
        alpha: the product of the two low-rank matrices is scaled by alpha / r.
        dropout: on the input of an adapter, while training.
        targets: layers that get an adapter: names, a pattern of their full names, or all-linear for all linear layers
            but the head and those that an adapter cannot reach.
        adapt_experts: with all-linear, also each expert of a mixture; these can be most of the memory.
        adapt_routers: with all-linear, also the routers that choose experts. They are left alone by default: a policy
            that sends tokens to other experts than the reference does is compared with another model.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"
    adapt_experts: bool = True
    adapt_routers: bool = False

    def __post_init__(self) -> None:
        check_positive("lora.r", self.r, "8 to 64 are usual")
        check_positive("lora.alpha", self.alpha, "once or twice r is usual")
        check_between("lora.dropout", self.dropout, 0, 1, "0 or 0.05 are usual")
