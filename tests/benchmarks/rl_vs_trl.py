"""Learning from eight responses to a prompt, here and in TRL 1.16's GRPOTrainer: equal gradients first, then the cost.

Run as ``python -m tests.benchmarks.rl_vs_trl``: about five minutes on a free core. Both have SmolLM2-135M in float32
with an adapter of rank 16, the same token ids, advantages and adapter. TRL's side is its trainer: the pass of the
reference as its scoring does it, then ``compute_loss`` and backward on rows of one length, a response each. Ours is
`RL` with packed trees. Both run in turn in one process on one thread, and a figure is the median CPU time of a round.
Sampling is in none of them.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from lit_align.advantages.grpo import GRPO
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base, load_model
from lit_align.objectives.ppo import PPO
from lit_align.rewards.pattern import Pattern
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.rollouts import RolloutBatch
from lit_align.rl.stage import RL
from lit_align.types import Group, Scores, Tree

from . import inputs

PROOF = Path(__file__).parents[1] / "proofs/rl_vs_trl.json"
PROMPT, RESPONSE, SAMPLES, ROUNDS, BETA = 124, 52, 8, 3, 0.04
TOLERANCE, AIM = 1e-4, 1.8


def rollouts(rows: list[dict]) -> Tree:
    """The first row's prompt, and the better answer of each row as a response to it."""
    responses = [row["chosen_ids"] for row in rows]
    scored = [[True] * len(ids) for ids in responses]
    return Tree(rows[0]["prompt_ids"], responses, scored, Group("", [""] * len(rows)))


SCORES = torch.tensor([0.9, -0.3, 0.1, 0.4, -0.8, 0.0, 0.7, 0.2])


class Theirs:
    """GRPOTrainer with ``beta``, so that it has a reference; its methods in the order in which it calls them."""

    def __init__(self, model: str, tree: Tree, adapter: dict[str, Tensor]):
        from datasets import Dataset
        from peft import LoraConfig
        from trl import GRPOConfig, GRPOTrainer

        settings = GRPOConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=SAMPLES, num_generations=SAMPLES, beta=BETA,
            gradient_checkpointing=False, use_cpu=True, bf16=False, report_to="none",
            use_bias_correction_kl=False,  # or its KL would be weighed by the ratio, which we do not do
        )  # fmt: skip
        self.trainer = GRPOTrainer(
            load_model(Base(model, quantization="none", dtype="float32")),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=settings,
            train_dataset=Dataset.from_list([{"prompt": "never read"}]),
            processing_class=inputs.pads(),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = self.trainer.args.steps_per_generation
        self.start(adapter)
        self.length = len(tree.responses[0])
        ids = torch.tensor([tree.prompt + response for response in tree.responses])
        centred = (
            SCORES - SCORES.mean()
        )  # both are given the same; their own formula would add 1e-4 where ours adds 1e-6
        self.given = {
            "prompt_ids": ids[:, : len(tree.prompt)],
            "prompt_mask": torch.ones_like(ids[:, : len(tree.prompt)]),
            "completion_ids": ids[:, len(tree.prompt) :],
            "completion_mask": torch.ones_like(ids[:, len(tree.prompt) :]),
            "advantages": centred / (SCORES.std() + 1e-6),
            "num_items_in_batch": torch.tensor(float(sum(map(len, tree.responses)))),
            "old_per_token_logps": self._logps(ids),
        }

    def start(self, adapter: dict[str, Tensor]) -> None:
        """Put the adapter in."""
        set_peft_model_state_dict(self.trainer.model, adapter)

    def reference(self) -> Tensor:
        """Its log-probabilities, ``[responses, length]``."""
        from trl.trainer.grpo_trainer import use_adapter

        ids = torch.cat([self.given["prompt_ids"], self.given["completion_ids"]], 1)
        with use_adapter(self.trainer.model, adapter_name=None):
            self.given["ref_per_token_logps"] = self._logps(ids)
        return self.given["ref_per_token_logps"]

    def update(self) -> float:
        """The loss, after its backward pass."""
        self.trainer.model.zero_grad()
        loss = self.trainer.compute_loss(self.trainer.model, self.given)
        loss.backward()
        return loss.item()

    def gradients(self) -> dict[str, Tensor]:
        """Of the adapter, as PEFT names it."""
        return _gradients(self.trainer.model, "default")

    @torch.no_grad()
    def _logps(self, ids: Tensor) -> Tensor:
        found: Tensor = self.trainer._get_per_token_logps_and_entropies(
            self.trainer.model, ids, torch.ones_like(ids), self.length, SAMPLES
        )[0]
        return found


class _Loop:
    """As much of Lightning's trainer as learning from given rollouts asks for."""

    default_root_dir = "/nowhere"
    datamodule = SimpleNamespace(batch_size=1, token_budget=8192)


class Offline(RL):
    """The stage outside of Lightning's loop."""

    trainer, global_step = _Loop(), 0
    datamodule = _Loop.datamodule


class Ours:
    """`RL` with the same loss: PPO's, GRPO's advantages, and a KL by the third estimator beside it."""

    def __init__(self, model: str, tree: Tree, adapter: dict[str, Tensor]):
        self.stage = Offline(
            PPO(), Pattern(""), GRPO(), KLControl(BETA, where="loss", estimator="k3"), Critic(),
            num_generations=SAMPLES,
            base=Base(model, "none", "float32"), lora=Lora(r=16), gradient_checkpointing=False,
        )  # fmt: skip
        self.stage.configure_model()
        self.start(adapter)
        there = torch.zeros(SAMPLES, len(tree.responses[0]))
        self.now = RolloutBatch(
            [tree], [], torch.ones(SAMPLES, dtype=torch.bool), there, Scores(SCORES)
        )
        self.stage.adapters.peft.train()
        self.score()
        ((self.step, _),) = self.stage.minibatches(self.now)
        self.stage._policy_update = self.stage.policy_update(self.now)

    def start(self, adapter: dict[str, Tensor]) -> None:
        """Put the adapter in."""
        set_peft_model_state_dict(self.stage.adapters.peft, adapter, adapter_name="policy")

    def score(self) -> None:
        """All that the stage works out before it learns: policy with entropy, reference, advantages."""
        experience = self.stage.experience_builder()
        experience.add_logps(self.now)
        experience.add_values(self.now)
        experience.add_advantages(self.now, self.stage.kl_coefficient, baseline=0.0)

    @torch.no_grad()
    def reference(self) -> Tensor:
        """Its log-probabilities, ``[responses, length]``."""
        with self.stage.adapters.activate("reference", training=False):
            found = [self.stage.tree_forward(batch.trees).logps for batch in self.step.batches]
        return torch.cat(found).view(SAMPLES, -1)

    def update(self) -> float:
        """The loss, after its backward pass."""
        self.stage.zero_grad()
        total = 0.0
        for batch in self.step.batches:
            loss = self.stage.losses(batch, statistics=True)[0] / self.stage.loss_denominator(
                self.step
            )
            loss.backward()
            total += loss.item()
        return total

    def gradients(self) -> dict[str, Tensor]:
        """Of the adapter, as PEFT names it."""
        return _gradients(self.stage.adapters.peft, "policy")


def _gradients(peft: torch.nn.Module, adapter: str) -> dict[str, Tensor]:
    gradients = {name: p.grad for name, p in peft.named_parameters() if p.grad is not None}
    return get_peft_model_state_dict(peft, state_dict=gradients, adapter_name=adapter)


def gate(theirs: Theirs, ours: Ours, adapter: dict[str, Tensor]) -> dict[str, float]:
    """How far they are apart where the policy is no longer what sampled: ``adapter``, a little moved."""
    draw = torch.Generator().manual_seed(1)
    moved = {
        name: weight + 0.002 * torch.randn(weight.shape, generator=draw)
        for name, weight in adapter.items()
    }
    for side in (theirs, ours):
        side.start(moved)
    reference = (theirs.reference() - ours.reference()).abs().max().item()
    old = (theirs.given["old_per_token_logps"] - ours.now.tokens["old_logps"]).abs().max().item()
    loss, same = theirs.update(), ours.update()
    a, b = theirs.gradients(), ours.gradients()
    assert a.keys() == b.keys()
    a, b = (torch.cat([gradients[name].flatten() for name in a]) for gradients in (a, b))
    return {
        "loss": loss,
        "losses differ by": abs(loss - same),
        "gradients differ by, relative": ((a - b).norm() / a.norm()).item(),
        "log-probabilities of the reference differ by": reference,
        "log-probabilities of the sampling policy differ by": old,
    }


def seconds(do: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    do()
    return time.process_time() - start


def main() -> None:
    """Compare, measure, write."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        inputs.adapter(inputs.SMOL, "float32", Path(folder, "adapter"), spread=0.005)
        adapter = load_file(Path(folder, "adapter"))
    tree = rollouts(inputs.text(PROMPT, RESPONSE, SAMPLES))
    theirs, ours = Theirs(inputs.SMOL, tree, adapter), Ours(inputs.SMOL, tree, adapter)
    found = gate(theirs, ours, adapter)
    print(json.dumps(found), flush=True)
    if max(value for name, value in found.items() if "differ" in name) > TOLERANCE:
        sys.exit("the two systems do not learn the same; no ratio is printed")
    spent: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, do in {
            "theirs: reference": theirs.reference, "ours: reference": ours.reference,
            "theirs: update": theirs.update, "ours: update": ours.update, "ours: all scoring": ours.score,
        }.items():  # fmt: skip
            spent.setdefault(name, []).append(seconds(do))
            print(name, spent[name][-1], flush=True)
    median = {name: statistics.median(times) for name, times in spent.items()}
    learning = median["theirs: reference"] + median["theirs: update"]
    PROOF.write_text(
        json.dumps(
            {
                "prompt": PROMPT,
                "responses": [SAMPLES, RESPONSE],
                "gate": found,
                "CPU seconds": median,
                "spread": {name: [min(times), max(times)] for name, times in spent.items()},
                "ratio": learning / (median["ours: reference"] + median["ours: update"]),
                "ratio, update alone": median["theirs: update"] / median["ours: update"],
                "ratio, our scoring of the policy included": learning
                / (median["ours: all scoring"] + median["ours: update"]),
                "aim": AIM,
                "machine": {
                    "processor": platform.processor() or platform.machine(),
                    "load": os.getloadavg()[0],
                    **{name: version(name) for name in ("torch", "transformers", "trl", "peft")},
                },
            },
            indent=1,
        )
        + "\n"
    )
    print(PROOF.read_text())


if __name__ == "__main__":
    main()
