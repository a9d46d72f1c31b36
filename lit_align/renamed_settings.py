"""Settings, classes and modules that have a new name: each old name is refused by a sentence with the new one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_align.errors import ModelError

TEXT_STAGES = ("SFT", "Preference", "RewardModel", "RL")
TEXT_DATA = (
    "Demonstrations",
    "Comparisons",
    "BinaryLabels",
    "Rankings",
    "Ratings",
    "Prompts",
    "Online",
)
WHITENING = ("GAE", "RLOO", "Reinforce")

SETTINGS: dict[tuple[str, ...], dict[str, str]] = {
    TEXT_STAGES: {
        "sft": "init_adapter",
        "checkpointing": "gradient_checkpointing",
    },
    ("RL",): {
        "samples": "num_generations",
        "epochs": "num_iterations",
        "minibatches": "num_minibatches",
        "reduce": "loss_aggregation",
        "no_end": "missing_eos_reward",
        "overlong": "overlong_buffer",
        "stop_kl": "target_kl",
        "show_every": "log_samples_every",
    },
    ("Critic",): {"weight": "vf_coef", "start": "init_from"},
    WHITENING: {"whitens": "whiten"},
    TEXT_DATA: {"max_lost": "max_malformed"},
    ("Online",): {
        "samples": "num_generations",
        "share": "fresh_fraction",
        "pace": "reference_ema",
        "answer": "include_reference_answer",
        "labels": "relabel",
        "reference": "reference_update",
    },
    ("Length",): {"most": "max_words", "least": "min_words"},
    ("RewardModelScore",): {"folder": "path", "doubt": "uncertainty_penalty"},
    ("Judge",): {"by": "model", "doubt": "tie_margin"},
    ("CritiqueRevise", "JudgeScore"): {"by": "model"},
    ("Human",): {"least": "min_gold_accuracy"},
    ("Abstention",): {"middle": "abstain_reward"},
    ("Regression",): {"of": "attributes"},
    ("SLiC",): {"held": "regularize_on"},
    ("Discriminator",): {"labels": "label_budget"},
    ("Tables",): {"leave": "ignore"},
    ("CrossModal",): {"fix": "attention_mode"},
    ("Report",): {"close": "length_tolerance"},
    ("Patches",): {"most": "max_patches"},
    ("lit-align judge",): {"max_lost": "max_malformed", "takes": "label_kind"},
    ("lit-align evaluate reward-bench", "lit-align evaluate win-rate"): {
        "max_lost": "max_malformed"
    },
}
"""Old to new keys of each class, or of a command's own settings. A key is old only in the classes that stand here."""

VALUES = {("Online", "labels"): "refreshed is true, recorded is false"}
"""What an old value is now, where the value of a setting changed with its key."""

CLASSES = {
    "Thumbs": "BinaryLabels",
    "Trained": "RewardModelScore",
    "Exact": "LastNumber",
    "Graded": "JudgeScore",
    "Ranked": "FromReward",
    "Revised": "CritiqueRevise",
    "Served": "OpenAIServer",
    "Local": "LocalModel",
    "AlignmentModule": "LanguageModelStage",
    "AlignmentData": "TextDataModule",
    "Alignment": "FeatureAlignment",
    "KL": "KLControl",
    "Ptx": "PretrainingMix",
    "AnswerWriter": "PredictionWriter",
    "Roles": "AdapterSet",
    "Forward": "TreeForward",
    "Opinion": "FeedbackResult",
}

REUSED = {"Served": "sampler"}
"""Old names that another class has now, and the setting under which it stands."""

MODULES = {
    "lit_align.data.classes": "lit_align.orca.label_quantizer",
    "lit_align.data.cross_modal": "lit_align.orca.datamodule",
    "lit_align.data.modalities": "lit_align.orca.modalities",
    "lit_align.data.modules": "lit_align.data.datamodules",
    "lit_align.feedback.constitution": "lit_align.feedback.critique_revise",
    "lit_align.feedback.human": "lit_align.labelling.feedback",
    "lit_align.feedback.local": "lit_align.judges.local_model",
    "lit_align.feedback.ranked": "lit_align.feedback.from_reward",
    "lit_align.feedback.served": "lit_align.judges.openai_server",
    "lit_align.online": "lit_align.online.datamodule",
    "lit_align.orca.bodies": "lit_align.orca.backbones",
    "lit_align.rewards.exact": "lit_align.rewards.last_number",
    "lit_align.rewards.trained": "lit_align.rewards.reward_model",
    "lit_align.stages.alignment": "lit_align.orca.feature_alignment",
    "lit_align.stages.answers": "lit_align.callbacks.predictions",
    "lit_align.stages.critic": "lit_align.rl.critic",
    "lit_align.stages.cross_modal": "lit_align.orca.stage",
    "lit_align.stages.displacement": "lit_align.callbacks.likelihood_displacement",
    "lit_align.stages.kl": "lit_align.rl.kl_control",
    "lit_align.stages.ptx": "lit_align.rl.pretraining_mix",
    "lit_align.stages.report": "lit_align.callbacks.report",
    "lit_align.stages.rl": "lit_align.rl.stage",
}
"""Old to new modules of classes that a YAML or a checkpoint may name."""

CLASS_KEYS = {"model", "data", "reward", "rewards", "feedback", "by", "callbacks"}
"""Settings whose value may be the short name of a renamed class."""

FIXED_CLASSES = {("RL", "critic"): "Critic"}
"""Settings with old keys of their own whose class is never written, because only one fits."""


class RenamedSettings:
    """Collects old names in settings that arrive in several parts, such as a YAML and options that overlay it.

    Args:
        command: whose own settings are at the top; a name of ``SETTINGS``, or another one.

    Example:
        >>> renamed = RenamedSettings()
        >>> renamed.add({"model": {"class_path": "RL", "init_args": {"samples": 4}}})
        >>> renamed.add({"model": {"no_end": 0.0}})
        >>> for sentence in renamed.sentences:
        ...     print(sentence)
        model.samples is now called num_generations; rename it
        model.no_end is now called missing_eos_reward; rename it
    """

    def __init__(self, command: str = "") -> None:
        self.sentences: list[str] = []
        self._classes = {"": command}  # path -> short name of the class there

    def add(self, value: Any, path: str = "") -> None:
        """Look through one part, nested as in a YAML.

        Args:
            value: the settings at ``path``.
            path: dotted, without ``init_args``.
        """
        if isinstance(value, list):
            for item in value:
                self.add(item, path)
        elif isinstance(value, str):
            if value.startswith("lit_align.") or self._may_be_short_name(path):
                self._check_class(path, value)
            self._set_class(path, value)  # if it is the name of a class, its settings may follow
        elif isinstance(value, dict):
            if "class_path" in value:
                self._check_class(path, str(value["class_path"]))
                self._set_class(path, str(value["class_path"]))
            for key, setting in flatten_block(value):
                self._check_key(path, key)
                self.add(setting, f"{path}.{key}".lstrip("."))

    def _may_be_short_name(self, path: str) -> bool:
        parent, _, key = path.rpartition(".")
        return key in CLASS_KEYS and self._classes.get(parent) != "OpenAIServer"

    def _set_class(self, path: str, class_path: str) -> None:
        """Record the class at ``path``, by its new name if it is one of this package."""
        module, _, name = class_path.rpartition(".")
        is_ours = not module or module.startswith("lit_align.")
        is_ours &= not _is_reused(path, name)
        self._classes[path] = CLASSES.get(name, name) if is_ours else class_path

    def _check_class(self, path: str, class_path: str) -> None:
        """Note the new name of a class that has an old one at ``path``."""
        if not _is_reused(path, class_path.rpartition(".")[2]):
            self._note(renamed_class(class_path))

    def _check_key(self, path: str, key: str) -> None:
        """Note the new name of a key that is old in the class at ``path``."""
        cls = self._class_at(path)
        if new_key := renamed_key(cls, key):
            values = VALUES.get((cls, key))
            hint = f", and {values}" if values else ""
            full_key = f"{path}.{key}".lstrip(".")
            self._note(f"{full_key} is now called {new_key}{hint}; rename it")

    def _class_at(self, path: str) -> str:
        parent, _, key = path.rpartition(".")
        fixed = FIXED_CLASSES.get((self._classes.get(parent, ""), key), "")
        return self._classes.get(path, fixed)

    def _note(self, sentence: str | None) -> None:
        if sentence and sentence not in self.sentences:
            self.sentences.append(sentence)


def _is_reused(path: str, name: str) -> bool:
    """Whether an old name is that of another class at the setting ``path``."""
    return path.rpartition(".")[2] == REUSED.get(name)


def flatten_block(block: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values of a class's settings, whether or not they are under ``init_args``."""
    for key, value in block.items():
        if key in ("init_args", "dict_kwargs"):
            if isinstance(value, dict):
                yield from flatten_block(value)
        elif key != "class_path":
            yield str(key), value


def renamed_key(cls: str, key: str) -> str | None:
    """The new name of a key of a class or command; None if it is not old there."""
    for classes, keys in SETTINGS.items():
        if cls in classes and key in keys:
            return keys[key]
    return None


def renamed_class(class_path: str) -> str | None:
    """A sentence with the new name of a class of this package, short or with its module; None if it is not old."""
    module, _, name = class_path.rpartition(".")
    if module and not module.startswith("lit_align."):
        return None  # a class of another package
    if name in CLASSES:
        return f"the class {name} is now called {CLASSES[name]}; rename it"
    package, _, submodule = module.rpartition(".")
    if module in MODULES:
        return f"{class_path} is now called {MODULES[module]}.{name}; rename it"
    if package == "lit_align.data.modalities":
        return f"{class_path} is now called {MODULES[package]}.{submodule}.{name}; rename it"
    return None


def refuse_renamed_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint whose stage or settings have other names by now.

    Args:
        path: of the checkpoint.
        checkpoint: its content; Lightning keeps the stage's class and settings in ``hyper_parameters``.

    Raises:
        ModelError: with the new names.
    """
    hparams = dict(checkpoint["hyper_parameters"])
    class_path = hparams.pop("_class_path")
    renamed = RenamedSettings()
    renamed.add({"model": {"class_path": class_path, "init_args": hparams}})
    if renamed.sentences:
        changes = ", and ".join(
            sentence.removesuffix("; rename it") for sentence in renamed.sentences
        )
        raise ModelError(
            f"{path} was written with other names: {changes}; load it with the version that wrote it"
        )
