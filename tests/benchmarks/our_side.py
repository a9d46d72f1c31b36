"""One run of our own Preference stage under Lightning, on token ids from a file."""

import tempfile
import time
import warnings
from functools import partial

import torch
from lightning.pytorch import Callback, Trainer
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from lit_align.data.datamodules import Comparisons
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.dpo import DPO
from lit_align.stages.preference import Preference
from lit_align.types import Group, Pair, Tree

from .meter import Meter


class _Marks(Callback):
    def __init__(self, meter: Meter):
        self.meter = meter

    def on_train_start(self, trainer, stage):
        self.meter.start(stage)

    def on_train_batch_end(self, trainer, stage, *_):
        self.meter.step(trainer.callback_metrics["loss"])


def tree(row: dict) -> Tree:
    """A row of ids as a prompt with two responses, the first of them preferred."""
    responses = [row["chosen_ids"], row["rejected_ids"]]
    scored = [[True] * len(ids) for ids in responses]
    return Tree(row["prompt_ids"], responses, scored, Group("", ["", ""], (Pair(0, 1),)))


def data(job: dict, rows: list[dict]) -> Comparisons:
    """The data module with the rows already prepared: trees in the order of the file."""
    made = Comparisons(
        train=[], batch_size=job["pairs"], token_budget=job["token_budget"], shuffle=False
    )
    made.trees["train"] = [tree(row) for row in rows]
    return made


def base(job: dict) -> Base:
    """The model of a job, as both systems load it."""
    quantization = job.get("quantization", "none")
    return Base(job["model"], quantization, job["dtype"], attention=job["attention"])


def stage(job: dict) -> Preference:
    """The stage with its model loaded and the given adapter on it."""
    made = Preference(
        objective=DPO(beta=job["beta"]),
        base=base(job),
        lora=Lora(r=16, alpha=32, dropout=0.0),
        optimizer=partial(
            torch.optim.AdamW, lr=job["lr"], weight_decay=0.0, fused=job["device"] == "cuda"
        ),
        gradient_checkpointing=job["checkpointing"],
        max_grad_norm=job["max_grad_norm"],
        cache_reference=tempfile.mkdtemp() if job["reference"] == "precomputed" else None,
    )
    made.configure_model()
    if job["layout"] == "rows":
        made.tree_forward.layout = "rows"
    set_peft_model_state_dict(made.adapters.peft, job["adapter"], adapter_name="policy")
    return made


class _Reference(Callback):
    """Fills the cache of the reference before the first step, so that the steps only read it."""

    seconds = 0.0

    def on_train_start(self, trainer, stage):
        start = time.process_time()
        for step in trainer.datamodule.step_loader("train", shuffle=False, resumes=False):
            for batch in trainer.datamodule.transfer_batch_to_device(step, stage.device, 0).batches:
                stage.reference(batch)
        self.seconds = time.process_time() - start


def run(job: dict, rows: list[dict]) -> tuple[dict, dict[str, torch.Tensor]]:
    """Train; gives the figures and the adapter's weights."""
    meter, reference = Meter(job["device"], job["warmups"]), _Reference()
    made = stage(job)
    cuda = job["device"] == "cuda"
    trainer = Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=1,
        max_epochs=1,
        log_every_n_steps=1,  # TRL works out its dashboard in every step, so here we do too
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*([reference] if job["reference"] == "precomputed" else []), _Marks(meter)],
    )
    warnings.filterwarnings("ignore")
    trainer.fit(made, data(job, rows))
    weights = get_peft_model_state_dict(made.adapters.peft, adapter_name="policy")
    return {**meter.result(), "setup": reference.seconds}, weights
