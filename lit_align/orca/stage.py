"""Teach a language model to read other data (ORCA: Shen et al., 2023, https://arxiv.org/abs/2302.05738)."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchmetrics import MeanMetric

from lit_align.errors import ConfigError, ModelError
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base, load_model
from lit_align.orca.backbones import Body, Fix, Tuning, body_of
from lit_align.orca.datamodule import CrossModalData, units_of
from lit_align.orca.distances import DatasetDistance
from lit_align.orca.embedders import Embedder
from lit_align.orca.feature_alignment import (
    Cloud,
    FeatureAlignment,
    Sample,
    align,
    cloud,
    folds_of,
    plot_clouds,
    settled,
    tried,
)
from lit_align.orca.heads import Head, measure
from lit_align.orca.label_quantizer import LabelQuantizer, stratified
from lit_align.orca.modalities import InputSpec, Labelled, TargetSpec
from lit_align.orca.source_sets import SourceSet
from lit_align.stages.base import Stage
from lit_align.stages.hparams import plain_value

FIRST = 512  # training examples, about, whose tokens are given the model's moments


class CrossModal(Stage):
    """Train a language model on data that are not text: an embedder makes tokens of them, a head reads the answer.

    Before the first step the tokens are given the moments of the model's own, and ``alignment`` moves them towards
    text, if that helps. Then embedder, head and what ``tune`` says of the model are refined on the targets.

    Args:
        base: the model, which may be an encoder or a vision model.
        embedder: what makes tokens of inputs, such as Patches.
        alignment: how the embedder is brought near text first; null leaves it out.
        tune: what is trained of the model: adapters on it, its norms, all of it, or nothing.
        lora: the adapters.
        layers: keep only the model's first so many; null keeps all.
        attention_mode: how a token of a causal model may know of those behind it.
        pool: what the head reads, the mean of all tokens or the last.
        pretrained: false draws the model's weights anew, to see what they are worth.
        lr_ratio: learning rate of embedder and head over that of the model.
        optimizer: the optimiser and its settings.
        lr_scheduler: the schedule, stepped after each optimiser step.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them alone.
        max_bad_steps: stop after so many steps in a row whose loss or gradient was not finite.
        seed: of new weights, dropout, and what the alignment draws.
    """

    body: Body
    head: Head
    embedder: Embedder

    def __init__(
        self,
        base: Base,
        embedder: Embedder,
        alignment: FeatureAlignment | None = None,
        tune: Tuning = "lora",
        lora: Lora | None = None,
        layers: int | None = None,
        attention_mode: Fix = "none",
        pool: Literal["mean", "last"] = "mean",
        pretrained: bool = True,
        lr_ratio: float = 5.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        max_grad_norm: float = 1.0,
        max_bad_steps: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, max_grad_norm, max_bad_steps, seed)
        self.base, self.embedder, self.alignment, self.tune = base, embedder, alignment, tune
        self.lora, self.layers, self.attention_mode, self.pool = (
            lora or Lora(),
            layers,
            attention_mode,
            pool,
        )
        self.pretrained, self.lr_ratio = pretrained, lr_ratio
        self._made_of = plain_value(embedder)
        self.report: dict[str, Any] = {}
        self.source: SourceSet | None = None  # there while the distance is part of the loss

    # ------------------------------------------------------------------ build

    def check_data(self, data: Any) -> None:
        """Refuse data of another kind.

        Raises:
            ConfigError: naming it.
        """
        if not isinstance(data, CrossModalData):
            raise ConfigError(
                f"CrossModal learns from CrossModalData, not {type(data).__name__}; change one of the two"
            )

    @property
    def tokenizer(self) -> Any:
        """None: whoever asks wants text of it, or a role.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            "a run of CrossModal neither reads text nor answers; use lit-align validate or test"
        )

    adapters = tokenizer

    def configure_model(self) -> None:
        """Load the model, and make embedder and head for the data; called again, or without data, it does nothing."""
        if not hasattr(self, "body") and self._trainer is not None:
            data = self.datamodule
            self._build(data.inputs, data.target, self.trainer.strategy.root_device)

    def _build(
        self, inputs: InputSpec, target: TargetSpec, device: torch.device | None = None
    ) -> None:
        model: Any = load_model(self.base, device, causal=False)
        body = body_of(model, self.layers, self.attention_mode)
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            self.embedder.attach(inputs, body.spec)
            self.head = Head(target, self.embedder, body.spec.d_model, self.pool)
            if not self.pretrained:
                spec, body = (
                    body.spec,
                    body_of(type(model)(model.config).to(model.device), None, self.attention_mode),
                )
                body.spec = spec  # tokens begin the same
        body.tune(self.tune, self.lora, self.seed)
        self.body, self.inputs, self.target = body, inputs, target
        self.to(model.device)
        self.losses, self.metric = MeanMetric(nan_strategy=float("nan")), measure(target)

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Embedder, head, and what is tuned of the body."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def parameter_groups(self) -> list[Any]:
        """What is new, and what is tuned."""
        groups: list[list[torch.nn.Parameter]] = [[], []]
        for name, weight in self.trained_parameters().items():
            groups[name.startswith("body.")].append(weight)
        return [{"params": group} for group in groups if group]

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser, with the larger learning rate for what is new."""
        optimizer = super().make_optimizer()
        optimizer.param_groups[0]["lr"] *= self.lr_ratio
        return optimizer

    # ------------------------------------------------------------------ align

    def on_fit_start(self) -> None:
        """Give tokens the model's moments and align them, unless the run that goes on here did."""
        self.train()
        data, how, resumed = self.datamodule, self.alignment, bool(self.report)
        targets = data.encoded("train")
        self.quantizer = (
            None if self.target.kind == "class" else LabelQuantizer.fit(targets.float())
        )
        if not resumed:
            first = self._sample(
                data, FIRST
            )  # as without an alignment, or refusing one would leave a trace
            self.embedder.init_from(self.body.spec.stats, first.x, first.mask)
            self.report = {"kept": False}
        if how is None or (resumed and not (self.report["kept"] and how.joint)):
            return
        source = how.points(self.body, self.base, self.seed)
        if not resumed:
            self.eval()
            self._align(self._sample(data, how.rows), source, how)
            self.train()
        if how.joint and self.report["kept"]:
            self.source, self.distance = source, settled(how.distance, self.report["before"])

    def _sample(self, data: CrossModalData, rows: int) -> Sample:
        classes = self._classes(data.encoded("train"))
        index = stratified(
            classes, min(rows, len(classes)), torch.Generator().manual_seed(self.seed)
        ).tolist()
        of = torch.unique(classes[index], return_inverse=True)[1]
        there = data.parts["train"].take(index)
        units = units_of(there)
        if len(set(units)) == 1:  # a single speaker is tried by recordings
            units = units_of(there, same=True)
        folds = folds_of(
            units, of.tolist(), self.alignment.folds if self.alignment else 0, self.seed
        )
        batch = data.labelled("train", index)
        return Sample(*(one.to(self.device) for one in (*batch, of, torch.tensor(folds))))

    def _classes(self, y: Tensor) -> Tensor:
        return y if self.quantizer is None else self.quantizer(y.float())

    def _align(self, sample: Sample, source: SourceSet, how: FeatureAlignment) -> None:
        """Align, if it helps, and note what it did."""
        distance: DatasetDistance = replace(how.distance)  # type: ignore[type-var]
        before = cloud(self.embedder, sample, source, distance)
        verdict = (
            tried(self.embedder, self.body, self.head, sample, source, how, distance)
            if how.folds
            else {}
        )
        kept = verdict.get("kept", True)
        was = {name: value.clone() for name, value in self.embedder.state_dict().items()}
        align(self.embedder, sample, source, how, distance)
        after = cloud(self.embedder, sample, source, distance)
        if not kept:
            self.embedder.load_state_dict(was)
        self.report = {"source": source.provenance, "kept": kept, "probe": verdict}
        self.report |= {
            "before": before.figures,
            "after": after.figures,
            "classes": list(self.target.classes),
        }
        self.report["token_norm of the model"] = float(self.body.own().float().norm(dim=-1).mean())
        self._tell(before, after, sample, source)

    def _tell(self, before: Cloud, after: Cloud, sample: Sample, source: SourceSet) -> None:
        told, kept = self.report["probe"], self.report["kept"]
        why = (
            "not asked"
            if not told
            else "loss of the probe {without:.4f} without, {with:.4f} with, error {error:.4f}".format(
                **told
            )
        )
        moved = ", ".join(
            f"{name} {before.figures[name]:.3g} to {after.figures[name]:.3g}"
            for name in ("distance", "fisher", "token_norm")
        )
        rank_zero_info(f"alignment is {'kept' if kept else 'refused'} ({why}); {moved}")
        logged = {f"alignment/{name}": float(value) for name, value in told.items()}
        for when, of in {"before": before.figures, "after": after.figures}.items():
            logged |= {
                f"alignment/{name} {when}": value
                for name, value in of.items()
                if isinstance(value, float)
            }
        for logger in self.trainer.loggers:
            logger.log_metrics(logged, step=0)
        if self.trainer.loggers:
            folder = Path(self.trainer.default_root_dir)
            clouds = {"before alignment": before, f"after, {'kept' if kept else 'refused'}": after}
            plot_clouds(source, clouds, sample.classes, folder / "alignment.png")

    # ------------------------------------------------------------------ refine

    def training_step(self, batch: Labelled, batch_idx: int) -> None:
        """Learn from one batch."""
        embedded = self.embedder(batch.x, batch.mask)
        task = loss = self.head.loss(self.head(self.body(embedded), embedded), batch.y).mean()
        if self.source is not None and self.alignment is not None:
            apart = self.distance(
                self.source.x, self.source.y, embedded.pooled(), self._classes(batch.y)
            ).value
            apart = apart / max(self.report["before"]["distance"], 1e-12)
            loss = task + self.alignment.joint * apart.to(task)
            self.log("distance", apart.detach().float())
        self.manual_backward(loss)
        norm, _ = self.take_step(float(loss.detach()))
        self.log("loss", task.detach(), prog_bar=True)
        self.log_dict({"grad_norm": norm, "skipped_steps": float(self.skipped)})

    def validation_step(self, batch: Labelled, batch_idx: int) -> None:
        """Add a batch to the figures."""
        embedded = self.embedder(batch.x, batch.mask)
        predicted = self.head(self.body(embedded), embedded)
        self.losses.update(self.head.loss(predicted, batch.y))
        self.metric.update(predicted, batch.y)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all batches."""
        self._log_means("eval")

    def on_test_epoch_end(self) -> None:
        """Log the figures of all batches."""
        self._log_means("test")

    def _log_means(self, prefix: str) -> None:
        for name, metric in {"loss": self.losses, self.head.metric: self.metric}.items():
            self.log(f"{prefix}_{name}", metric.compute())
            metric.reset()

    def on_train_end(self) -> None:
        """Write ``summary.json``; the state has been saved."""
        if not self.trainer.loggers:
            return
        metrics = {
            name: float(value) for name, value in sorted(self.trainer.callback_metrics.items())
        }
        folder = Path(self.trainer.default_root_dir)
        found = {
            "base": self.base.path,
            "embedder": self._made_of,
            "steps": self.global_step,
            "alignment": self.report,
        }
        summary = {**found, "skipped_steps": self.skipped, "metrics": metrics}
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        rank_zero_info(
            f"\nIn {folder} are summary.json, metrics.csv"
            f"{' and alignment.png' if self.alignment else ''}; its newest state is checkpoints/last.ckpt.\n"
            f"Next: lit-align test -c {folder}/config.yaml --ckpt_path {folder}/checkpoints/last.ckpt"
        )

    # ------------------------------------------------------------------ what is kept

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained, and what the alignment found."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["alignment"] = self.report

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other data or another model; without data, build what it was made for."""
        if not hasattr(self, "body"):
            made = checkpoint["origin"]
            self._build(InputSpec(**made["inputs"]), TargetSpec(**made["target"]))
        super().on_load_checkpoint(checkpoint)
        self.report = checkpoint["alignment"]

    def compatibility_settings(self) -> dict[str, Any]:
        """What the trained weights mean nothing without."""
        names = ("tune", "layers", "attention_mode", "pool", "pretrained")
        ours = {name: getattr(self, name) for name in names} | {"embedder": self._made_of}
        return {
            "inputs": asdict(self.inputs),
            "target": asdict(self.target),
            "base.path": self.base.path,
            **ours,
        }
