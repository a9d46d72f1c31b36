"""Iterations of RL by one build of lit_align, started and timed one at a time by `rl_iteration`.

A process of its own, so that two builds can be measured in turn: each line on the standard input lets it run an
iteration, whose figures it prints. Only what both builds have is used.
"""

import json
import resource
import sys
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from lit_align.advantages.gae import GAE
from lit_align.advantages.grpo import GRPO
from lit_align.data.datamodules import Prompts
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.ppo import PPO
from lit_align.rewards.length import Length
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.stage import RL

METHODS = {
    "GRPO": (GRPO(), KLControl(0.04, where="loss", estimator="k3")),
    "PPO": (GAE(), KLControl(0.05)),
}
METRICS = ("loss", "grad_norm", "objective/scores", "objective/entropy", "objective/kl")


class TimedIterations(Callback):
    """Waits for a line before each iteration, and prints what it cost and what it logged."""

    def on_train_batch_start(self, *_):
        sys.stdin.readline()
        self.start = _cpu_seconds()

    def on_train_batch_end(self, trainer, *_):
        figures = {"seconds": _cpu_seconds() - self.start}
        for name in METRICS:
            figures[name] = trainer.callback_metrics[name].item()
        print(json.dumps(figures), flush=True)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(job: dict) -> None:
    """Run the iterations of a job, then save the trained weights."""
    torch.set_num_threads(1)
    advantage, kl = METHODS[job["method"]]
    stage = RL(
        PPO(), Length(max_words=20), advantage, kl, Critic(),
        num_generations=job["samples"], max_new_tokens=job["response"], log_samples_every=0,
        gradient_checkpointing=job["checkpointing"], base=Base(job["model"], "none", "float32"),
        lora=Lora(r=16), optimizer=partial(torch.optim.AdamW, lr=5e-6, weight_decay=0.0),
    )  # fmt: skip
    data = Prompts(
        job["prompts"], batch_size=job["prompts_at_once"], shuffle=False, prepared_cache=None
    )
    trainer = Trainer(
        accelerator="cpu", max_steps=job["iterations"], logger=False, callbacks=[TimedIterations()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=job["folder"],
    )  # fmt: skip
    trainer.fit(stage, data)
    weights = {name: weight.detach() for name, weight in stage.adapters.trainable().items()}
    torch.save(weights, Path(job["folder"], "weights.pt"))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
