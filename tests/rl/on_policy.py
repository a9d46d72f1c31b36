"""RL for tests: short runs of the command, and a stage that is trained outside of Lightning."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from types import SimpleNamespace
from typing import ClassVar

import torch

from lit_align.advantages.rloo import RLOO
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.models.samplers import SampledModel
from lit_align.objectives.ppo import PPO
from lit_align.rewards.length import Length
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.rollouts import RolloutBatch
from lit_align.rl.stage import BASELINE_ITERATIONS, RL
from lit_align.types import Step, Tree
from tests.stages.runs import arguments, folder_of, say


def write_prompts(path, rows=8):
    path.write_text(
        "".join(
            json.dumps({"prompt": [{"role": "user", "content": f"{k} {say(k, 2 + k % 5)}?"}]})
            + "\n"
            for k in range(rows)
        )
    )
    return path


def add_hints(path):
    """Give each prompt a hint, which it shares with no other."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for k, row in enumerate(rows):
        row["hint"] = say(k + 3, 3)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rl_arguments(tiny, train, run, *more):
    usual = [
        word
        for word in arguments(tiny, train, run, *more)
        if not word.startswith(("--model.objective", "--model.lora.dropout"))
    ]
    other = {"--model=Preference": "--model=RL", "--data=Comparisons": "--data=Prompts"}
    settings = (
        *(
            "--model.objective=PPO",
            "--model.reward=Pattern",
            "--model.reward.regex=a|e|i",
            "--model.advantage=GAE",
        ),
        *("--model.max_new_tokens=8", "--model.num_iterations=2", "--model.num_minibatches=2"),
    )
    made = [other.get(word, word) for word in usual]
    at = made.index("--model=RL") + 1
    return [*made[:at], *settings, *made[at:]]


def table(run, *names):
    """Metrics of each iteration as they were written."""
    with (folder_of(run) / "metrics.csv").open() as file:
        return [
            tuple(row[name] for name in names)
            for row in csv.DictReader(file)
            if row.get("objective/scores")
        ]


def stage(tiny, reward, advantage=RLOO(), critic=None, cls=RL, **settings):  # noqa: B008 - frozen
    base = Base(str(tiny), "none", "float32")
    settings = {"lora": Lora(r=4), **settings}
    return cls(PPO(), reward, advantage, KLControl(), critic or Critic(), base=base, **settings)


def policy_in_double(tiny, advantage):
    """A stage outside of Lightning's loop, in double precision but for the norms, whose responses are ragged."""
    settings = {"num_generations": 3, "max_new_tokens": 5, "temperature": 0.7}
    module = stage(tiny, Length(max_words=1), advantage, cls=OfflineRL, **settings)
    module.configure_model()
    module.adapters.model.double()
    module.adapters.model.generation_config.eos_token_id = list(range(60))
    return module


def move(module, seed):
    """Change the adapter that is trained, as an update would."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.adapters.trainable().values():
        parameter.data += torch.randn(parameter.shape, generator=draw) * 0.05


def response_logits(module, rollouts):
    """The policy's logits before each token of a response and the tokens, for one response after the other."""
    for tree in rollouts.trees:
        for ids in tree.responses:
            with module.adapters.activate("policy", training=False) as model:
                row = torch.tensor([[*tree.prompt, *ids]])
                logits = model(input_ids=row).logits[0, len(tree.prompt) - 1 : -1]
            yield logits, torch.tensor(ids)


class OfflineRL(RL):
    """The same stage, outside of Lightning's loop."""

    trainer = property(lambda self: FakeTrainer())
    datamodule = property(
        lambda self: SimpleNamespace(batch_size=1, token_budget=self.token_budget)
    )
    token_budget = 100_000
    global_step = 0

    def make_rollouts(self, trees: list[Tree], number: int = 0) -> RolloutBatch:
        """Sampled responses with everything an update learns from; updates then learn from them."""
        experience = self.experience_builder()
        rollouts = experience.sample(trees, number)
        if self.staleness:
            request = experience.sampling_request(trees, number + 1, range(len(trees)))
            policy = SampledModel.of_role(self.adapters, self.tokenizer)
            self.ahead.begin(number + 1, policy, request)
        self.estimate_advantages(rollouts)
        return rollouts

    def estimate_advantages(self, rollouts: RolloutBatch) -> None:
        experience = self.experience_builder()
        experience.score(rollouts)
        baseline = fmean(self.recent_rewards) if self.recent_rewards else 0.0
        mean_reward = experience.add_advantages(rollouts, self.kl_coefficient, baseline)
        if mean_reward is not None:
            self.recent_rewards = [*self.recent_rewards, mean_reward][-BASELINE_ITERATIONS:]
        self._policy_update = self.policy_update(rollouts)

    def steps(self, rollouts: RolloutBatch) -> Iterator[Step]:
        """Minibatches; `losses` then belongs to the newest."""
        for minibatch in self.minibatches(rollouts):
            self._policy_update = self.policy_update(rollouts, minibatch.ptx_weight)
            yield minibatch.step

    def learn(self, trees: list[Tree], iterations: int, lr: float) -> None:
        optimizer = torch.optim.Adam(self.adapters.trainable().values(), lr=lr)
        for number in range(iterations):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - number / iterations)
            for step in self.steps(self.make_rollouts(trees, number)):
                loss, _ = self.losses(step.batches[0], statistics=False)
                optimizer.zero_grad()
                (loss / self.loss_denominator(step)).backward()
                optimizer.step()


@dataclass
class FakeTrainer:
    """As much of a trainer as sampling needs."""

    default_root_dir: str = "/nowhere"
    global_rank: int = 0
    world_size: int = 1
    strategy: ClassVar = SimpleNamespace(root_device=torch.device("cpu"))
