"""What every stage shares: the roles, one exact optimiser step, metrics, checkpoints."""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection

from lit_align.callbacks.predictions import ask, records
from lit_align.errors import ConfigError, ModelError
from lit_align.memory.model import explain_out_of_memory
from lit_align.models.adapter_files import lora_settings, save_adapter
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.models.tree_forward import TreeForward
from lit_align.objectives import Objective
from lit_align.plugins import load_plugins
from lit_align.stages.base import Stage
from lit_align.stages.best_of import BestOf
from lit_align.stages.checkpoints import SafeIO
from lit_align.stages.preference_losses import Sums
from lit_align.types import Batch, Step, Tree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.data.formats import Format


class LanguageModelStage(Stage):
    """One stage of alignment: an objective, and the roles on one frozen base that it trains.

    One training step is one optimiser step. It runs over the step's micro-batches, each within the token budget, and
    divides by the count of the whole step: the loss and its gradient do not depend on the budget or the number of
    processes.

    Args:
        objective: the loss to make smaller, by its name.
        base: the model to align, frozen.
        lora: the adapter to train on it.
        init_adapter: folder of a PEFT adapter to start from; the reference is then a frozen copy of it.
        chat_template: "chatml", a Jinja file, or null for the tokenizer's own.
        optimizer: the optimiser and its settings.
        lr_scheduler: the schedule, stepped after each optimiser step.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them alone.
        gradient_checkpointing: recompute activations in the backward pass: a third more compute for far less memory.
        max_bad_steps: stop after so many steps in a row whose loss or gradient was not finite.
        max_new_tokens: longest answer that ``predict`` writes.
        temperature: of ``predict``'s sampling; 0 takes the likeliest token.
        best_of: sample several answers to each prompt, and keep the one that a reward prefers.
        seed: of the adapter's initial weights, dropout and sampling.

    Class attributes:
        validated: what is measured in validation; the loss and ``reports`` if empty.
    """

    validation_metrics: ClassVar[tuple[str, ...]] = ()
    attributes: Sequence[str] = ()  # the ratings that are trained on

    def __init__(
        self,
        objective: Objective,
        base: Base,
        lora: Lora,
        init_adapter: str | None = None,
        chat_template: str | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        max_grad_norm: float = 1.0,
        gradient_checkpointing: bool = True,
        max_bad_steps: int = 3,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        best_of: BestOf | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, max_grad_norm, max_bad_steps, seed)
        self.objective, self.base, self.lora, self.init_adapter, self.chat_template = (
            objective,
            base,
            lora,
            init_adapter,
            chat_template,
        )
        self.gradient_checkpointing, self.max_new_tokens = gradient_checkpointing, max_new_tokens
        self.temperature, self.best_of = temperature, best_of
        self.num_answered = 0  # prompts that a stopped run of predict got to
        if best_of is not None and best_of.n > 1 and temperature == 0:
            raise ConfigError(
                f"best_of.n is {best_of.n} and temperature 0, so all answers would be alike; set temperature"
            )
        self._adapters: AdapterSet | None = None
        self.tokens_seen = 0
        # NaN is kept: means of what is left would look sound. ("disable", made for that, forgets the weights.)
        means: dict[str, Metric | MetricCollection] = {
            name: MeanMetric(nan_strategy=float("nan"))
            for name in self.validation_metrics or ("loss", *self.metric_names)
        }
        self.validation = MetricCollection(means, prefix="eval_")
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._tree_forward: TreeForward | None = None

    # ------------------------------------------------------------------ what a stage defines

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Metrics that ``losses`` reports, in a fixed order so that ranks without data agree."""

    @abstractmethod
    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, Sums]:
        """Summed loss of one micro-batch, and sums of its metrics."""

    @abstractmethod
    def loss_denominator(self, step: Step) -> int:
        """What a step's summed loss is divided by: scored tokens or labels, of all ranks together."""

    def after_step(self, metrics: dict[str, float], sums: dict[str, tuple[float, float]]) -> None:
        """Look at the means of a step, and the sums and counts behind them, all ranks together; may add metrics."""

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The adapters, and their heads."""
        return {f"_adapters.{name}": weight for name, weight in self.adapters.trainable().items()}

    @property
    def trained_roles(self) -> tuple[str, ...]:
        """The adapters to train."""
        return ("policy",)

    @property
    def head_sizes(self) -> dict[str, int]:
        """Outputs of the score head of each adapter that has one."""
        return {}

    # ------------------------------------------------------------------ model

    @property
    def adapters(self) -> AdapterSet:
        """The base and the roles on it; only once the model is configured."""
        if self._adapters is None:
            raise ModelError(f"{type(self).__name__} has no model yet; configure_model() loads it")
        return self._adapters

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer with the chosen chat template; needs no weights."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.base, self.chat_template)
        return self._tokenizer

    @property
    def tree_forward(self) -> TreeForward:
        """How the base reads packed trees; only once the model is configured."""
        if self._tree_forward is None:
            raise ModelError(f"{type(self).__name__} has no model yet; configure_model() loads it")
        return self._tree_forward

    @property
    def mismatched(self) -> bool:
        """Whether each prompt also needs a response to another prompt."""
        return False

    @property
    def block_sparse(self) -> bool:
        """Whether attention skips what is not seen, so that trees belong into one long row."""
        return self.base.attention == "flex_attention"

    def formats(self) -> list[Format]:
        """Formats of rows to choose from, plugins' included; those that need settings must be named in the YAML."""
        return load_plugins().formats.default_instances()

    def check_data(self, data: Any) -> None:
        """Refuse a data module that carries another label than the objective takes.

        Raises:
            ConfigError: naming both.
        """
        label_kind = getattr(data, "label_kind", self.objective.label_kind)
        if label_kind not in (self.objective.label_kind, "responses"):
            raise ConfigError(
                f"{type(self.objective).__name__} learns from {self.objective.label_kind}, and the data module "
                f"{type(data).__name__} carries {label_kind}; change one of the two"
            )

    def configure_model(self) -> None:
        """Load the base and put the roles on it; called again by validate and test, it does nothing."""
        if self._adapters is not None:
            return
        model = load_model(self.base, self._destination())
        more = {
            "init_adapter": self.init_adapter,
            "seed": self.seed,
            "gradient_checkpointing": self.gradient_checkpointing,
            "trained_roles": self.trained_roles,
            "head_sizes": self.head_sizes,
        }
        self._adapters = AdapterSet(model, self.lora, **more)
        self._tree_forward = TreeForward(self._adapters.model)
        self._tree_forward.check()

    def _destination(self) -> torch.device | None:
        """Where the trainer will want the model; loading it elsewhere first would need room twice."""
        return self.trainer.strategy.root_device if self._trainer is not None else None

    # ------------------------------------------------------------------ one step

    def on_fit_start(self) -> None:
        """Put the model in train mode: Lightning leaves it as it was loaded, and checkpointing would be off."""
        self.adapters.peft.train()
        if isinstance(self.trainer.strategy.checkpoint_io, SafeIO):
            self.trainer.strategy.checkpoint_io.beside = self.save_adapter

    def training_step(self, step: Step, batch_idx: int) -> None:
        """Learn from one step, if there is anything in it."""
        if step.groups:
            # asked of Lightning, which counts over epochs: other steps' figures would be logged as this one's
            metrics, norm = self.update(
                step, cast(Any, self.trainer)._logger_connector.should_update_logs
            )
            self.log_step(step, metrics, norm)

    def update(self, step: Step, statistics: bool) -> tuple[dict[str, float], Tensor]:
        """Sum over the micro-batches, divide by the global count, update once; the metrics and the gradient's norm."""
        count = self.loss_denominator(step)
        totals: Sums = defaultdict(
            lambda: (torch.zeros((), device=self.device), torch.zeros((), device=self.device))
        )
        block = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)
        for batch in step.batches:
            # ranks hold different numbers of micro-batches: gradients are summed over ranks once, below
            with block(), self.out_of_memory_advice(batch):
                loss, sums = self.losses(batch, statistics)
                self.manual_backward(loss / count)
            for name, (total, n) in {
                "loss": (loss.detach(), torch.zeros_like(loss)),
                **sums,
            }.items():
                totals[name] = (totals[name][0] + total.detach().float(), totals[name][1] + n)
        reduced = self._reduced(totals, count)
        metrics = {name: total / n for name, (total, n) in reduced.items() if n}
        self._sum_over_ranks(list(self.trained_parameters().values()))
        norm, taken = self.take_step(metrics["loss"])
        if taken:
            self.after_step(metrics, reduced)
        return metrics, norm

    def out_of_memory_advice(self, batch: Batch) -> AbstractContextManager[None]:
        """Says which settings would have made it fit when memory runs out."""
        return explain_out_of_memory(
            self.adapters, self.base, self.lora, batch.trees, self.gradient_checkpointing
        )

    def _reduced(self, totals: Sums, count: int) -> dict[str, tuple[float, float]]:
        """Sums and counts of the whole step, all micro-batches and ranks together."""
        names = ("loss", *self.metric_names)
        flat = torch.stack([value for name in names for value in totals[name]])
        flat = self.trainer.strategy.reduce(flat, reduce_op="sum")
        values = {
            name: (total, n)
            for name, (total, n) in zip(names, flat.view(-1, 2).tolist(), strict=True)
        }
        return {
            **values,
            "loss": (values["loss"][0], count),
        }  # the mean of the step, whatever this rank held of it

    def _sum_over_ranks(self, parameters: list[torch.nn.Parameter]) -> None:
        if self.trainer.world_size > 1:  # a rank that had nothing to do adds zeros
            flat = torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
            )
            flat = self.trainer.strategy.reduce(flat, reduce_op="sum")
            for parameter, part in zip(
                parameters, flat.split([p.numel() for p in parameters]), strict=True
            ):
                parameter.grad = part.view_as(parameter).clone()

    def log_step(self, step: Step, metrics: dict[str, float], norm: Tensor) -> None:
        self.tokens_seen += step.tokens
        speed = (
            sum(tree.tokens for batch in step.batches for tree in batch.source)
            * self.trainer.world_size
        )
        self.log("loss", metrics.pop("loss"), prog_bar=True)
        self.log("tokens/s", speed / (time.perf_counter() - self._started), prog_bar=True)
        counts = {"num_tokens": float(self.tokens_seen), "skipped_steps": float(self.skipped)}
        self.log_dict({**metrics, "grad_norm": norm, **counts})

    # ------------------------------------------------------------------ validation and answers

    def validation_step(self, step: Step, batch_idx: int) -> None:
        """Add one step's figures to the validation metrics."""
        for batch in step.batches:
            with self.adapters.activate(self.adapters.trained_roles[0], training=False):
                loss, sums = self.losses(batch, statistics=True)
            count = loss.new_tensor(float(self.loss_denominator(Step.from_batches((batch,)))))
            for name, (total, n) in {**sums, "loss": (sums.get("loss", (loss,))[0], count)}.items():
                if n:
                    self.validation[name].update(
                        total / n, weight=n.clone()
                    )  # where NaN is, it is overwritten

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over the whole validation set, all ranks together."""
        self.log_dict(self.validation.compute())
        self.validation.reset()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def on_predict_start(self) -> None:
        """Let the reward take what it needs of the model."""
        if self.best_of is not None:
            self.best_of.reward.attach(self.adapters, self.tokenizer)

    def predict_step(
        self, numbered: list[tuple[int, Tree]], batch_idx: int
    ) -> list[dict[str, Any]]:
        """Answer prompts, each with its place in the data; each answer as a JSON-able record."""
        return records(self, numbered)

    def answer(
        self, prompts: list[list[int]], role: str = "policy", max_new_tokens: int | None = None
    ) -> list[str]:
        """What a role says to prompts of token ids."""
        limit = max_new_tokens or self.max_new_tokens
        return [one.strip() for ((one, _),) in ask(self, prompts, role, max_new_tokens=limit)]

    # ------------------------------------------------------------------ what is kept

    def saved_counters(self) -> dict[str, int]:
        """Steps that were not taken, and tokens."""
        return {**super().saved_counters(), "tokens_seen": self.tokens_seen}

    def compatibility_settings(self) -> dict[str, Any]:
        """What the trained weights mean nothing without; dropout and precision may change."""
        lora = lora_settings(
            self.adapters, self.adapters.trained_roles[0]
        )  # with sft, that adapter's
        template = hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()[:16]
        return {
            **{f"lora.{name}": value for name, value in lora.items()},
            "base.path": self.base.path,
            "init_adapter": self.init_adapter,
            "chat_template (hash)": template,
        }

    def save_adapter(self, folder: Path) -> None:
        """Write the policy's adapter as an ordinary PEFT folder with a record of where it came from."""
        save_adapter(self.adapters, folder, provenance=self.provenance())

    def provenance(self) -> dict[str, Any]:
        """Where an adapter comes from."""
        return {
            "stage": type(self).__name__,
            "objective": repr(self.objective),
            "steps": self.global_step,
        }
