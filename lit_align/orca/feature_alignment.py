"""Bring an embedder near text before it is refined, look at what that does, and keep it only if it helps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import ConfigError
from lit_align.models.load import load_tokenizer
from lit_align.orca.backbones import Body
from lit_align.orca.distances import OTDD, DatasetDistance, Side, label_costs
from lit_align.orca.embedders import Embedder
from lit_align.orca.heads import Head
from lit_align.orca.source_sets import SourceSet
from lit_align.orca.types import Embedded

if TYPE_CHECKING:
    from lit_align.models.load import Base

TOGETHER = 64  # examples that the body reads at once
POINTS = 1000  # of the source
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # of the probe's prior


@dataclass
class FeatureAlignment:
    """How an embedder is brought near text before it is refined, and beside it.

    ``folds`` ask whether that helps: an embedder is aligned to all but one part of the training examples, the body as
    it was loaded reads its tokens, and a logistic (for numbers: ridge) regression on what the head would see, fitted to
    the same examples, is tried on the part that was left out. Alignment is kept if over the folds this loss falls by
    more than twice the standard error of its mean, which with five folds chance does one time in seventeen. The body's
    states are probed and not the embeddings, since a linear layer takes back whatever linear change was made to those;
    with and without each have the strength of the ridge that is best for them, or dimming everything would pass for
    help where a probe learns by heart.

    Args:
        source: tagged text to align to, a word a line, or one .npz of points; nothing takes clusters of the model's
            embedding table.
        distance: what is made smaller, between a source and each input's mean token; targets that are no classes are
            binned or clustered.
        steps: optimiser steps, each on all of ``rows``.
        lr: learning rate of Adam.
        rows: about as many training examples are looked at, drawn by class.
        joint: weight of the distance while refining, where it was 1 before the first step; 0 leaves it out.
        folds: parts that the training examples are tried in; 0 keeps the alignment unasked.
    """

    source: list[str] = field(default_factory=list)
    distance: DatasetDistance = field(default_factory=OTDD)
    steps: int = 8
    lr: float = 1e-3
    rows: int = 512
    joint: float = 0.0
    folds: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rows < 2 or self.joint < 0 or self.folds < 0 or self.folds == 1:
            raise ConfigError(
                f"steps is {self.steps}, rows {self.rows}, joint {self.joint} and folds {self.folds}; steps is at "
                "least 1, rows 2, joint 0, and folds 0 or at least 2; null as the alignment leaves it out"
            )

    def points(self, body: Body, base: Base, seed: int) -> SourceSet:
        """What to align to.

        Raises:
            ConfigError: if the body has no words.
            DataError: if a file is none.
        """
        device = body.spec.stats.mean.device
        if len(self.source) == 1 and self.source[0].endswith(".npz"):
            found = SourceSet.read(self.source[0])
        elif not hasattr(body.model.get_input_embeddings(), "weight"):
            raise ConfigError(
                f"{base.path!r} has no words to align to; give an .npz of points as alignment.source"
            )
        else:
            table = body.model.get_input_embeddings().weight
            if self.source:
                found = SourceSet.from_words(
                    self.source, table, load_tokenizer(base), POINTS, seed=seed
                )
            else:
                found = SourceSet.from_table(table, POINTS, seed=seed)
        return found._replace(x=found.x.to(device), y=found.y.to(device))


class Sample(NamedTuple):
    """Training examples that an alignment looks at.

    Args:
        x: inputs ``[n, channels, ...]``.
        mask: where there is one.
        y: targets, as the head wants them.
        classes: ``[n]``, of the targets.
        fold: ``[n]``, the part that each is tried in.
    """

    x: Tensor
    mask: Tensor
    y: Tensor
    classes: Tensor
    fold: Tensor

    def take(self, rows: Tensor) -> Sample:
        """Those of ``rows``."""
        return Sample(*(one[rows] for one in self))


def folds_of(units: Sequence[Any], classes: Sequence[int], folds: int, seed: int) -> list[int]:
    """The part of each example: units are not parted, and parts have their share of each class.

    Example:
        >>> sorted(folds_of("abcdab", [0, 0, 1, 1, 0, 0], folds=2, seed=0)[:4]), folds_of("aab", [0, 0, 1], 2, 0)[:2]
        ([0, 0, 1, 1], [0, 0])
    """
    first = dict(zip(reversed(units), reversed(classes), strict=True))
    draw = torch.randperm(len(first), generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = sorted(zip(draw, first, strict=True), key=lambda one: (first[one[1]], one[0]))
    part = {unit: k % max(folds, 1) for k, (_, unit) in enumerate(shuffled)}
    return [part[unit] for unit in units]


def align(
    embedder: Embedder,
    sample: Sample,
    source: SourceSet,
    how: FeatureAlignment,
    distance: DatasetDistance,
) -> None:
    """Take ``how.steps`` steps towards the source."""
    optimizer = torch.optim.Adam(embedder.parameters(), how.lr)
    for _ in range(how.steps):
        pooled = embedder(sample.x, sample.mask).pooled()
        optimizer.zero_grad()
        torch.autograd.backward(distance(source.x, source.y, pooled, sample.classes).value)
        optimizer.step()
    optimizer.zero_grad()


def tried(
    embedder: Embedder,
    body: Body,
    head: Head,
    sample: Sample,
    source: SourceSet,
    how: FeatureAlignment,
    distance: DatasetDistance,
) -> dict[str, Any]:
    """Loss of the probe on each part, without and with an alignment to the others, and whether the latter is kept."""
    losses: dict[str, list[list[float]]] = {"without": [], "with": []}
    plain = seen(embedder, body, head, sample)
    for k in torch.unique(sample.fold):
        rest, one = sample.fold != k, copy.deepcopy(embedder)
        align(one, sample.take(rest), source, how, distance)
        for name, (states, grid) in {
            "without": plain,
            "with": seen(one, body, head, sample),
        }.items():
            losses[name].append(
                [probe(head, states, grid, sample.y, rest, strength) for strength in STRENGTHS]
            )
    best = {
        name: (table := torch.tensor(of))[:, table.mean(0).argmin()] for name, of in losses.items()
    }
    gain = best["without"] - best["with"]
    error = float(gain.std() / len(gain) ** 0.5)
    figures = {name: float(of.mean()) for name, of in best.items()}
    kept = bool(
        gain.mean() > 2 * error
    )  # two: of heartbeats, gains of one to two errors made validation worse
    return {**figures, "gain": float(gain.mean()), "error": error, "kept": kept}


@torch.no_grad()
def seen(
    embedder: Embedder, body: Body, head: Head, sample: Sample
) -> tuple[Tensor, tuple[int, ...] | None]:
    """What the head would see of each example, and the grid that tokens stand on."""
    states, grid = [], None
    for x, mask in zip(
        torch.split(sample.x, TOGETHER), torch.split(sample.mask, TOGETHER), strict=True
    ):
        embedded: Embedded = embedder(x, mask)
        states.append(head.read(body(embedded), embedded))
        grid = embedded.grid
    return torch.cat(states), grid


def probe(
    head: Head,
    states: Tensor,
    grid: tuple[int, ...] | None,
    y: Tensor,
    fitted: Tensor,
    strength: float,
) -> float:
    r"""Mean loss, on examples that are not ``fitted``, of a linear layer that is fitted to those that are.

    .. math:: \frac1n\sum_i \ell(W z_i + b, y_i) + \frac{\lambda}{2n}\lVert W\rVert^2

    where z are states in deviations of the fitted ones.

    Args:
        head: for its loss; it is not changed.
        states: what the head sees, ``[n, d]`` or ``[n, tokens, d]``.
        grid: that tokens stand on.
        y: targets.
        fitted: ``[n]``, which of them to fit.
        strength: of the ridge, λ.
    """
    model = copy.deepcopy(head)
    axes = tuple(range(states.dim() - 1))
    std, mean = torch.std_mean(states[fitted], axes, correction=0)
    z = (states - mean) / torch.where(std > 1e-6, std, 1.0)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model.loss(model.predict(z[fitted], grid), y[fitted]).mean()
        loss = loss + strength * model.linear.weight.square().sum() / (2 * int(fitted.sum()))
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(model.loss(model.predict(z[~fitted], grid), y[~fitted]).mean())


class Cloud(NamedTuple):
    """How embeddings lie at one moment.

    Args:
        pooled: each input's mean token, ``[n, d]``.
        figures: what to log.
    """

    pooled: Tensor
    figures: dict[str, Any]


@torch.no_grad()
def cloud(
    embedder: Embedder, sample: Sample, source: SourceSet, distance: DatasetDistance
) -> Cloud:
    """Figures of the embeddings.

    ``distance`` to the source; ``nearest`` of each class, the squared distance of its normal distribution to that of
    the nearest class of the source; ``fisher``, the variance between classes over that within; ``token_norm``.
    """
    embedded: Embedded = embedder(sample.x, sample.mask)
    pooled, classes = embedded.pooled(), sample.classes
    found = distance(source.x, source.y, pooled, classes)
    near = label_costs(
        Side.of(source.x.double(), source.y), Side.of(pooled.double(), classes)
    ).amin(0)
    means = Side.of(pooled, classes).means[classes]
    within = (pooled - means).square().sum()
    figures = {
        "distance": float(found.value),
        "nearest": near.tolist(),
        "fisher": float((means - pooled.mean(0)).square().sum() / within.clamp_min(1e-12)),
        "token_norm": float(embedded.tokens[embedded.mask].norm(dim=-1).mean()),
    }
    if "epsilon" in found.parts:
        figures["epsilon"] = float(found.parts["epsilon"])
    return Cloud(pooled, figures)


def settled(distance: DatasetDistance, figures: dict[str, Any]) -> DatasetDistance:
    """The same distance with the epsilon that it had, so that a resumed run has the same loss."""
    return replace(distance, **({"epsilon": figures["epsilon"]} if "epsilon" in figures else {}))  # type: ignore[type-var]


def plot_clouds(
    source: SourceSet, clouds: dict[str, Cloud], classes: Tensor, picture: Path
) -> None:
    """Draw source and embeddings on the two main axes of them all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    everything = torch.cat([source.x, *(one.pooled for one in clouds.values())]).cpu().double()
    middle = everything.mean(0)
    axes = torch.linalg.svd(everything - middle, full_matrices=False).Vh[:2].T
    figure, panels = plt.subplots(
        1, len(clouds), figsize=(10, 4), layout="constrained", sharex=True, sharey=True
    )
    for panel, (name, one) in zip(panels, clouds.items(), strict=True):
        x, u = (
            ((rows.cpu().double() - middle) @ axes).T.tolist() for rows in (source.x, one.pooled)
        )
        panel.scatter(*x, c="lightgrey", s=6, label="source")
        panel.scatter(*u, c=classes.tolist(), s=12, cmap="tab10", label="target, by class")
        told = {key: round(one.figures[key], 3) for key in ("distance", "fisher", "token_norm")}
        panel.set_title(
            f"{name}\n" + ", ".join(f"{key} {value:g}" for key, value in told.items()), fontsize=10
        )
    panels[0].legend(fontsize=8)
    figure.savefig(picture, dpi=120)
    plt.close(figure)
