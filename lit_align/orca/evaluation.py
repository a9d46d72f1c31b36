"""What alignment is worth on a task: training runs that differ in one setting each, and baselines without a model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv1d, one_hot, pad

from lit_align.orca.datamodule import CrossModalData
from lit_align.orca.heads import build_metric
from lit_align.orca.modalities import TargetSpec
from lit_align.plotting import saved_subplots

ARMS = ("scratch", "naive", "orca", "otdd", "gated")
"""What is compared: random weights, no alignment, ORCA's, OTDD's, and OTDD's if cross-validation finds a gain."""

Settings = dict[str, Any]
Run = dict[str, Any]
Predictor = Callable[[Tensor], Tensor]

NUM_KERNELS = 2000
KERNELS_PER_SHAPE = 20  # of one length and dilation, computed together
CONVOLUTION_BATCH = 32  # all series at once would take gigabytes
RIDGE_STRENGTHS = tuple(10.0**k for k in range(-2, 6))


def arm_settings(task: Settings, arm: str, lr: float, seed: int) -> Settings:
    """Settings of stage and data module for one run: the task's, with arm, learning rate and seed replaced."""
    model, data = task["model"], task["data"]
    model_args = dict(model["init_args"])
    model_args["seed"] = seed
    model_args["alignment"] = _arm_alignment(arm, model_args.get("alignment") or {})
    if arm == "scratch":
        model_args["pretrained"] = False
    optimizer = model_args["optimizer"]
    optimizer_args = {**optimizer.get("init_args", {}), "lr": lr}
    model_args["optimizer"] = {**optimizer, "init_args": optimizer_args}
    data_args = {**data["init_args"], "seed": seed}
    return {
        "model": {**model, "init_args": model_args},
        "data": {**data, "init_args": data_args},
    }


def _arm_alignment(arm: str, alignment: Settings) -> Settings | None:
    """The task's alignment as an arm changes it."""
    if arm in ("scratch", "naive"):
        return None
    if arm == "gated":
        return {"folds": 5, **alignment}
    if arm == "otdd":
        return {**alignment, "folds": 0}
    return {
        **alignment,
        "distance": {"class_path": "ORCA", "init_args": {"convention": "otdd"}},
        "steps": 60,  # one an epoch, as in ORCA's settings
        "lr": 1e-3,
        "folds": 0,
    }


def _instantiate(settings: Settings, **types: type) -> Any:
    """The objects that settings describe, by name."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    for name, cls in types.items():
        parser.add_argument(f"--{name}", type=cls)
    return parser.instantiate(parser.parse_object(settings))


def run_arm(settings: Settings, steps: int) -> Run:
    """Train for ``steps``, validate and test; seconds are of training, alignment included."""
    from lightning.pytorch import Trainer

    from lit_align.orca.stage import CrossModal

    run = _instantiate(settings, model=CrossModal, data=CrossModalData)
    options: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(max_steps=steps, limit_val_batches=0, **options)
    start, cpu_start = time.perf_counter(), time.process_time()
    trainer.fit(run.model, run.data)
    results: Run = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
    }
    trainer = Trainer(**options)
    for evaluate in (trainer.validate, trainer.test):
        for metrics in evaluate(run.model, run.data, verbose=False):
            for name, value in metrics.items():
                results[name] = float(value)
    results["metric"] = run.model.head.metric_name
    results["alignment"] = run.model.alignment_report
    return results


def baseline_metrics(settings: Settings) -> dict[str, float]:
    """Test metric of predictors without a model: mean target, nearest neighbour, random convolutions.

    Inputs that are not numbers have the first alone.

    Args:
        settings: of the data module.
    """
    data = _instantiate({"data": settings}, data=CrossModalData).data
    data.setup("test")
    train = data.make_batch("train")
    validation = data.make_batch("validation")
    test = data.make_batch("test")
    targets = _as_numbers(train.y, data.target)
    mean_target = targets.mean(0).expand(len(test.y), -1)
    predictions = {"mean target": mean_target}
    if train.x.is_floating_point():
        inputs = _as_series([train.x, validation.x, test.x])
        predictions["nearest neighbour"] = _nearest_neighbour(inputs[0], targets, inputs[2])
        features = random_convolutions(inputs, int(settings["init_args"]["seed"]))
        validation_targets = _as_numbers(validation.y, data.target)
        predict = _best_ridge(features[0], targets, features[1], validation_targets)
        predictions["random convolutions"] = predict(features[2])
    results = {}
    for name, predicted in predictions.items():
        results[name] = _score(predicted, test.y, data.target)
    return results


def _as_numbers(y: Tensor, target: TargetSpec) -> Tensor:
    """Targets ``[n, numbers]``; a class is 1 in its own column and -1 in the others."""
    if target.kind == "class":
        y = one_hot(y, target.outputs) * 2 - 1
    return y.flatten(1).double()


def _score(predicted: Tensor, y: Tensor, target: TargetSpec) -> float:
    """The metric of predictions ``[n, numbers]``."""
    predicted = predicted.float()
    if target.kind != "class":
        predicted = predicted.view(y.shape)
    metric = build_metric(target)
    metric.update(predicted, y)
    return float(metric.compute())


def _as_series(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Inputs as series ``[n, channels, length]``, padded to one length."""
    series = []
    for x in inputs:
        is_table = x.dim() == 2
        series.append(x[:, None] if is_table else x.flatten(2))
    length = max(x.shape[2] for x in series)
    return [pad(x, (0, length - x.shape[2])) for x in series]


def _nearest_neighbour(x: Tensor, targets: Tensor, queries: Tensor) -> Tensor:
    """The target of the nearest row of ``x`` to each query."""
    distances = torch.cdist(queries.flatten(1), x.flatten(1))
    return targets[distances.argmin(1)]


class Kernels(NamedTuple):
    """Convolution kernels of one length and dilation."""

    weight: Tensor
    bias: Tensor
    padding: int
    dilation: int


def random_convolutions(inputs: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Maximum and share of positive values of series under random kernels, standardised by the first set.

    Kernels are those of ROCKET (Dempster et al., 2020, https://arxiv.org/abs/1910.13051), over all channels at once and
    fewer.

    Args:
        inputs: sets of series, each ``[n, channels, length]``.
        seed: of the kernels.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, length = inputs[0].shape[1:]
    kernels = []
    for k in range(NUM_KERNELS // KERNELS_PER_SHAPE):
        kernels.append(_draw_kernels(k, channels, length, generator))
    features = []
    for x in inputs:
        columns = [_pool_responses(x, group) for group in kernels]
        features.append(torch.cat(columns, 1))
    std, mean = torch.std_mean(features[0], 0)
    std = std.clamp_min(1e-6)
    return [(x - mean) / std for x in features]


def _draw_kernels(k: int, channels: int, length: int, generator: torch.Generator) -> Kernels:
    """The k-th group of random kernels; every second one pads its input."""
    size = min((7, 9, 11)[k % 3], length)
    max_dilation = max((length - 1) / max(size - 1, 1), 1.0)
    exponent = float(torch.rand(1, generator=generator)) * math.log2(max_dilation)
    dilation = int(2**exponent)
    weight = torch.randn(KERNELS_PER_SHAPE, channels, size, generator=generator)
    weight -= weight.mean(-1, keepdim=True)
    bias = 2 * torch.rand(KERNELS_PER_SHAPE, generator=generator) - 1
    padding = (size - 1) * dilation // 2 if k % 2 else 0
    return Kernels(weight, bias, padding, dilation)


def _pool_responses(x: Tensor, kernels: Kernels) -> Tensor:
    """Maximum and share of positive values of each kernel's responses, ``[n, 2 * kernels]``."""
    weight, bias, padding, dilation = kernels
    pooled = []
    for rows in torch.split(x, CONVOLUTION_BATCH):
        responses = conv1d(rows, weight, bias, padding=padding, dilation=dilation)
        positive = (responses > 0).float().mean(2)
        pooled.append(torch.cat([responses.amax(2), positive], 1))
    return torch.cat(pooled)


def _best_ridge(x: Tensor, targets: Tensor, val_x: Tensor, val_targets: Tensor) -> Predictor:
    """Ridge regression of the strength with the smallest validation error."""
    best, best_error = None, math.inf
    for strength in RIDGE_STRENGTHS:
        predict = fit_ridge(x, targets, strength)
        error = float((predict(val_x) - val_targets).square().mean())
        if best is None or error < best_error:
            best, best_error = predict, error
    assert best is not None
    return best


def fit_ridge(x: Tensor, targets: Tensor, strength: float) -> Predictor:
    """Ridge regression from rows ``[n, d]`` to ``[n, numbers]``; returns the prediction function."""
    rows = x.double()
    mean = targets.mean(0)
    ridge = strength * torch.eye(len(rows), dtype=torch.float64)
    kernel = rows @ rows.T + ridge
    dual_weights = torch.linalg.solve(kernel, targets - mean)
    weights = rows.T @ dual_weights
    return lambda new_rows: new_rows.double() @ weights + mean


def compare_arms(runs: Iterable[Run]) -> dict[str, Any]:
    """Each arm over its seeds: test metric, seconds, and the p-value of a paired t-test against ``naive``.

    Args:
        runs: of the learning rate that was chosen for their arm, with ``arm``, ``seed``, ``lr`` and metrics.

    Example:
        >>> common = {"lr": 0.1, "seconds": 1.0, "cpu_seconds": 1.0, "metric": "accuracy", "alignment": {}}
        >>> accuracies = {"naive": (0.5, 0.6, 0.7), "otdd": (0.6, 0.8, 0.7)}
        >>> runs = [{"arm": arm, "seed": seed, "test_accuracy": accuracy, **common}
        ...         for arm, row in accuracies.items() for seed, accuracy in enumerate(row)]
        >>> otdd = compare_arms(runs)["otdd"]
        >>> round(otdd["mean"], 3), round(otdd["sd"], 3), round(otdd["against naive"], 3)  # t is √3
        (0.7, 0.1, 0.225)
    """
    runs_by_arm: dict[str, dict[int, Run]] = {}
    for run in runs:
        runs_by_arm.setdefault(run["arm"], {})[run["seed"]] = run
    results = {}
    for arm, runs_by_seed in runs_by_arm.items():
        naive = {} if arm == "naive" else runs_by_arm.get("naive", {})
        results[arm] = _summarize(runs_by_seed, naive)
    return results


def _summarize(runs: dict[int, Run], naive: dict[int, Run]) -> dict[str, Any]:
    """Summary of an arm's runs, by seed, and their comparison with those of ``naive``."""
    metrics = {seed: _test_metric(run) for seed, run in runs.items()}
    values = list(metrics.values())
    num_kept = 0
    for run in runs.values():
        num_kept += bool(run["alignment"].get("kept"))
    return {
        "lr": next(iter(runs.values()))["lr"],
        "seeds": len(runs),
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(runs) > 1 else None,
        "against naive": _p_value(metrics, naive),
        "each": values,
        "seconds": float(np.mean([run["seconds"] for run in runs.values()])),
        "cpu_seconds": float(np.mean([run["cpu_seconds"] for run in runs.values()])),
        "kept": num_kept,
    }


def _p_value(metrics: dict[int, float], naive: dict[int, Run]) -> float | None:
    """Of a paired t-test over the seeds that both arms ran; None if all differences are equal."""
    from scipy.stats import ttest_rel

    seeds = sorted(metrics.keys() & naive.keys())
    if len(seeds) < 2:
        return None
    values = np.array([metrics[seed] for seed in seeds])
    naive_values = np.array([_test_metric(naive[seed]) for seed in seeds])
    if np.ptp(values - naive_values) == 0:
        return None
    return float(ttest_rel(values, naive_values).pvalue)


def _test_metric(run: Run) -> float:
    return float(run[f"test_{run['metric']}"])


def plot_arms(results: dict[str, Any], path: Path) -> None:
    """Plot the arms of each task, mean and deviation over the dots of its seeds, with the baselines as lines."""
    size = (1.5 + 4 * len(results), 3.8)
    with saved_subplots(path, 1, len(results), figsize=size, squeeze=False) as (_, axes):
        for axis, (task, result) in zip(axes[0], results.items(), strict=True):
            arms = result["arms"]
            means = [summary["mean"] for summary in arms.values()]
            sds = [summary["sd"] or 0.0 for summary in arms.values()]
            axis.errorbar(list(arms), means, sds, fmt="_", markersize=16, capsize=4)
            for arm, summary in arms.items():
                axis.plot([arm] * summary["seeds"], summary["each"], "k.", alpha=0.4)
            baselines = list(result["baselines"].items())
            lines = baselines[1:] or baselines  # the mean target only if there is no other
            for (name, value), style in zip(lines, ("--", ":"), strict=False):
                label = f"{name}, {value:.3f}"
                axis.axhline(value, linestyle=style, color="grey", label=label)
            axis.set(title=task, ylabel=f"test {result['metric']}")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
