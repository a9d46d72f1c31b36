"""Fine-tune a language model on data of another modality (ORCA: Shen et al., 2023, https://arxiv.org/abs/2302.05738)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchmetrics.aggregation import MeanMetric

from lit_align.errors import ConfigError, ModelError
from lit_align.jsonl import write_json
from lit_align.models.load import Base, load_model
from lit_align.models.lora import Lora
from lit_align.orca.alignment_run import (
    alignment_metrics,
    describe_alignment,
    plot_alignment,
    run_alignment,
    with_saved_epsilon,
)
from lit_align.orca.backbones import AttentionMode, Backbone, Tuning, backbone_for
from lit_align.orca.datamodule import CrossModalData
from lit_align.orca.embedders import Embedder
from lit_align.orca.feature_alignment import AlignmentBatch, FeatureAlignment, sample_batch
from lit_align.orca.heads import METRIC_NAMES, Head, build_metric
from lit_align.orca.label_quantizer import LabelQuantizer
from lit_align.orca.modalities import InputSpec, LabelledBatch, TargetSpec
from lit_align.orca.source_sets import SourceSet
from lit_align.stages.base import Stage
from lit_align.stages.hparams import plain_value
from lit_align.stages.schedule import Schedule

STATS_EXAMPLES = 512  # training examples, about, whose tokens are given the backbone's statistics


class CrossModal(Stage):
    """Fine-tune a language model on data that are not text: an embedder makes tokens, a head predicts the target.

    Before the first step the tokens are given the statistics of the model's own, and ``alignment`` moves them towards
    text, if that helps. Then embedder, head and what ``tune`` selects of the model are trained on the targets.

    Args:
        base: the model, which may be an encoder or a vision model.
        embedder: what turns inputs into tokens, such as Patches.
        alignment: how the embedder's features are first aligned to text; null leaves it out.
        tune: what is trained of the model: lora adapters, its layernorms, all of it, or nothing.
        lora: the adapters.
        layers: use only the model's first so many layers; null uses all.
        attention_mode: how a token of a causal model attends to later ones.
        pool: what the head reads, the mean of all tokens or the last.
        pretrained: false draws random weights for the model, as a baseline.
        lr_ratio: learning rate of embedder and head over that of the model.
        optimizer: the optimiser and its settings.
        schedule: learning rate over the steps of the run; null keeps it constant.
        lr_scheduler: a scheduler of torch, stepped after each update; null with a ``schedule``.
        max_grad_norm: gradients are clipped to this norm; 0 turns clipping off.
        max_bad_steps: stop after so many steps in a row whose loss or gradient was not finite.
        seed: of new weights, dropout, and the samples of the alignment.
    """

    backbone: Backbone
    head: Head

    def __init__(
        self,
        base: Base,
        embedder: Embedder,
        alignment: FeatureAlignment | None = None,
        tune: Tuning = "lora",
        lora: Lora | None = None,
        layers: int | None = None,
        attention_mode: AttentionMode = "none",
        pool: Literal["mean", "last"] = "mean",
        pretrained: bool = True,
        lr_ratio: float = 5.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        schedule: Schedule | None = None,
        max_grad_norm: float = 1.0,
        max_bad_steps: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, max_grad_norm, max_bad_steps, seed, schedule)
        self.base, self.embedder, self.alignment = base, embedder, alignment
        self.tune, self.lora, self.layers = tune, lora or Lora(), layers
        self.attention_mode, self.pool = attention_mode, pool
        self.pretrained, self.lr_ratio = pretrained, lr_ratio
        self._embedder_settings = plain_value(embedder)
        self.alignment_report: dict[str, Any] = {}
        self.source: SourceSet | None = None  # set while the distance is part of the loss

    # ------------------------------------------------------------------ build

    def check_data(self, data: Any) -> None:
        """Require a `CrossModalData`.

        Raises:
            ConfigError: naming the other data module.
        """
        if not isinstance(data, CrossModalData):
            raise ConfigError(
                f"CrossModal trains on CrossModalData, not {type(data).__name__}; change one of the two"
            )

    @property
    def tokenizer(self) -> Any:
        """There is none, and no adapter role either.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            "a CrossModal run neither reads nor generates text; use lit-align validate or test"
        )

    adapters = tokenizer

    def configure_model(self) -> None:
        """Load the model, and build embedder and head for the data; without effect if done before, or without data."""
        if not hasattr(self, "backbone") and self._trainer is not None:
            data = self.datamodule
            self._build(data.inputs, data.target, self.trainer.strategy.root_device)

    def _build(
        self, inputs: InputSpec, target: TargetSpec, device: torch.device | None = None
    ) -> None:
        model: Any = load_model(self.base, device, causal=False)
        backbone = backbone_for(model, self.layers, self.attention_mode)
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            self.embedder.attach(inputs, backbone.spec)
            self.head = Head(target, self.embedder, backbone.spec.d_model, self.pool)
            if not self.pretrained:
                spec = backbone.spec
                random_model = type(model)(model.config).to(model.device)
                backbone = backbone_for(random_model, None, self.attention_mode)
                backbone.spec = spec  # tokens are given the statistics of the pretrained model
        backbone.tune(self.tune, self.lora, self.seed)
        self.backbone, self.inputs, self.target = backbone, inputs, target
        self.to(model.device)
        self.mean_loss = MeanMetric(nan_strategy=float("nan"))
        self.metric = build_metric(target)

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Embedder, head, and what is tuned of the backbone."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def parameter_groups(self) -> list[Any]:
        """Embedder and head, then what is tuned of the backbone."""
        weights = self.trained_parameters().items()
        added = [weight for name, weight in weights if not name.startswith("backbone.")]
        tuned = [weight for name, weight in weights if name.startswith("backbone.")]
        return [{"params": group} for group in (added, tuned) if group]

    @property
    def lr_names(self) -> tuple[str, ...]:
        """The rate of the model is ``lr``; without one that is tuned, that of embedder and head."""
        return ("lr",) if self.tune == "frozen" else ("lr/head", "lr")

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser, with the larger learning rate for embedder and head."""
        optimizer = super().make_optimizer()
        optimizer.param_groups[0]["lr"] *= self.lr_ratio
        return optimizer

    def on_fit_start(self) -> None:
        """Give tokens the backbone's statistics and align them, unless the run that is resumed did."""
        self.train()
        alignment = self.alignment
        targets = self.datamodule.encode_targets("train")
        self.quantizer = None
        if self.target.kind != "class":
            self.quantizer = LabelQuantizer.fit(targets.float())
        is_resumed = bool(self.alignment_report)
        if not is_resumed:
            # the same sample as without an alignment, so that a refused alignment leaves no trace
            batch = self._sample_batch(STATS_EXAMPLES)
            self.embedder.match_stats(self.backbone.spec.stats, batch.x, batch.mask)
            self.alignment_report = {"kept": False}
        if alignment is None:
            return
        if is_resumed and not (self.alignment_report["kept"] and alignment.joint):
            return
        source = alignment.load_source(self.backbone, self.base, self.seed)
        if not is_resumed:
            self.eval()
            self._align(source, alignment)
            self.train()
        if alignment.joint and self.alignment_report["kept"]:
            self.source = source
            self.distance = with_saved_epsilon(alignment.distance, self.alignment_report["before"])

    def _sample_batch(self, rows: int) -> AlignmentBatch:
        folds = self.alignment.folds if self.alignment else 0
        batch = sample_batch(self.datamodule, self.quantizer, rows, folds, self.seed)
        return batch.to(self.device)

    def _classes(self, y: Tensor) -> Tensor:
        """Classes of targets, by the quantizer where they have none."""
        return y if self.quantizer is None else self.quantizer(y.float())

    def _align(self, source: SourceSet, alignment: FeatureAlignment) -> None:
        """Align the embedder if that helps, and report."""
        batch = self._sample_batch(alignment.rows)
        result = run_alignment(self.embedder, self.backbone, self.head, batch, source, alignment)
        self.alignment_report = result.report
        rank_zero_info(describe_alignment(result))
        for logger in self.trainer.loggers:
            logger.log_metrics(alignment_metrics(result.report), step=0)
        if self.trainer.loggers:
            folder = self.run_folder
            plot_alignment(result, source, batch.classes, folder / "alignment.png")

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """One optimiser step on a batch."""
        embedded = self.embedder(batch.x, batch.mask)
        predicted = self.head(self.backbone(embedded), embedded)
        task_loss = loss = self.head.loss(predicted, batch.y).mean()
        if self.source is not None and self.alignment is not None:
            features, classes = embedded.pooled(), self._classes(batch.y)
            distance = self.distance(self.source.x, self.source.y, features, classes).value
            distance = distance / max(self.alignment_report["before"]["distance"], 1e-12)
            loss = task_loss + self.alignment.joint * distance.to(task_loss)
            self.log("distance", distance.detach().float())
        self.manual_backward(loss)
        numbers = [loss.detach(), task_loss.detach(), self.gradient_norm()]
        loss_value, task_loss_value, norm = torch.stack(numbers).tolist()
        self.take_step(loss_value, norm)
        self.log_numbers({"loss": task_loss_value}, prog_bar=True)
        self.log_rates()
        self.log_numbers({"grad_norm": norm, "skipped_steps": float(self.skipped)})

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """Add a batch to the metrics."""
        embedded = self.embedder(batch.x, batch.mask)
        predicted = self.head(self.backbone(embedded), embedded)
        self.mean_loss.update(self.head.loss(predicted, batch.y))
        self.metric.update(predicted, batch.y)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all batches."""
        self.step_on_plateau(self._log_metrics("eval"))

    def validation_names(self) -> list[str]:
        """Names of the metrics of a validation."""
        return ["eval_loss", f"eval_{METRIC_NAMES[self.datamodule.target.kind]}"]

    def on_test_epoch_end(self) -> None:
        """Log the metrics of all batches."""
        self._log_metrics("test")

    def _log_metrics(self, prefix: str) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for name, metric in (("loss", self.mean_loss), (self.head.metric_name, self.metric)):
            values[f"{prefix}_{name}"] = metric.compute()
            metric.reset()
        self.log_dict(values)
        return values

    def on_train_end(self) -> None:
        """Write ``summary.json``; the checkpoint is saved before."""
        if self.trainer.loggers:
            metrics = sorted(self.trainer.callback_metrics.items())
            summary = {
                "base": self.base.path,
                "embedder": self._embedder_settings,
                "steps": self.global_step,
                "alignment": self.alignment_report,
                "skipped_steps": self.skipped,
                "metrics": {name: float(value) for name, value in metrics},
            }
            plots = " and alignment.png" if self.alignment else ""
            write_summary(self.run_folder, summary, plots)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what was trained, and the alignment report."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["alignment"] = self.alignment_report

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other data or another model; without data, build the model that it was saved from."""
        if not hasattr(self, "backbone"):
            origin = checkpoint["origin"]
            self._build(InputSpec(**origin["inputs"]), TargetSpec(**origin["target"]))
        super().on_load_checkpoint(checkpoint)
        self.alignment_report = checkpoint["alignment"]

    def compatibility_settings(self) -> dict[str, Any]:
        """Settings that a checkpoint must match to be loadable."""
        return {
            "inputs": asdict(self.inputs),
            "target": asdict(self.target),
            "base.path": self.base.path,
            "tune": self.tune,
            "layers": self.layers,
            "attention_mode": self.attention_mode,
            "pool": self.pool,
            "pretrained": self.pretrained,
            "embedder": self._embedder_settings,
        }


def write_summary(folder: Path, summary: dict[str, Any], plots: str) -> None:
    """Write ``summary.json``, and print what is in the folder and how to go on."""
    write_json(folder / "summary.json", summary, ascii_only=True)
    rank_zero_info(
        f"\nIn {folder} are summary.json, metrics.csv{plots}; the last checkpoint is checkpoints/last.ckpt.\n"
        f"Next: lit-align test -c {folder}/config.yaml --ckpt_path {folder}/checkpoints/last.ckpt"
    )
