"""Base class of the stages that train adapters on a language model, one exact optimizer step at a time."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_align.compat.lightning import is_logging_step
from lit_align.errors import ModelError
from lit_align.memory.model import explain_out_of_memory
from lit_align.models.adapter_files import save_adapter
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.check_once import check_once
from lit_align.models.load import Base, check_training_device, load_model, load_tokenizer
from lit_align.models.lora import Lora
from lit_align.models.samplers import Sampler, default_sampler
from lit_align.models.tree_forward import TreeForward
from lit_align.objectives import Objective
from lit_align.plugins import load_plugins
from lit_align.stages.answering import Responder, predict_answers
from lit_align.stages.attention_choice import FASTEST, choose_attention
from lit_align.stages.base import Stage
from lit_align.stages.best_of import BestOf
from lit_align.stages.checkpoints import save_adapter_beside_checkpoints
from lit_align.stages.data_checks import check_label_kind
from lit_align.stages.exact_step import (
    MetricSums,
    MetricTotals,
    StepSums,
    sum_gradients_over_ranks,
    without_backward_sync,
)
from lit_align.stages.monitors import check_monitors
from lit_align.stages.provenance import (
    adapter_identity,
    base_and_tokenizer,
    check_init_adapter,
    data_counts,
    data_provenance,
    plain_settings,
    prompt_kind,
    software_versions,
)
from lit_align.stages.schedule import Schedule
from lit_align.stages.sharded_base import check_division, divide_base, equal_passes, loading_memory
from lit_align.stages.structure_checks import check_structure
from lit_align.stages.validation import ValidationMetrics
from lit_align.types import Batch, Step, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase
    from lit_align.data.formats import Format


class LanguageModelStage(Stage):
    """One stage of alignment: an objective, and the adapters on one frozen base that it trains.

    One training step is one optimizer step: its micro-batches are summed and divided by the count of the whole step, so
    that the loss and its gradient depend neither on the token budget nor on the number of processes.

    Args:
        objective: the loss to minimize, by its name.
        base: the model to align, frozen.
        lora: the adapter to train on it.
        init_adapter: folder of a PEFT adapter to start from; the reference is then a frozen copy of it.
        chat_template: "chatml", a Jinja file, or null for the tokenizer's own.
        template_kwargs: arguments of the chat template, such as ``enable_thinking: false``; they are saved with it, and
            hold in training, sampling and chat. A row's own come first.
        optimizer: the optimizer and its settings.
        schedule: learning rate over the steps of the run; null keeps it constant.
        lr_scheduler: a scheduler of torch, stepped after each update; null with a ``schedule``.
        max_grad_norm: gradients are clipped to this norm; 0 turns clipping off.
        gradient_checkpointing: recompute activations in the backward pass: half as much compute again, far less memory.
        max_bad_steps: stop after so many steps in a row whose loss or gradient was not finite.
        max_new_tokens: longest answer that ``predict`` writes.
        temperature: of ``predict``'s sampling; 0 is greedy.
        best_of: sample several answers to each prompt, and choose the one with the highest reward.
        sampler: what samples, in training and in ``predict``, by its name; null is InProcess.
        seed: of the adapter's initial weights, dropout and sampling.
    """

    validation_metrics: ClassVar[tuple[str, ...]] = ()  # if empty, the loss and ``metric_names``
    reward_name: ClassVar[str] = ""  # the reward that reads what it trains; empty for a policy
    attributes: Sequence[str] = ()  # rated attributes that are trained on

    def __init__(
        self,
        objective: Objective,
        base: Base,
        lora: Lora,
        init_adapter: str | None = None,
        chat_template: str | None = None,
        template_kwargs: dict[str, Any] | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        schedule: Schedule | None = None,
        max_grad_norm: float = 1.0,
        gradient_checkpointing: bool = True,
        max_bad_steps: int = 3,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        best_of: BestOf | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, max_grad_norm, max_bad_steps, seed, schedule)
        if best_of is not None:
            best_of.check_temperature(temperature)
        self.objective, self.base, self.lora = objective, base, lora
        self.init_adapter = init_adapter
        self.chat_template, self.template_kwargs = chat_template, template_kwargs
        self.gradient_checkpointing, self.max_new_tokens = gradient_checkpointing, max_new_tokens
        self.temperature, self.best_of = temperature, best_of
        self.sampler = sampler or default_sampler()
        self.tokens_seen = 0
        self._is_checked = (
            False  # whether its settings were looked through before the data were read
        )
        self.num_answered = 0  # prompts that an interrupted predict has answered
        self.validation = ValidationMetrics(self.validation_metrics or ("loss", *self.metric_names))
        self._attention = base.attention
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._adapters: AdapterSet | None = None
        self._tree_forward: TreeForward | None = None

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Metrics that ``losses`` returns, in a fixed order so that ranks without data agree."""

    @abstractmethod
    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, MetricSums]:
        """Summed loss of one micro-batch, and sums of its metrics."""

    @abstractmethod
    def loss_denominator(self, step: Step) -> int:
        """What a step's summed loss is divided by: scored tokens or labels, of all ranks together."""

    def after_step(self, metrics: dict[str, float], sums: StepSums) -> None:
        """Hook after an optimizer step; gets the step's metrics over all ranks, and may add some."""

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The adapters and their heads."""
        return {f"_adapters.{name}": weight for name, weight in self.adapters.trainable().items()}

    @property
    def trained_roles(self) -> tuple[str, ...]:
        """The adapters to train."""
        return ("policy",)

    @property
    def head_sizes(self) -> dict[str, int]:
        """Outputs of the score head of each adapter that has one."""
        return {}

    @property
    def adapters(self) -> AdapterSet:
        """The base and the adapters on it; only once the model is configured."""
        if self._adapters is None:
            raise ModelError(f"{type(self).__name__} has no model yet; configure_model() loads it")
        return self._adapters

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer with the chosen chat template; needs no weights."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.base, self.chat_template, self.template_kwargs)
        return self._tokenizer

    @property
    def tree_forward(self) -> TreeForward:
        """The forward pass over packed trees; only once the model is configured."""
        if self._tree_forward is None:
            raise ModelError(f"{type(self).__name__} has no model yet; configure_model() loads it")
        return self._tree_forward

    @property
    def mismatched(self) -> bool:
        """Whether each prompt also needs a response to another prompt."""
        return False

    @property
    def block_sparse(self) -> bool:
        """Whether attention is block-sparse (FlexAttention), so that trees are packed into one row."""
        return self._attention == "flex_attention"

    @property
    def needs_whole_steps(self) -> bool:
        """Whether a step that fits into one micro-batch must not be cut."""
        return False

    def formats(self) -> list[Format]:
        """Formats of rows to choose from, plugins' included; those that need settings must be named in the YAML."""
        return load_plugins().formats.default_instances()

    def check_data(self, data: Any) -> None:
        """Refuse a data module whose labels the objective cannot learn from."""
        check_label_kind(self.objective, data)

    def check_before_data(self, trainer: Trainer, data: Any) -> None:
        """Check the optimizer, the metrics that callbacks wait for, the adapter to start from and the LoRA targets."""
        if self._is_checked:
            return
        super().check_before_data(trainer, data)
        check_training_device(self.base, trainer.strategy.root_device)
        has_validation = getattr(data, "paths", {}).get("validation", True)
        validates = bool(has_validation) and bool(trainer.limit_val_batches)
        if type(self).__module__.startswith("lit_align."):  # a stage of a plugin may log more
            check_monitors(trainer, self.training_names(), self.validation_names(), validates)
        self.check_init_adapter()
        self._check_before_loading()
        self._is_checked = True

    def setup(self, stage: str) -> None:
        """Check the adapter to start from, too, and the sampler that ``predict`` needs."""
        super().setup(stage)
        if stage == "predict":
            self.sampler.check(self.base, self.lora, self.tokenizer)
        if not self._is_checked:
            self.check_init_adapter()

    def check_init_adapter(self) -> None:
        """Refuse an initial adapter that was trained on another base or under another chat template."""
        if self.init_adapter is not None:
            check_init_adapter(self.init_adapter, self.base, self.tokenizer)

    def configure_model(self) -> None:
        """Load the base and put the adapters on it; called again by validate and test, it does nothing."""
        if self._adapters is not None:
            check_division(self._adapters, self._trainer)
            return
        if not self._is_checked:
            self._check_before_loading()
        # on the device at once: loading elsewhere first would need the memory twice
        device = None if self._trainer is None else self.trainer.strategy.root_device
        self._adapters = AdapterSet(
            load_model(self.base, device, memory=loading_memory(self._trainer)),
            self.lora,
            init_adapter=self.init_adapter,
            seed=self.seed,
            gradient_checkpointing=self.gradient_checkpointing,
            trained_roles=self.trained_roles,
            head_sizes=self.head_sizes,
        )
        self._tree_forward = TreeForward(self._adapters.model)
        if self.base.attention == FASTEST and self.is_fitting:
            budget, strategy = self.datamodule.token_budget, self.trainer.strategy
            self._attention = choose_attention(self._adapters, self._tree_forward, budget, strategy)
        check_once(self._tree_forward)
        divide_base(self._adapters, self._trainer)

    def _check_before_loading(self) -> None:
        """Refuse settings that do not fit the model, from its configuration alone."""
        adapted = self.init_adapter or self.lora
        check_structure(self.base, adapted, self.gradient_checkpointing, self._trainer)

    def on_fit_start(self) -> None:
        """Put the model in train mode: Lightning leaves it in eval mode, where checkpointing is off."""
        self.adapters.peft.train()
        rank_zero_info(self.adapters.inventory().table())
        if self.adapters.fusion.obstacles:
            rank_zero_info(str(self.adapters.fusion))
        save_adapter_beside_checkpoints(self.trainer, self.save_adapter)

    def training_step(self, step: Step, batch_idx: int) -> None:
        """Learn from one step, if it has any groups."""
        if step.groups:
            metrics, norm = self.update(step, is_logging_step(self.trainer))
            self.log_step(step, metrics, norm)

    def update(self, step: Step, statistics: bool) -> tuple[dict[str, float], float]:
        """Sum over the micro-batches, divide by the global count, update once.

        A GPU makes the host wait once, for the metrics and the gradient norm together.

        Returns:
            The metrics of the step over all ranks, and the gradient norm.
        """
        strategy, count = self.trainer.strategy, self.loss_denominator(step)
        totals = MetricTotals(("loss", *self.metric_names), self.device)
        for batch, is_own in equal_passes(step, strategy):
            with without_backward_sync(strategy), self.out_of_memory_advice(batch):
                loss, sums = self.losses(batch, statistics)
                self.manual_backward((loss if is_own else 0 * loss) / count)
            if is_own:
                totals.add({"loss": (loss, 0.0), **sums})
        numbers = totals.reduced(strategy, self.trainer.world_size)
        sum_gradients_over_ranks(list(self.trained_parameters().values()), self.trainer)
        *reduced, norm = torch.cat([numbers, self.gradient_norm()[None]]).tolist()
        step_sums = totals.step_sums(reduced)
        step_sums["loss"] = (step_sums["loss"][0], count)  # the same mean on every rank
        metrics = {name: total / n for name, (total, n) in step_sums.items() if n}
        if self.take_step(metrics["loss"], norm):
            self.after_step(metrics, step_sums)
        return metrics, norm

    def out_of_memory_advice(self, batch: Batch) -> AbstractContextManager[None]:
        """Names the settings that would save memory when the GPU runs out of it over ``batch``."""
        return explain_out_of_memory(
            self.adapters, self.base, self.lora, batch.trees, self.gradient_checkpointing
        )

    def log_step(self, step: Step, metrics: dict[str, float], norm: Tensor | float) -> None:
        """Log one step's metrics and its speed."""
        self.tokens_seen += step.tokens
        num_tokens = sum(tree.tokens for tree in step.trees)
        speed = num_tokens * self.trainer.world_size / (time.perf_counter() - self._started)
        self.log_numbers({"loss": metrics.pop("loss"), "tokens/s": speed}, prog_bar=True)
        self.log_rates()
        # in double precision: tokens pass the integers of single precision
        num_tokens_seen = torch.tensor(self.tokens_seen, dtype=torch.float64)
        counts: dict[str, float | Tensor] = {
            "num_tokens": num_tokens_seen,
            "skipped_steps": float(self.skipped),
        }
        self.log_numbers({**metrics, "grad_norm": norm, **counts})

    def validation_step(self, step: Step, batch_idx: int) -> None:
        """Add one step to the validation metrics."""
        for batch, is_own in equal_passes(step, self.trainer.strategy):
            with self.adapters.activate(self.adapters.trained_roles[0], training=False):
                loss, sums = self.losses(batch, statistics=True)
            if is_own:
                count = self.loss_denominator(Step.from_batches((batch,)))
                self.validation.add_sums(sums, loss, count)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over the whole validation set, all ranks together."""
        metrics = self.validation.compute()
        self.log_dict(metrics)
        self.step_on_plateau(metrics)
        self.validation.reset()

    def validation_names(self) -> list[str]:
        """Names of the metrics of a validation."""
        return [str(name) for name in self.validation]

    def training_names(self) -> list[str]:
        """Names of the metrics of a step, as far as they are known before the first one."""
        speed = ("loss", "tokens/s", "memory_gib", "grad_norm", "num_tokens", "skipped_steps")
        return [*speed, *self.lr_names, *self.metric_names]

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    @property
    def responder(self) -> Responder:
        """Answers prompts with the stage's adapters and sampling settings."""
        settings = (self.max_new_tokens, self.temperature, self.seed, self.sampler)
        return Responder(self.adapters, self.tokenizer, *settings)

    def on_predict_start(self) -> None:
        """Give the reward of best-of-N the model in memory."""
        if self.best_of is not None:
            self.best_of.reward.attach(self.adapters, self.tokenizer)

    def predict_step(
        self, numbered: list[tuple[int, Tree]], batch_idx: int
    ) -> list[dict[str, Any]]:
        """Answer prompts, each with its place in the data; one JSON-able record for each."""
        return predict_answers(self.responder, self.best_of, numbered)

    def saved_counters(self) -> dict[str, int]:
        """Skipped steps and tokens."""
        return {**super().saved_counters(), "tokens_seen": self.tokens_seen}

    def compatibility_settings(self) -> dict[str, Any]:
        """Base, LoRA shape and chat template; dropout and precision may differ."""
        return adapter_identity(self.adapters, self.tokenizer, self.base.path, self.init_adapter)

    def save_adapter(self, folder: Path) -> None:
        """Write the policy's adapter as a PEFT folder, with its provenance."""
        save_adapter(self.adapters, folder, provenance=self.provenance(), tokenizer=self.tokenizer)

    def provenance(self) -> dict[str, Any]:
        """Stage, objective, number of steps, base and tokenizer, data and settings, for ``provenance.json``."""
        return {
            "stage": type(self).__name__,
            "objective": repr(self.objective),
            "steps": self.global_step,
            "prompts": prompt_kind(self._trainer),
            **base_and_tokenizer(
                self.base, self.tokenizer, self.chat_template, self.template_kwargs
            ),
            "data": data_counts(self._trainer),
            **data_provenance(self._trainer),
            "settings": plain_settings(self.hparams),
            "versions": software_versions(),
        }
