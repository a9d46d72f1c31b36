"""The setting here for each setting of a TRL run: the table on its page, and what is said of a key that is TRL's."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One setting of TRL and its equivalent.

    Args:
        trl: names of TRL's settings, with values to try.
        settings: dotted keys here, with equivalent values.
        note: shown in the table.
        only: the kinds of run that have it; empty for all.
        is_joint: whether all the names together make all the settings, rather than each its own.
        own: the setting that a name has where neither its position nor all settings together say it.
    """

    trl: dict[str, Any]
    settings: dict[str, Any]
    note: str = ""
    only: tuple[str, ...] = ()
    is_joint: bool = False
    own: Mapping[str, str] = MappingProxyType({})

    def settings_of(self, name: str) -> list[str]:
        """The dotted keys that one of the names stands for."""
        if name in self.own:
            return [self.own[name]]
        keys = [key for key in self.settings if not key.endswith("class_path")]
        if self.is_joint:
            return keys
        for candidates in ([*self.settings], keys):
            if len(candidates) == len(self.trl):
                return [candidates[[*self.trl].index(name)]]
        return keys or [*self.settings]


OBJECTIVE = "model.init_args.objective"
ADVANTAGE = "model.init_args.advantage"
INIT = "model.init_args"
DATA = "data.init_args"

ROWS = [
    Row({"model_name_or_path": "a/model"}, {f"{INIT}.base.path": "a/model"}),
    Row(
        {"load_in_4bit": True},
        {f"{INIT}.base.quantization": "nf4"},
        "the default; none for an unquantized base",
    ),
    Row({"dtype": "bfloat16"}, {f"{INIT}.base.dtype": "bfloat16"}),
    Row(
        {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0},
        {f"{INIT}.lora.r": 16, f"{INIT}.lora.alpha": 32, f"{INIT}.lora.dropout": 0.0},
    ),
    Row(
        {"dataset_name": "rows.jsonl"},
        {f"{DATA}.train": "rows.jsonl"},
        "files or hub names; the format is detected",
    ),
    Row(
        {"max_length": 512},
        {f"{DATA}.max_length": 512},
        "overlong decides what happens to longer rows; each is counted",
        ("DPO", "KTO", "SFT"),
    ),
    Row(
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8},
        {f"{DATA}.batch_size": 32, f"{DATA}.token_budget": 4096},
        "what one step learns from, all GPUs together; and what is in memory at once",
        is_joint=True,
    ),
    Row(
        {"learning_rate": 1e-5},
        {
            f"{INIT}.optimizer.class_path": "torch.optim.AdamW",
            f"{INIT}.optimizer.init_args.lr": 1e-5,
        },
    ),
    Row(
        {"lr_scheduler_type": "cosine", "warmup_steps": 0.1},
        {f"{INIT}.schedule.shape": "cosine", f"{INIT}.schedule.warmup": 0.1},
        "the same values at each step; without a schedule the rate is constant, over there linear",
    ),
    Row({"report_to": "tensorboard"}, {"trainer.logger": "tensorboard"}),
    Row({"max_grad_norm": 1.0}, {f"{INIT}.max_grad_norm": 1.0}),
    Row({"gradient_checkpointing": True}, {f"{INIT}.gradient_checkpointing": True}),
    Row({"num_train_epochs": 2}, {"trainer.max_epochs": 2}),
    Row({"max_steps": 100}, {"trainer.max_steps": 100}),
    Row({"logging_steps": 10}, {"trainer.log_every_n_steps": 10}),
    Row({"eval_steps": 50}, {"trainer.val_check_interval": 50}),
    Row({"save_steps": 50}, {"save_every": 50}),
    Row({"output_dir": "runs/mine"}, {"run": "runs/mine"}, "each run gets a number in it"),
    Row({"seed": 3}, {f"{INIT}.seed": 3, f"{DATA}.seed": 3}),
    Row(
        {"loss_type": "sigmoid", "beta": 0.2},
        {f"{OBJECTIVE}.class_path": "DPO", f"{OBJECTIVE}.init_args.beta": 0.2},
        "ipo is IPO with length_average: true, hinge is SLiC with relative and weight 0, [sigmoid, sft] is Mix",
        ("DPO",),
    ),
    Row(
        {"label_smoothing": 0.1},
        {f"{INIT}.label_noise": 0.1},
        "for any objective over pairs or binary labels",
        ("DPO",),
    ),
    Row(
        {"precompute_ref_log_probs": True},
        {f"{INIT}.cache_reference": ".cache/reference"},
        "a folder, shared by all runs with the same model and data; without it, later epochs of a run on one process "
        "read the first's numbers, up to 64 MiB",
        ("DPO", "KTO"),
    ),
    Row(
        {"beta": 0.2, "desirable_weight": 1.0, "undesirable_weight": 1.5},
        {
            f"{OBJECTIVE}.class_path": "KTO",
            f"{OBJECTIVE}.init_args.beta": 0.2,
            f"{OBJECTIVE}.init_args.desirable_weight": 1.0,
            f"{OBJECTIVE}.init_args.undesirable_weight": 1.5,
        },
        "the data module BinaryLabels; any batch size, shuffled",
        ("KTO",),
    ),
    Row(
        {"loss_type": "nll"},
        {f"{OBJECTIVE}.class_path": "CrossEntropy"},
        "dft is DFT; only assistant turns are learned, always",
        ("SFT",),
    ),
    Row(
        {"step_separator": "\n"},
        {f"{DATA}.step_separator": "\n"},
        "the data module Steps with the stage ProcessRewardModel; TRL has PRMTrainer until 1.13",
        ("PRM",),
    ),
    Row(
        {"train_on_last_step_only": True},
        {f"{DATA}.learned_steps": "last"},
        "in validation too, where TRL looks at all steps",
        ("PRM",),
    ),
    Row(
        {"loss_type": "grpo"},
        {f"{OBJECTIVE}.class_path": "PPO", f"{INIT}.loss_aggregation": "sequence"},
        "dapo, its default, and bnpo are token, dr_grpo is constant; cispo is CISPO, sapo and vespo are SAPO and VESPO "
        "of lit-align-zoo, luspo is ratio: sequence with constant",
        ("GRPO",),
        is_joint=True,
    ),
    Row(
        {"epsilon": 0.2, "epsilon_high": 0.28, "delta": 4.0, "importance_sampling_level": "token"},
        {
            f"{OBJECTIVE}.init_args.clip": 0.2,
            f"{OBJECTIVE}.init_args.clip_high": 0.28,
            f"{OBJECTIVE}.init_args.dual_clip": 4.0,
            f"{OBJECTIVE}.init_args.ratio": "token",
        },
        "sequence is GSPO",
        ("GRPO",),
    ),
    Row(
        {"beta": 0.04},
        {f"{INIT}.kl.coefficient": 0.04, f"{INIT}.kl.where": "loss", f"{INIT}.kl.estimator": "k3"},
        "over there 0 by default",
        ("GRPO",),
        is_joint=True,
        own={"beta": f"{INIT}.kl.coefficient"},
    ),
    Row(
        {"num_generations": 8, "num_iterations": 2, "temperature": 0.9},
        {
            f"{INIT}.num_generations": 8,
            f"{INIT}.num_iterations": 2,
            f"{INIT}.temperature": 0.9,
        },
        only=("GRPO",),
    ),
    Row({"max_completion_length": 256}, {f"{INIT}.max_new_tokens": 256}, only=("GRPO",)),
    Row(
        {"scale_rewards": "group"},
        {f"{ADVANTAGE}.class_path": "GRPO", f"{ADVANTAGE}.init_args.std": True},
        "none is std: false, batch is BatchGRPO of lit-align-zoo",
        ("GRPO",),
    ),
    Row(
        {"mask_truncated_completions": True},
        {f"{INIT}.mask_truncated": True},
        "off by default, as over there",
        ("GRPO",),
    ),
    Row(
        {
            "use_adaptive_entropy": True,
            "entropy_coef": 0.01,
            "entropy_target": 0.3,
            "entropy_coef_delta": 0.01,
            "entropy_coef_max": 0.5,
        },
        {
            f"{INIT}.entropy_bonus.coefficient": 0.01,
            f"{INIT}.entropy_bonus.target": 0.3,
            f"{INIT}.entropy_bonus.step": 0.01,
            f"{INIT}.entropy_bonus.limit": 0.5,
        },
        "it moves once an iteration, and is weighted as loss_aggregation has it; without a target it is fixed",
        ("GRPO",),
        is_joint=True,
        own={
            "use_adaptive_entropy": f"{INIT}.entropy_bonus.target",
            "entropy_coef": f"{INIT}.entropy_bonus.coefficient",
            "entropy_target": f"{INIT}.entropy_bonus.target",
            "entropy_coef_delta": f"{INIT}.entropy_bonus.step",
            "entropy_coef_max": f"{INIT}.entropy_bonus.limit",
        },
    ),
]

ALTERNATIVES = [
    Row(
        {"top_entropy_quantile": 0.2},
        {
            f"{ADVANTAGE}.class_path": "TopEntropy",
            f"{ADVANTAGE}.init_args.share": 0.2,
            f"{ADVANTAGE}.init_args.advantage.class_path": "GRPO",
        },
        "the share that learns; the quantile is over an iteration, over there over a micro-batch",
        ("GRPO",),
        is_joint=True,
    ),
    Row(
        {"multi_objective_aggregation": "normalize_then_sum", "reward_weights": [1.0]},
        {
            f"{ADVANTAGE}.class_path": "GDPO",
            f"{ADVANTAGE}.init_args.weights": {"LastNumber": 1.0},
        },
        "the weight of each part of a Weighted reward, by name; sum_then_normalize is GRPO on Weighted",
        ("GRPO",),
        is_joint=True,
        own={"multi_objective_aggregation": f"{ADVANTAGE}.class_path"},
    ),
    Row(
        {"beta": 0.5, "teacher_model_name_or_path": "a/teacher"},
        {
            f"{OBJECTIVE}.class_path": "GKD",
            f"{OBJECTIVE}.init_args.beta": 0.5,
            f"{INIT}.reward.class_path": "Teacher",
            f"{INIT}.reward.init_args.role": "other",
            f"{INIT}.reward.init_args.base.path": "a/teacher",
            f"{ADVANTAGE}.class_path": "ReverseKL",
        },
        "the default is 1 over there, the reverse KL divergence",
        ("Distillation",),
        is_joint=True,
        own={
            "beta": f"{OBJECTIVE}.init_args.beta",
            "teacher_model_name_or_path": f"{INIT}.reward.init_args.base.path",
        },
    ),
]
"""Rows that take the place of others in a run."""

CLASSES = {
    "DPO": {"model.class_path": "Preference", "data.class_path": "Comparisons"},
    "KTO": {"model.class_path": "Preference", "data.class_path": "BinaryLabels"},
    "SFT": {"model.class_path": "SFT", "data.class_path": "Demonstrations"},
    "GRPO": {
        "model.class_path": "RL",
        "data.class_path": "Prompts",
        f"{INIT}.reward.class_path": "LastNumber",
    },
}

EARLIER_CLASSES = {
    "PRM": {
        "model.class_path": "ProcessRewardModel",
        f"{OBJECTIVE}.class_path": "StepCrossEntropy",
        "data.class_path": "Steps",
    },
}
"""Kinds of run that the newest TRL no longer has."""


def rows_of(kind: str) -> list[Row]:
    """The settings of a kind of run."""
    return [row for row in ROWS if not row.only or kind in row.only]


def nested(dotted: dict[str, Any]) -> dict[str, Any]:
    """A YAML's content from dotted keys."""
    settings: dict[str, Any] = {}
    for key, value in dotted.items():
        block = settings
        *path, last = key.split(".")
        for part in path:
            block = block.setdefault(part, {})
        block[last] = value
    return settings


def table() -> str:
    """As Markdown."""
    lines = ["| TRL | here | |", "|---|---|---|"]
    for row in [*ROWS, *ALTERNATIVES]:
        trl = ", ".join(f"`{name}`" for name in row.trl)
        settings = ", ".join(f"`{_short(key, value)}`" for key, value in row.settings.items())
        lines.append(
            f"| {trl}{f' ({row.only[0]})' if len(row.only) == 1 else ''} | {settings} | {row.note} |"
        )
    return "\n".join(lines)


def _short(key: str, value: Any) -> str:
    return f"{_path(key)}: {value}" if key.endswith("class_path") else _path(key)


def _path(key: str) -> str:
    return key.replace(".init_args", "").removesuffix(".class_path")


def translation(name: str, kind: str = "") -> str | None:
    """What a setting of TRL is called here; None if it is none of the table.

    Args:
        name: of the setting.
        kind: of run; if it is not known, all settings are named, with the kinds that have them.

    Example:
        >>> translation("lora_alpha"), translation("per_device_train_batch_size"), translation("betta")
        ('model.lora.alpha', 'data.batch_size and data.token_budget', None)
        >>> translation("beta", "GRPO"), translation("loss_type", "DPO")
        ('model.kl.coefficient', 'model.objective')
        >>> translation("loss_type")
        'model.objective (DPO, SFT) or model.loss_aggregation (GRPO)'
    """
    rows = [row for row in [*ROWS, *ALTERNATIVES] if name in row.trl]
    rows = [row for row in rows if kind in row.only] or rows
    kinds: dict[str, list[str]] = {}
    for row in rows:
        keys = " and ".join(map(_path, row.settings_of(name)))
        kinds.setdefault(keys, []).extend(row.only)
    if len(kinds) < 2:
        return next(iter(kinds), None)
    return " or ".join(f"{keys} ({', '.join(names)})" for keys, names in kinds.items())
