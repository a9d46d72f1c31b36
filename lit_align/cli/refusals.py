"""Settings of a run that are refused: they would be ignored, or done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from lit_align.errors import ConfigError

PRECISIONS = ("None", "32", "32-true", "bf16", "bf16-mixed")
"""The others convert the adapter and the base's buffers, so that an update vanishes in rounding, or scale gradients
before their norm is measured."""


STRATEGIES = (
    *("auto", "single_device", "SingleDeviceStrategy", "DDPStrategy"),
    *("sharded_base", "ShardedBase"),
)
"""And all whose name begins with ddp. The others give each process a share of what is trained and its gradients, which
are summed here as if each had them all."""


class Refusal(NamedTuple):
    """One setting that may be refused.

    Args:
        setting: dotted key.
        refuses: whether a value is refused.
        sentence: with ``{setting}`` and ``{value}``.
    """

    setting: str
    refuses: Callable[[Any], bool]
    sentence: str


def _is_below_one(value: int | None) -> bool:
    return value is not None and value < 1


def _is_missing_file(path: str | None) -> bool:
    return bool(path) and "://" not in str(path) and not Path(str(path)).exists()


def _is_seed(value: Any) -> bool:
    return value is not None and value is not False


def _is_other_precision(value: Any) -> bool:
    return str(value) not in PRECISIONS


def _is_other_strategy(value: Any) -> bool:
    """Whether each process would hold less than all adapters, by the strategy's name or its class."""
    name = str(getattr(value, "class_path", value)).rpartition(".")[2]
    return name not in STRATEGIES and name.partition("_")[0] != "ddp"


REFUSALS = (
    Refusal(
        "save_every", _is_below_one, "{setting} is {value}; it is a number of steps, at least 1"
    ),
    Refusal(
        "trainer.log_every_n_steps",
        _is_below_one,
        "{setting} is {value}; it is a number of steps, at least 1",
    ),
    Refusal(
        "trainer.val_check_interval",
        lambda value: value == 0,
        "{setting} is {value}; give a number of steps, or a share of an epoch such as 0.5, or leave it out",
    ),
    Refusal(
        "ckpt_path",
        _is_missing_file,
        "there is no checkpoint {value}; give the path of one after --{setting}",
    ),
    Refusal(
        "seed_everything",
        _is_seed,
        "{setting} is {value}; leave it out and set model.seed (of initial adapter weights, dropout and sampling) "
        "and data.seed (of the order of steps)",
    ),
    Refusal(
        "trainer.accumulate_grad_batches",
        lambda value: value != 1,
        "{setting} is {value}; leave it out: data.batch_size is the number of rows in one step, and data.token_budget "
        "splits it into what fits in memory",
    ),
    Refusal(
        "trainer.gradient_clip_val",
        lambda value: value is not None,
        "{setting} is {value}; set max_grad_norm of the model instead, which clips the gradient of the whole step",
    ),
    Refusal(
        "trainer.strategy",
        _is_other_strategy,
        "{setting} is {value}; leave it out for one GPU, or set ddp: a step's gradient is the sum over whole copies of "
        "the adapters, which other strategies divide among processes; sharded_base divides the base alone, which may "
        "then be larger than a card",
    ),
    Refusal(
        "trainer.precision",
        _is_other_precision,
        "{setting} is {value}; leave it out: model.base.dtype is the precision of the computation, and the adapter "
        "stays in float32",
    ),
)


def refuse_settings(config: Namespace) -> None:
    """Check the settings of a run against the table.

    Raises:
        ConfigError: with the sentence of the first one that is refused.
    """
    for setting, refuses, sentence in REFUSALS:
        value = config[setting]
        if refuses(value):
            shown = getattr(value, "class_path", value)
            raise ConfigError(sentence.format(setting=setting, value=shown))
