"""An iteration of GRPO after sampling, here and in TRL 1.16's GRPOTrainer: equal gradients first, then every pass.

Run as ``python -m tests.benchmarks.rl_vs_trl``: about ten minutes on a free core. Eight prompts have four responses
each. Both sides have SmolLM2-135M in float32 with an adapter of rank 16, the same token ids, scores and adapter, and
as many tokens at once. TRL's side is its trainer: the reference as its scoring reads it, then ``compute_loss`` and
backward on rows of one length, a response each; by default it evaluates the policy in no other pass. Ours is `RL` with
packed trees: all that an iteration does with sampled responses, from packing them to its metrics, but for the
optimizer's step. Both run in turn in one process on one thread; a figure is the median CPU time of a round. Sampling is
in none of them (`rl_iteration` measures it).
"""

import argparse
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
from typing import Any, NamedTuple

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
from lit_align.types import Group, Scores, Step, Tree

from . import inputs

PROOF = Path(__file__).parents[1] / "proofs/rl_vs_trl.json"
BETA, TOLERANCE, AIM = 0.04, 1e-4, 3.0


class Shape(NamedTuple):
    """Sizes of an iteration.

    Args:
        prompts: how many there are.
        samples: responses to each.
        prompt: tokens of a prompt.
        response: tokens of a response.
        rows: responses that TRL reads at once, padded; ours reads as many tokens.
    """

    prompts: int = 8
    samples: int = 4
    prompt: int = 100
    response: int = 48
    rows: int = 8

    @property
    def token_budget(self) -> int:
        """Tokens at once."""
        return self.rows * (self.prompt + self.response)


def sampled_trees(rows: list[dict], shape: Shape) -> list[Tree]:
    """A prompt from the first of every ``samples`` rows, and the better answer of each as a response to it."""
    trees = []
    for start in range(0, shape.prompts * shape.samples, shape.samples):
        group = rows[start : start + shape.samples]
        responses = [row["chosen_ids"] for row in group]
        scored = [[True] * len(ids) for ids in responses]
        trees.append(
            Tree(group[0]["prompt_ids"], responses, scored, Group("", [""] * shape.samples))
        )
    return trees


def drawn_scores(shape: Shape) -> Tensor:
    """Scores of all responses, ``[prompts, samples]``."""
    return torch.randn(shape.prompts, shape.samples, generator=torch.Generator().manual_seed(0))


class Theirs:
    """GRPOTrainer with ``beta``, so that it has a reference; its methods in the order in which it calls them."""

    def __init__(self, model: str, trees: list[Tree], shape: Shape) -> None:
        from datasets import Dataset
        from peft import LoraConfig
        from trl import GRPOConfig, GRPOTrainer

        settings = GRPOConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=shape.rows, num_generations=shape.samples,
            gradient_accumulation_steps=shape.prompts * shape.samples // shape.rows, beta=BETA,
            gradient_checkpointing=False, use_cpu=True, bf16=False, report_to="none",
            use_bias_correction_kl=False,  # or its KL would be weighed by the ratio, which ours is not
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
        self.shape = shape
        scores = drawn_scores(shape)
        centred = scores - scores.mean(1, keepdim=True)
        # both sides are given the same advantages; its own formula would add 1e-4 where ours adds 1e-6
        self.advantages = (centred / (scores.std(1, keepdim=True) + 1e-6)).flatten()
        rows = [tree.prompt + response for tree in trees for response in tree.responses]
        self.ids = torch.tensor(rows)
        self.reference_logps, self.old_logps = torch.zeros(0), None

    def start(self, adapter: dict[str, Tensor]) -> None:
        """Put the adapter in."""
        set_peft_model_state_dict(self.trainer.model, adapter)

    @torch.no_grad()
    def score(self) -> None:
        """The reference's log-probabilities, ``[responses, length]``."""
        from trl.trainer.grpo_trainer import use_adapter

        with use_adapter(self.trainer.model, adapter_name=None):
            self.reference_logps = self._logps()

    @torch.no_grad()
    def score_policy(self) -> None:
        """Old log-probabilities, which it computes only where the policy may have moved since it sampled."""
        self.old_logps = self._logps()

    def update(self) -> float:
        """The loss, after its backward passes."""
        self.trainer.model.zero_grad()
        total = 0.0
        for start in range(0, len(self.ids), self.shape.rows):
            rows = slice(start, start + self.shape.rows)
            loss = self.trainer.compute_loss(self.trainer.model, self._micro_batch(rows))
            loss.backward()
            total += loss.item()
        return total

    def learn(self) -> float:
        """Score and update."""
        self.score()
        return self.update()

    def gradients(self) -> dict[str, Tensor]:
        """Of the adapter, as PEFT names it."""
        return _gradients(self.trainer.model, "default")

    def _micro_batch(self, rows: slice) -> dict[str, Any]:
        prompts, responses = self.ids[rows].tensor_split([self.shape.prompt], 1)
        fields = {
            "prompt_ids": prompts,
            "prompt_mask": torch.ones_like(prompts),
            "completion_ids": responses,
            "completion_mask": torch.ones_like(responses),
            "advantages": self.advantages[rows],
            "num_items_in_batch": torch.tensor(float(len(self.ids) * self.shape.response)),
            "ref_per_token_logps": self.reference_logps[rows],
        }
        if self.old_logps is not None:
            fields["old_per_token_logps"] = self.old_logps[rows]
        return fields

    def _logps(self) -> Tensor:
        result = self.trainer._get_per_token_logps_and_entropies(
            self.trainer.model, self.ids, torch.ones_like(self.ids), self.shape.response, self.shape.rows
        )  # fmt: skip
        logps: Tensor = result[0]
        return logps


class _Loop:
    """As much of Lightning's trainer as learning from given rollouts asks for."""

    default_root_dir = "/nowhere"
    global_rank, world_size = 0, 1
    strategy = SimpleNamespace(root_device=torch.device("cpu"))


class Offline(RL):
    """The stage outside of Lightning's loop."""

    trainer, global_step = _Loop(), 0
    datamodule = SimpleNamespace(batch_size=1, token_budget=0)


class Ours:
    """`RL` with the same loss: PPO's, GRPO's advantages, and a KL by the third estimator beside it."""

    def __init__(self, model: str, trees: list[Tree], shape: Shape) -> None:
        self.stage = Offline(
            PPO(), Pattern(""), GRPO(), KLControl(BETA, where="loss", estimator="k3"), Critic(),
            num_generations=shape.samples,
            base=Base(model, "none", "float32"), lora=Lora(r=16), gradient_checkpointing=False,
        )  # fmt: skip
        self.stage.datamodule.token_budget = shape.token_budget
        self.stage.configure_model()
        self.stage.adapters.peft.train()
        self.trees, self.scores = trees, Scores(drawn_scores(shape).flatten())
        self.rollouts = self.sampled()

    def start(self, adapter: dict[str, Tensor]) -> None:
        """Put the adapter in."""
        set_peft_model_state_dict(self.stage.adapters.peft, adapter, adapter_name="policy")

    def sampled(self) -> RolloutBatch:
        """The responses as they come from the sampler."""
        ended = torch.ones(len(self.scores.total), dtype=torch.bool)
        sampler_logps = torch.zeros(len(ended), len(self.trees[0].responses[0]))
        return RolloutBatch(self.trees, [], ended, sampler_logps, self.scores)

    def score_policy(self) -> None:
        """All that an update reads, computed before it."""
        self.rollouts = self.sampled()
        experience = self.stage.experience_builder()
        experience.score(self.rollouts)
        experience.add_advantages(self.rollouts, self.stage.kl_coefficient, baseline=0.0)

    def update(self) -> float:
        """The loss of stored numbers, after its backward passes."""
        step = next(self.stage.minibatches(self.rollouts)).step
        self.stage._policy_update = self.stage.policy_update(self.rollouts)
        return self._backward(step)

    def learn(self) -> float:
        """All that an iteration does after it has sampled, but for the optimizer's step; the loss."""
        self.rollouts = self.sampled()
        experience = self.stage.experience_builder()
        first = next(self.stage.minibatches(self.rollouts))
        forward_pass = experience.score(self.rollouts, first)
        experience.add_advantages(self.rollouts, self.stage.kl_coefficient, baseline=0.0)
        update = self.stage.policy_update(
            self.rollouts, forward_pass=forward_pass, scores_policy=forward_pass is None
        )
        self.stage._policy_update = update
        loss = self._backward(first.step)
        self.rollouts.set_tokens(update.scored)
        self.rollouts.metrics(self.stage.kl_coefficient, with_critic=False)
        return loss

    def gradients(self) -> dict[str, Tensor]:
        """Of the adapter, as PEFT names it."""
        return _gradients(self.stage.adapters.peft, "policy")

    def _backward(self, step: Step) -> float:
        self.stage.zero_grad()
        total = 0.0
        for batch in step.batches:
            loss, _ = self.stage.losses(batch, statistics=True)
            loss = loss / self.stage.loss_denominator(step)
            loss.backward()
            total += loss.item()
        return total


def _gradients(peft: torch.nn.Module, adapter: str) -> dict[str, Tensor]:
    gradients = {name: p.grad for name, p in peft.named_parameters() if p.grad is not None}
    return get_peft_model_state_dict(peft, state_dict=gradients, adapter_name=adapter)


def gate(theirs: Theirs, ours: Ours, adapter: dict[str, Tensor]) -> dict[str, float]:
    """How far the two are apart: in the first update after sampling, and where the policy has moved since."""
    random = torch.Generator().manual_seed(1)
    moved = {}
    for name, weight in adapter.items():
        moved[name] = weight + 0.002 * torch.randn(weight.shape, generator=random)
    for side in (theirs, ours):
        side.start(adapter)
    first = _differences(theirs, theirs.learn(), ours, ours.learn())
    for side in (theirs, ours):
        side.score_policy()
        side.start(moved)
    later = _differences(theirs, theirs.update(), ours, ours.update())
    mask = ours.rollouts.mask
    stored = {
        "log-probabilities of the reference": (theirs.reference_logps, "ref_logps"),
        "log-probabilities of the sampling policy": (theirs.old_logps, "old_logps"),
    }
    differences = {f"first update: {name}": value for name, value in first.items()}
    differences |= {f"later update: {name}": value for name, value in later.items()}
    for name, (logps, key) in stored.items():
        difference = (logps - ours.rollouts.tokens[key])[mask].abs().max()
        differences[f"{name} differ by"] = difference.item()
    theirs.old_logps = None
    return differences


def _differences(
    theirs: Theirs, their_loss: float, ours: Ours, our_loss: float
) -> dict[str, float]:
    first, second = theirs.gradients(), ours.gradients()
    assert first.keys() == second.keys()
    flat = [
        torch.cat([gradients[name].flatten() for name in first]) for gradients in (first, second)
    ]
    return {
        "loss": their_loss,
        "losses differ by": abs(their_loss - our_loss),
        "gradients differ by, relative": ((flat[0] - flat[1]).norm() / flat[0].norm()).item(),
    }


def seconds(function: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main(arguments: list[str]) -> None:
    """Compare and measure; the figures of the whole model are written to `PROOF`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, help="only the first layers; nothing is written then")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shape = Shape()
    with tempfile.TemporaryDirectory() as folder:
        model = inputs.SMOL
        if options.layers is not None:
            model = inputs.first_layers(options.layers, Path(folder, "model"))
        inputs.adapter(model, "float32", Path(folder, "adapter"), spread=0.005)
        adapter = load_file(Path(folder, "adapter"))
        trees = sampled_trees(inputs.text(shape.prompt, shape.response, 32), shape)
        theirs, ours = Theirs(model, trees, shape), Ours(model, trees, shape)
    differences = gate(theirs, ours, adapter)
    print(json.dumps(differences, indent=1), flush=True)
    if max(value for name, value in differences.items() if "differ" in name) > TOLERANCE:
        sys.exit("the two systems do not learn the same; no ratio is printed")
    for side in (theirs, ours):
        side.start(adapter)
    times: dict[str, list[float]] = {"TRL": [], "ours": []}
    for _ in range(options.rounds):
        times["TRL"].append(seconds(theirs.learn))
        times["ours"].append(seconds(ours.learn))
        print({name: values[-1] for name, values in times.items()}, flush=True)
    text = json.dumps(_figures(shape, differences, times), indent=1)
    print(text)
    if options.layers is None:
        PROOF.write_text(text + "\n")


def _figures(
    shape: Shape, differences: dict[str, float], times: dict[str, list[float]]
) -> dict[str, Any]:
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "shape": shape._asdict(),
        "gate": differences,
        "CPU seconds of scoring and update": median,
        "spread": {name: [min(values), max(values)] for name, values in times.items()},
        "ratio": median["TRL"] / median["ours"],
        "aim": AIM,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "load": os.getloadavg()[0],
            **{name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        },
    }


if __name__ == "__main__":
    main(sys.argv[1:])
