"""What alignment is worth on a task: arms that differ in nothing else, beside what needs no language model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_align.orca.datamodule import CrossModalData
from lit_align.orca.heads import measure
from lit_align.orca.modalities import TargetSpec

ORCA_STEPS: dict[str, Any] = {
    "steps": 60,
    "lr": 1e-3,
    "folds": 0,
}  # one an epoch, as its settings have it

ARMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "scratch": lambda given: {"pretrained": False, "alignment": None},
    "naive": lambda given: {"alignment": None},
    "orca": lambda given: {
        "alignment": given
        | {"distance": {"class_path": "ORCA", "init_args": {"convention": "otdd"}}}
        | ORCA_STEPS
    },
    "otdd": lambda given: {"alignment": given | {"folds": 0}},
    "gated": lambda given: {"alignment": {"folds": 5} | given},
}
"""What an arm changes of a task's settings, whose alignment it is given."""

KERNELS = 2000


def settings_of(task: dict[str, Any], arm: str, lr: float, seed: int) -> dict[str, Any]:
    """Settings of stage and data of one run: the task's, but for arm, learning rate and seed."""
    model, data = (
        {**task[part], "init_args": dict(task[part]["init_args"])} for part in ("model", "data")
    )
    given = model["init_args"]
    given |= ARMS[arm](dict(given.get("alignment") or {})) | {"seed": seed}
    optimizer = given["optimizer"]
    given["optimizer"] = {**optimizer, "init_args": {**optimizer.get("init_args", {}), "lr": lr}}
    data["init_args"]["seed"] = seed
    return {"model": model, "data": data}


def _made(settings: dict[str, Any], **kinds: type) -> Any:
    """What the settings describe, by its name."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    for name, kind in kinds.items():
        parser.add_argument(f"--{name}", type=kind)
    return parser.instantiate(parser.parse_object(settings))


def trained(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """Train for so many steps, and what came of it; seconds are of the whole, alignment included."""
    from lightning.pytorch import Trainer

    from lit_align.orca.stage import CrossModal

    made = _made(settings, model=CrossModal, data=CrossModalData)
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(max_steps=steps, logger=False, limit_val_batches=0, **quiet)  # type: ignore[arg-type]
    start, work = time.perf_counter(), time.process_time()
    trainer.fit(made.model, made.data)
    figures = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - work}
    trainer = Trainer(logger=False, **quiet)  # type: ignore[arg-type]
    for found in (
        *trainer.validate(made.model, made.data, verbose=False),
        *trainer.test(made.model, made.data, verbose=False),
    ):
        figures |= {name: float(value) for name, value in found.items()}
    return {**figures, "metric": made.model.head.metric, "alignment": made.model.report}


def baselines(given: dict[str, Any]) -> dict[str, float]:
    """What is reached in the test without a model: by the mean target, the nearest neighbour and random convolutions.

    Inputs that are no numbers have no neighbours and no convolutions.
    """
    data = _made({"data": given}, data=CrossModalData).data
    data.setup("test")
    train, validation, test = (data.labelled(part) for part in ("train", "validation", "test"))
    wanted, aim = (_numbers(part.y, data.target) for part in (train, validation))

    def scored(predicted: Tensor) -> float:
        metric = measure(data.target)
        metric.update(predicted.float().view(-1, *(train.y.shape[1:] or wanted.shape[1:])), test.y)
        return float(metric.compute())

    found = {"mean target": scored(wanted.mean(0).expand(len(test.y), -1))}
    if not train.x.is_floating_point():
        return found
    xs = _alike([part.x for part in (train, validation, test)])
    found["nearest neighbour"] = scored(
        wanted[torch.cdist(xs[2].flatten(1), xs[0].flatten(1)).argmin(1)]
    )
    x, chosen_by, tested = random_convolutions(xs, int(given["init_args"]["seed"]))
    fits = [ridge(x, wanted, 10.0**k) for k in range(-2, 6)]
    best = min(fits, key=lambda fit: float((fit(chosen_by) - aim).square().mean()))
    return {**found, "random convolutions": scored(best(tested))}


def _numbers(y: Tensor, target: TargetSpec) -> Tensor:
    """Targets ``[n, numbers]``: of a class, 1 where it is and -1 where it is not."""
    named = torch.nn.functional.one_hot(y, target.outputs) * 2 - 1 if target.kind == "class" else y
    return named.flatten(1).double()


def _alike(xs: Sequence[Tensor]) -> list[Tensor]:
    """Inputs as series of channels, ``[n, channels, length]``, all as long as the longest."""
    flat = [x.flatten(2) if x.dim() > 2 else x[:, None] for x in xs]
    longest = max(x.shape[2] for x in flat)
    return [torch.nn.functional.pad(x, (0, longest - x.shape[2])) for x in flat]


def random_convolutions(xs: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Largest value, and share above zero, of series under random kernels, in deviations of the first set.

    Kernels are those of ROCKET (Dempster et al., 2020, https://arxiv.org/abs/1910.13051), over all channels at once and
    fewer.
    """
    draw = torch.Generator().manual_seed(seed)
    channels, length = xs[0].shape[1:]
    columns: list[list[Tensor]] = [[] for _ in xs]
    for k in range(KERNELS // 20):  # those of one length and dilation together
        size = min((7, 9, 11)[k % 3], length)
        reach = math.log2(max((length - 1) / max(size - 1, 1), 1.0))
        dilation = int(2 ** (float(torch.rand(1, generator=draw)) * reach))
        weight = torch.randn(20, channels, size, generator=draw)
        weight -= weight.mean(-1, keepdim=True)
        bias = 2 * torch.rand(20, generator=draw) - 1
        pad = (size - 1) * dilation // 2 if k % 2 else 0
        for x, column in zip(xs, columns, strict=True):
            for_each = []
            for rows in torch.split(x, 32):  # together, long series would take gigabytes
                made = torch.nn.functional.conv1d(
                    rows, weight, bias, padding=pad, dilation=dilation
                )
                for_each.append(torch.cat([made.amax(2), (made > 0).float().mean(2)], 1))
            column.append(torch.cat(for_each))
    features = [torch.cat(column, 1) for column in columns]
    std, mean = torch.std_mean(features[0], 0)
    return [(x - mean) / std.clamp_min(1e-6) for x in features]


def ridge(x: Tensor, targets: Tensor, strength: float) -> Callable[[Tensor], Tensor]:
    """Least squares with a ridge, from rows ``[n, d]`` to ``[n, numbers]``; it gives the numbers of other rows."""
    rows = x.double()
    kernel = rows @ rows.T + strength * torch.eye(len(rows), dtype=torch.float64)
    weights = rows.T @ torch.linalg.solve(kernel, targets - targets.mean(0))
    return lambda z: z.double() @ weights + targets.mean(0)


def compared(runs: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each arm of a task over its seeds: its metric, seconds, and a paired t-test against ``naive``.

    Args:
        runs: of the learning rate that was chosen for their arm, with ``arm``, ``seed``, ``lr`` and figures.

    Example:
        >>> every = {"lr": 0.1, "seconds": 1.0, "cpu_seconds": 1.0, "metric": "accuracy", "alignment": {}}
        >>> made = [{"arm": arm, "seed": seed, "test_accuracy": a, **every}
        ...         for arm, row in {"naive": (0.5, 0.6, 0.7), "otdd": (0.6, 0.8, 0.7)}.items()
        ...         for seed, a in enumerate(row)]
        >>> found = compared(made)["otdd"]
        >>> round(found["mean"], 3), round(found["sd"], 3), round(found["against naive"], 3)  # t is √3
        (0.7, 0.1, 0.225)
    """
    import numpy as np
    from scipy.stats import ttest_rel

    arms: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        arms.setdefault(run["arm"], {})[run["seed"]] = run
    found = {}
    for arm, of in arms.items():
        values = np.array([_figure(run) for run in of.values()])
        both = sorted(of.keys() & arms.get("naive", {}).keys()) if arm != "naive" else []
        pairs = np.array([[_figure(of[s]), _figure(arms["naive"][s])] for s in both])
        differ = len(both) > 1 and float(np.ptp(pairs[:, 0] - pairs[:, 1])) > 0
        found[arm] = {
            "lr": next(iter(of.values()))["lr"],
            "seeds": len(of),
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)) if len(of) > 1 else None,
            "against naive": float(ttest_rel(*pairs.T).pvalue) if differ else None,
            "each": values.tolist(),
            **{
                name: float(np.mean([run[name] for run in of.values()]))
                for name in ("seconds", "cpu_seconds")
            },
            "kept": sum(bool(run["alignment"].get("kept")) for run in of.values()),
        }
    return found


def _figure(run: dict[str, Any]) -> float:
    return float(run[f"test_{run['metric']}"])


def plot_arms(found: dict[str, Any], picture: Path) -> None:
    """Draw each task's arms, mean and deviation over the dots of its seeds, with the baselines as lines."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(found), figsize=(1.5 + 4 * len(found), 3.8), layout="constrained", squeeze=False
    )
    for axis, (task, of) in zip(axes[0], found.items(), strict=True):
        arms = list(of["arms"])
        means, sds = ([of["arms"][arm][key] or 0.0 for arm in arms] for key in ("mean", "sd"))
        axis.errorbar(arms, means, sds, fmt="_", markersize=16, capsize=4)
        for arm, one in of["arms"].items():
            axis.plot([arm] * one["seeds"], one["each"], "k.", alpha=0.4)
        lines = list(
            of["baselines"].items()
        )  # two say enough: the mean target is drawn if it is the only one
        for (name, value), style in zip(lines[1:] or lines, ("--", ":"), strict=False):
            axis.axhline(value, linestyle=style, color="grey", label=f"{name}, {value:.3f}")
        axis.set(title=task, ylabel=f"{of['metric']} in the test")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(picture, dpi=120)
    plt.close(figure)
