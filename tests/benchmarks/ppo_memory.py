"""Memory of an iteration of PPO, here and in TRL 1.12, the last that brought PPO: the same sizes, a process each.

TRL 1.12 is not among the project's dependencies: ``pip install --no-deps --target FOLDER trl==1.12.0``, then
``python -m tests.benchmarks.ppo_memory FOLDER``. SmolLM2-135M in float32, eight responses of 52 tokens to a prompt of
124, one update, no checkpointing of activations. TRL's PPOTrainer has an adapter for the policy, so that its reference
takes no room; its reward and value models are whole, and it trains all of the latter (without an adapter it would hold
one model more, and train two). Ours is one base and three adapters, of which policy and critic are trained. A figure is
the most resident memory of a process above what it held when all was imported.
"""

import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

from lit_align.models.load import Base, load_model, load_tokenizer

from . import inputs
from .meter import resident

ROOT = Path(__file__).parents[2]
PROOF = ROOT / "tests/proofs/ppo_memory.json"
PROMPT, RESPONSE, SAMPLES = 124, 52, 8
SIDES = ("ours", "TRL")


def theirs(folder: Path) -> None:
    """One iteration of PPOTrainer; its own code from models to update."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = load_tokenizer(Base(inputs.SMOL))
    ids = inputs.text(PROMPT, RESPONSE, 1)[0]["prompt_ids"]
    model = load_model(Base(inputs.SMOL, quantization="none", dtype="float32"))
    model.save_pretrained(folder / "body")
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(
            folder / "body", num_labels=1, dtype=torch.float32
        )
        for _ in range(2)
    )
    settings = PPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=SAMPLES, gradient_accumulation_steps=1,
        num_mini_batches=1, num_ppo_epochs=1, total_episodes=SAMPLES, response_length=RESPONSE,
        gradient_checkpointing=False, use_cpu=True, bf16=False, report_to="none", num_sample_generations=0,
        save_strategy="no",
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    data = Dataset.from_list([{"input_ids": ids}] * SAMPLES)
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, model=model, ref_model=None, reward_model=reward,
        train_dataset=data, value_model=value, eval_dataset=data, peft_config=lora,
    )  # fmt: skip
    del model, reward, value
    trainer.train()


def ours(folder: Path) -> None:
    """One iteration of `RL`, rewarded by a reward model on the same base."""
    from lightning.pytorch import Trainer

    from lit_align.advantages.gae import GAE
    from lit_align.data.datamodules import Prompts
    from lit_align.models.adapter_set import Lora
    from lit_align.objectives.bradley_terry import BradleyTerry
    from lit_align.objectives.ppo import PPO
    from lit_align.rewards.reward_model import RewardModelScore
    from lit_align.rl.critic import Critic
    from lit_align.rl.kl_control import KLControl
    from lit_align.rl.stage import RL
    from lit_align.stages.reward_model import RewardModel

    base, lora = Base(inputs.SMOL, quantization="none", dtype="float32"), Lora(r=16, alpha=32)
    if not (folder / "reward").exists():
        judge = RewardModel(BradleyTerry(), base=base, lora=lora)
        judge.configure_model()
        judge.save_adapter(folder / "reward")
        return
    ids = inputs.text(PROMPT, RESPONSE, 1)[0]["prompt_ids"]
    (folder / "prompts.jsonl").write_text(
        json.dumps({"prompt": load_tokenizer(base).decode(ids)}) + "\n"
    )
    stage = RL(
        PPO(), RewardModelScore(str(folder / "reward")), GAE(), KLControl(), Critic(),
        num_generations=SAMPLES, max_new_tokens=RESPONSE,
        base=base, lora=lora, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        default_root_dir=folder / "run",
    )  # fmt: skip
    trainer.fit(stage, Prompts(str(folder / "prompts.jsonl"), batch_size=1))


def child(side: str, folder: Path) -> None:
    """Run one side and print what it took."""
    torch.set_num_threads(1)
    for name in (
        "lightning.pytorch",
        "peft",
        "datasets",
        "transformers.models.llama.modeling_llama",
    ):
        importlib.import_module(name)
    if side != "ours":
        importlib.import_module("trl.experimental.ppo")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    (ours if side == "ours" else theirs)(folder)
    print(json.dumps({"peak": resident("VmHWM") - before}))


def run(side: str, folder: Path, trl: str) -> int:
    """Bytes that a process of its own took."""
    path = os.pathsep.join([trl, str(ROOT)] if side != "ours" else [str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.benchmarks.ppo_memory", "--child", side, str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    peak: int = json.loads(done.stdout.splitlines()[-1])["peak"]
    print(side, f"{peak / 2**20:.0f} MiB", flush=True)
    return peak


def main(trl: str) -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as at:
        run("ours", Path(at), trl)  # leaves the reward model there
        peaks = {side: run(side, Path(at), trl) for side in SIDES}
    found = {
        "prompt": PROMPT,
        "responses": [SAMPLES, RESPONSE],
        "MiB": {side: round(peak / 2**20) for side, peak in peaks.items()},
        "ratio": peaks["TRL"] / peaks["ours"],
        "machine": {
            "processor": platform.processor() or platform.machine(),
            **{name: version(name) for name in ("torch", "transformers", "peft")},
            "trl": next(Path(trl).glob("trl-*.dist-info")).name.split("-")[1].removesuffix(".dist"),
        },
    }
    PROOF.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1])
