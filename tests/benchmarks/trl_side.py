"""One run of TRL's own DPOTrainer, as its users start it, on token ids from a file."""

import tempfile
import time

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from .inputs import pads
from .meter import Meter


class Fed(DPOTrainer):
    """Takes rows that are token ids already; nothing of its training is changed."""

    setup = 0.0

    def _prepare_dataset(self, dataset, *_):
        return dataset

    def _precompute_ref_logps(self, *args):
        start = time.process_time()
        made = super()._precompute_ref_logps(*args)
        self.setup = time.process_time() - start
        return made

    def training_step(self, *args, **kwargs):
        self.last_loss = super().training_step(*args, **kwargs)
        return self.last_loss


class _Marks(TrainerCallback):
    def __init__(self, meter: Meter):
        self.meter = meter

    def on_train_begin(self, *_, **__):
        self.meter.start(self.trainer.model)

    def on_step_end(self, *_, **__):
        self.meter.step(self.trainer.last_loss)


def trainer(model, job: dict, rows: list[dict]) -> DPOTrainer:
    """DPOTrainer over ``rows`` in their order; what is not set here is its default."""
    cuda = job["device"] == "cuda"
    settings = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=job["pairs"],
        max_steps=len(rows) // job["pairs"],
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        optim="adamw_torch_fused" if cuda else "adamw_torch",
        max_grad_norm=job["max_grad_norm"],
        beta=job["beta"],
        max_length=None,
        gradient_checkpointing=job["checkpointing"],
        precompute_ref_log_probs=job["reference"] == "precomputed",
        train_sampling_strategy="sequential",
        use_cpu=not cuda,
        bf16=job["dtype"] == "bfloat16",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    lora = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    made = Fed(
        model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=pads(),
        peft_config=lora,
    )
    set_peft_model_state_dict(made.model, job["adapter"])
    return made


def run(model, job: dict, rows: list[dict]) -> tuple[dict, dict[str, torch.Tensor]]:
    """Train; gives the figures and the adapter's weights."""
    meter = Meter(job["device"], job["warmups"])
    made = trainer(model, job, rows)
    marks = _Marks(meter)
    marks.trainer = made
    made.add_callback(marks)
    made.train()
    return {**meter.result(), "setup": made.setup}, get_peft_model_state_dict(made.model)
