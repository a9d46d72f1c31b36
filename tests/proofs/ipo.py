"""Why IPO exists: where one response always wins, DPO forgets its reference, whatever beta (Azar et al., 2023).

Two responses with a uniform reference, and a policy that is a table of two logits. ``python -m tests.proofs.ipo``
descends on both losses for several beta, draws ``ipo.png`` beside this file and writes the margins to ``ipo.json``.
"""

import json
from pathlib import Path

import torch

from lit_align.objectives import Logps, PairwiseObjective
from lit_align.objectives.dpo import DPO
from lit_align.objectives.ipo import IPO

HERE = Path(__file__).parent
BETAS = (0.1, 0.5, 1.0)
STEPS = 20_000


def margins(objective: PairwiseObjective, steps: int = STEPS) -> list[float]:
    """log π(y_w)/π(y_l) after each of ``steps`` steps of gradient descent, in nats."""
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    reference, one = (
        torch.full((1,), -torch.tensor(2.0).log().item(), dtype=torch.float64),
        torch.ones(1),
    )
    optimizer, seen = torch.optim.Adam([logits], lr=0.01), []
    for _ in range(steps):
        chosen, rejected = logits.log_softmax(0).split(1)
        loss = objective(Logps(chosen, reference, one), Logps(rejected, reference, one))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        seen.append((logits[0] - logits[1]).item())
    return seen


def main() -> None:
    """Descend, write and draw."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    traces = {
        f"{name} {beta}": margins(cls(beta=beta))
        for name, cls in (("DPO", DPO), ("IPO", IPO))
        for beta in BETAS
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, name in zip(axes, ("DPO", "IPO"), strict=True):
        for k, beta in enumerate(BETAS):
            axis.plot(traces[f"{name} {beta}"], color=f"C{k}", label=f"β = {beta}")
            if name == "IPO":
                axis.axhline(1 / (2 * beta), color=f"C{k}", linestyle=":", linewidth=1)
        axis.set(title=name, xlabel="step", xscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_ylabel("log π(y_w) / π(y_l), nats")
    axes[1].set_title("IPO, and dotted 1 / (2β)")
    figure.savefig(HERE / "ipo.png", dpi=110)
    found = {
        run: {"half way": trace[STEPS // 2 - 1], "end": trace[-1]} for run, trace in traces.items()
    }
    (HERE / "ipo.json").write_text(json.dumps({"steps": STEPS, "margins": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
