"""Check of what every stage must satisfy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.plugin_failures import describe_exception
from lit_align.stages.hparams import plain_value
from lit_align.testing.light_imports import require_light_package
from lit_align.testing.objective_checks import call, require
from lit_align.testing.refusals import require_refusals
from lit_align.testing.short_runs import (
    Laboratory,
    MakeData,
    MakeStage,
    Rows,
    ShortRun,
    laboratory,
    quiet_lightning,
)

if TYPE_CHECKING:
    from torch import Tensor


def check_stage(
    make_stage: MakeStage,
    make_data: MakeData,
    rows: Rows,
    refused: Sequence[MakeStage] = (),
) -> None:
    """Fail unless a stage trains its adapters alone, on a model of two layers, and resumes to the last bit.

    It must change trained parameters and no other weight, with finite losses; do the same in a second run; end with the
    same weights when it goes on from its checkpoint in mid-epoch; and be made again from that checkpoint with the same
    settings. The package that it is in must not import Lightning together with its hooks.

    Args:
        make_stage: makes a stage, new each time, on the `Base` that it is given.
        make_data: makes its data module, new each time, on the path of a file.
        rows: of that file; enough for two steps in an epoch. Or another file's path.
        refused: make the stage, on a `Base`, with settings that it must refuse.

    Raises:
        AssertionError: if a property does not hold.

    Example:
        >>> from lit_align.data.datamodules import Demonstrations
        >>> from lit_align.models.lora import Lora
        >>> from lit_align.objectives.cross_entropy import CrossEntropy
        >>> from lit_align.stages.sft import SFT
        >>> check_stage(
        ...     lambda base: SFT(CrossEntropy(), base=base, lora=Lora(r=2)),
        ...     lambda file: Demonstrations(file, batch_size=1, prepared_cache=None),
        ...     [{"prompt": "Name a bird.", "completion": bird} for bird in ("An owl.", "A wren.")],
        ... )
    """
    with laboratory(rows) as lab:
        stage = make_stage(lab.base)
        name = type(stage).__name__
        require_refusals(name, [partial(make, lab.base) for make in refused])
        data = make_data(str(lab.file))
        whole, checkpoint = call(stage, lambda: lab.train(stage, data, save_after=1))
        require(
            len(whole.batches) > 2 and whole.steps_in_epoch > 1,
            f"{name} was given {whole.steps_in_epoch} steps in an epoch; give check_stage rows for two or more",
        )
        _check_training(name, whole)
        again, _ = call(stage, lambda: lab.train(make_stage(lab.base), make_data(str(lab.file))))
        _require_same(
            f"{name} ends with other weights in a second run", again.trained, whole.trained
        )
        _check_resumption(lab, make_stage, make_data, checkpoint, whole)
        _check_settings(make_stage(lab.base), stage, checkpoint)
    require_light_package(type(stage).__module__)


def _check_training(name: str, run: ShortRun) -> None:
    require(
        bool(run.start), f"{name}.trained_parameters is empty; return the weights that it trains"
    )
    require(
        not run.changed,
        f"{name} changes {', '.join(run.changed[:3])}, which trained_parameters does not name; a base is frozen",
    )
    require(
        any(not run.start[key].equal(weight) for key, weight in run.trained.items()),
        f"{name} changes no trained parameter in {len(run.batches)} steps; its loss needs a gradient, and each step an "
        "update",
    )
    for key, weight in run.trained.items():
        require(
            bool(weight.isfinite().all()), f"{name} leaves {key} with numbers that are not finite"
        )
    require(
        all(map(math.isfinite, run.losses)), f"{name} logs losses that are not finite: {run.losses}"
    )


def _check_resumption(
    lab: Laboratory, make_stage: MakeStage, make_data: MakeData, checkpoint: Path, whole: ShortRun
) -> None:
    stage = make_stage(lab.base)
    name = type(stage).__name__
    resumed, _ = call(stage, lambda: lab.train(stage, make_data(str(lab.file)), resume=checkpoint))
    require(
        resumed.batches == whole.batches[1:],
        f"{name} goes on from the checkpoint after its first batch with other batches than a run without a stop",
    )
    _require_same(
        f"{name} ends with other weights when it goes on from a checkpoint; what it notes about weights belongs into "
        "configure_model, what it counts into saved_counters",
        resumed.trained,
        whole.trained,
    )


def _check_settings(stage: Any, trained: Any, checkpoint: Path) -> None:
    """Make a stage again from a checkpoint, as ``lit_align.load`` does.

    Args:
        stage: made with the same settings, and not trained.
        trained: the same after a run; what the run changed is no setting, whoever restores it.
        checkpoint: of that run.
    """
    name = type(stage).__name__
    try:
        with quiet_lightning():
            loaded = type(stage).load_from_checkpoint(checkpoint, weights_only=True)
    except (Exception, SystemExit) as error:
        raise AssertionError(
            f"{name} cannot be made again from its checkpoint: {describe_exception(error)}; let __init__ name each "
            "setting, with a type"
        ) from error
    made, read = _hyperparameters(stage, loaded), _hyperparameters(loaded, stage)
    differing = sorted(made.keys() ^ read.keys())
    require(
        not differing,
        f"{name} has the hyperparameters {sorted(read)} when it is made again from its checkpoint, and had "
        f"{sorted(made)}; let __init__ name {', '.join(differing)}, with a type",
    )
    before, after, again = map(_plain_attributes, (stage, trained, loaded))
    for attribute, value in before.items():
        if attribute in again and after.get(attribute) == value:
            made.setdefault(attribute, value)
            read.setdefault(attribute, again[attribute])
    for setting in sorted(made):
        require(
            made[setting] == read[setting],
            f"{name} has {setting} {read[setting]!r} when it is made again from its checkpoint, and had "
            f"{made[setting]!r}; let __init__ name each setting, with a type",
        )


def _hyperparameters(stage: Any, other: Any) -> dict[str, Any]:
    """What a checkpoint holds of its settings, except an optimizer, which for one of the two is a parsed function."""
    plain = {name: plain_value(value) for name, value in stage.hparams.items()}
    plain.pop("_instantiator", None)
    for name in [*plain]:
        values = [getattr(side, name, None) for side in (stage, other)]
        if any(callable(value) and plain_value(value) is None for value in values):
            del plain[name]
    return plain


def _plain_attributes(stage: Any) -> dict[str, Any]:
    """Its numbers and texts, which settings are often kept in, except counters."""
    plain = {}
    for name, value in vars(stage).items():
        is_plain = isinstance(value, str | int | float) and not name.startswith("_")
        if is_plain and name != "training" and name not in stage.saved_counters():
            plain[name] = value
    return plain


def _require_same(fault: str, actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    require(actual.keys() == expected.keys(), fault)
    for name, weight in expected.items():
        furthest = (actual[name] - weight).abs().max().item()
        require(actual[name].equal(weight), f"{fault}: {name} differs by {furthest:.3g}")
