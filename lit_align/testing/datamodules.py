"""Check of what every data module must satisfy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lit_align.testing.light_imports import require_light_package
from lit_align.testing.objective_checks import call, require
from lit_align.testing.refusals import require_refusal, require_refusals
from lit_align.testing.short_runs import Laboratory, MakeData, MakeStage, Rows, ShortRun, laboratory


def check_datamodule(
    make_data: MakeData,
    make_stage: MakeStage,
    rows: Rows,
    refused: Sequence[MakeData] = (),
) -> None:
    """Fail unless a data module gives the same steps in every run, and the rest of them to a run that goes on.

    The order of the steps may depend on the data, the settings and the epoch, and on nothing that was drawn or read
    before. A run that goes on from a checkpoint in the middle of its second epoch must get the steps that it had not
    had. A file that is empty, or missing, must be refused with a sentence that names it.

    Args:
        make_data: makes the data module, new each time, on the path of a file.
        make_stage: makes a stage that learns from it, new each time, on the `Base` that it is given.
        rows: of the file; enough for two steps in an epoch. Or another file's path.
        refused: make the data module, on the path of a file, with settings that it must refuse.

    Raises:
        AssertionError: if a property does not hold.

    Example:
        >>> from lit_align.data.datamodules import Comparisons
        >>> from lit_align.models.lora import Lora
        >>> from lit_align.objectives.dpo import DPO
        >>> from lit_align.stages.preference import Preference
        >>> check_datamodule(
        ...     lambda file: Comparisons(file, batch_size=1, prepared_cache=None),
        ...     lambda base: Preference(DPO(), base=base, lora=Lora(r=2)),
        ...     [{"prompt": "A bird?", "chosen": bird, "rejected": "No."} for bird in ("Owl.", "Wren.")],
        ...     refused=[lambda file: Comparisons(file, batch_size=0)],
        ... )
    """
    with laboratory(rows) as lab:
        data = make_data(str(lab.file))
        name = type(data).__name__
        require_refusals(name, [partial(make, str(lab.file)) for make in refused])
        _require_datamodule(data)
        _check_steps(data, partial(_train_on, lab, make_stage, make_data, lab.file))
        for kind in ("empty", "missing"):
            path = lab.other_file(kind)
            if kind == "empty":
                path.write_bytes(b"")
            read = partial(_train_on, lab, make_stage, make_data, path)
            require_refusal(name, f"a file that is {kind}", read, names=(path.name,))
    require_light_package(type(data).__module__)


def _train_on(
    lab: Laboratory, make_stage: MakeStage, make_data: MakeData, file: Path, **settings: Any
) -> tuple[ShortRun, Path]:
    return lab.train(make_stage(lab.base), make_data(str(file)), **settings)


def _check_steps(data: object, train: Callable[..., tuple[ShortRun, Path]]) -> None:
    """Fail unless a second run has the steps of the first, and one that goes on has the others."""
    name = type(data).__name__
    first, _ = call(data, train)
    steps = first.steps_in_epoch
    require(
        steps > 1 and len(first.batches) > steps + 1,
        f"{name} gave {steps} steps in an epoch; give check_datamodule rows for two or more",
    )
    again, checkpoint = call(data, partial(train, save_after=steps + 1))
    _require_same(name, "in a second run", again, first.batches)
    resumed, _ = call(data, partial(train, resume=checkpoint))
    _require_same(name, "to a run that goes on in mid-epoch", resumed, first.batches[steps + 1 :])


def _require_datamodule(data: object) -> None:
    from lightning.pytorch import LightningDataModule

    require(
        isinstance(data, LightningDataModule),
        f"{type(data).__name__} is no LightningDataModule; derive it from one, such as TextDataModule",
    )


def _require_same(name: str, condition: str, run: ShortRun, expected: list[str]) -> None:
    require(
        run.batches == expected,
        f"{name} gives other steps {condition} than in the first run; let their order depend on the data, the seed and "
        "the epoch alone",
    )
