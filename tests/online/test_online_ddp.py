"""Several processes make and learn the rounds that one does, by every source of feedback."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Thread

import pytest
import torch

from lit_align.data.datamodules import Comparisons
from lit_align.feedback.discriminator import Discriminator
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.judge import Judge
from lit_align.feedback.self_play import SelfPlay
from lit_align.judges.local_model import LocalModel
from lit_align.judges.openai_server import OpenAIServer
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.dpo import DPO
from lit_align.online.datamodule import Online
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import response_text
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from tests.judges.servers import Faulty
from tests.processes import Trace, assert_learned_the_same, make_trainer, run_processes
from tests.stages.runs import write_pairs

WORLDS = (1, 2, 4)


@dataclass(frozen=True)
class Letters(Reward):
    """A number that hardly two texts share."""

    def __call__(self, groups):
        texts = [response_text(response) for group in groups for response in group.responses]
        return Scores(torch.tensor([float(sum(map(ord, text))) for text in texts]))


LETTERS = FromReward(Letters())
MAX_CALLS = 9
QUESTION = "{{ prompt }}\n{{ a | quoted }}\n{{ b | quoted }}\nA or B:"


def average(folder):
    """A reference that follows; a reward scores."""
    return {"feedback": LETTERS, "reference_update": "average"}


def spin(folder):
    """The data's answers against the policy's own."""
    return {
        "feedback": SelfPlay(),
        "include_reference_answer": True,
        "reference_update": "round",
        "num_generations": 1,
    }


def self_rewarding(folder):
    """The policy judges its own responses; each process asks about some."""
    return {"feedback": Judge(LocalModel(role="policy"), template=str(folder / "question.j2"))}


def discriminator(folder):
    """A reward model learns in each round from a few labels."""
    reward = RewardModelScore(str(folder / "reward"))
    return {"feedback": Discriminator(reward, LETTERS, label_budget=4, lr=0.01)}


def replay(folder):
    """Half of a round is of earlier ones."""
    return {"feedback": LETTERS, "responses": "replay", "fresh_fraction": 0.5}


def served(folder):
    """A judge behind a server, which may be asked so often in a run."""
    server = OpenAIServer(
        (folder / "url").read_text(), "m", cache=None, concurrency=1, max_calls=MAX_CALLS
    )
    return {"feedback": Judge(server, swap=False)}


SOURCES: dict[str, Callable] = {
    "average": average,
    "spin": spin,
    "self_rewarding": self_rewarding,
    "discriminator": discriminator,
    "replay": replay,
    "served": served,
}
RUNS = [(2, name) for name in SOURCES]
RUNS += [(4, name) for name in ("self_rewarding", "discriminator", "served")]
"""Numbers of processes, and what they run."""


def module_of(tiny, stage=Preference, objective=DPO(0.1)):  # noqa: B008 - frozen
    return stage(
        objective,
        base=Base(str(tiny), "none", "float32"),
        lora=Lora(r=4),
        max_new_tokens=6,
        gradient_checkpointing=False,
        optimizer=partial(torch.optim.AdamW, lr=0.001),
    )


def learn(tiny, folder, world):
    """Rounds with every source in turn, in this process of ``world``; what each rank has in the end."""
    for name, settings in SOURCES.items():
        if world > 1 and (world, name) not in RUNS:
            continue
        module, trace = module_of(tiny), Trace()
        usual = {"rounds": 2, "round_size": 5, "num_generations": 2, "batch_size": 3}
        data = Online(
            str(folder / "pairs.jsonl"),
            **{**usual, **settings(folder)},
            token_budget=256,
            max_length=128,
            prepared_cache=None,
        )
        run = folder / str(world) / name
        trainer = make_trainer(run, callbacks=[trace])
        trainer.fit(module, data)
        weights = {key: value.detach() for key, value in module.trained_parameters().items()}
        torch.save((trace.steps, weights), run / f"{trainer.global_rank}.pt")


def learn_reward(tiny, folder):
    """The reward model that the discriminator begins with."""
    module = module_of(tiny, RewardModel, BradleyTerry())
    data = Comparisons(str(folder / "pairs.jsonl"), max_length=128, prepared_cache=None)
    make_trainer(folder / "rm", max_steps=1).fit(module, data)
    module.save_adapter(folder / "reward")


@pytest.fixture(scope="module")
def learned(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    write_pairs(folder / "pairs.jsonl", rows=7)
    (folder / "question.j2").write_text(QUESTION)
    output = folder / "reward.txt"
    assert run_processes(1, partial(learn_reward, tiny, folder), output) == [0], output.read_text()
    for world in WORLDS:
        server = Faulty()
        Thread(target=server.serve_forever, daemon=True).start()
        (folder / "url").write_text(server.url)
        output = folder / f"{world}.txt"
        status = run_processes(world, partial(learn, tiny, folder, world), output)
        server.shutdown()
        assert status == [0] * world, output.read_text()[-5000:]
        assert sum(server.calls.values()) == MAX_CALLS, world
    return folder


def rounds_of(run):
    """The records of all rounds, without times."""
    files = sorted((run / "rounds").iterdir())
    assert [file.name for file in files] == ["0.jsonl", "1.jsonl"]
    rows = [json.loads(line) for file in files for line in file.open()]
    for row in rows:
        for record in row["records"]:
            record.pop("seconds", None)
    return rows


def same(value, expected):
    """Equal, but for the rounding of numbers."""
    if isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same(value[k], expected[k]) for k in value)
    if isinstance(expected, list):
        return len(value) == len(expected) and all(map(same, value, expected))
    return value == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(("world", "name"), RUNS)
def test_processes_make_the_rounds_of_one(learned, world, name):
    """Responses, labels and their costs, the trace, and the weights on each process."""
    runs = learned / "1" / name, learned / str(world) / name
    assert same(rounds_of(runs[1]), rounds_of(runs[0]))
    expected, _ = torch.load(runs[0] / "0.pt")
    assert len(expected) == 4
    assert_learned_the_same(runs[1], runs[0], world)
