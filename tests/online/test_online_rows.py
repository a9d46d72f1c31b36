"""On-line rounds over odd rows and in every mode: what is read, kept, labelled and taken up again."""

import datetime
import json
from dataclasses import dataclass, field

import pytest
import torch
from lightning.pytorch import Trainer

import lit_align
from lit_align.cli.main import main
from lit_align.errors import ConfigError
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.discriminator import Discriminator
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.self_play import SelfPlay
from lit_align.models.adapter_set import Lora
from lit_align.models.generate import _draw_uniforms
from lit_align.models.load import Base
from lit_align.objectives.dpo import DPO
from lit_align.objectives.kto import KTO
from lit_align.objectives.regression import Regression
from lit_align.online.records import match_ids
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import response_text
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from tests.evaluation.real import write
from tests.online.test_online import fit, online, rounds
from tests.stages.runs import arguments, folder_of, say, write_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


@pytest.fixture
def prompts(tmp_path):
    return write(tmp_path / "prompts.jsonl", [{"prompt": f"{k} {say(k, 2)}?"} for k in range(16)])


@dataclass(frozen=True)
class Letters(Reward):
    """A number that hardly two texts share."""

    def __call__(self, groups):
        texts = [response_text(response) for group in groups for response in group.responses]
        return Scores(
            torch.tensor(
                [float(sum(k * ord(letter) for k, letter in enumerate(text, 1))) for text in texts]
            )
        )


@dataclass(frozen=True)
class Some(Feedback):
    """Labels some prompts, by the number that they begin with."""

    numbers: frozenset[int] = field(default_factory=frozenset)

    def __call__(self, groups, label_kind):
        said = FromReward(Letters())(groups, label_kind)
        return [
            one
            if int(str(group.prompt).split()[0]) in self.numbers
            else FeedbackResult(None, reason="not asked")
            for group, one in zip(groups, said, strict=True)
        ]


# ---------------------------------------------------------------------- rows


@pytest.mark.parametrize("responses", ["fresh", "dataset"])
def test_records_of_another_run_are_labelled_anew(responses, tiny, tmp_path):
    """What was set aside there, and what was sampled, says nothing of what is said of it here."""
    rows = [
        {
            "prompt": f"{k} {say(k, 2)}?",
            "responses": ["one", "one two"],
            "set_aside": "a tie",
            "samples": ["x", "y"],
        }
        for k in range(8)
    ]
    train = write(tmp_path / "rows.jsonl", rows)
    fit(tiny, tmp_path, online(train, rounds=1, responses=responses))
    (records,) = rounds(tmp_path)
    labelled = [row for row in records if "set_aside" not in row]
    assert (
        len(labelled)
        == (8 if responses == "dataset" else len([row for row in records if "pairs" in row]))
        > 0
    )
    assert all("x" not in row.get("samples", ()) for row in records) or responses == "dataset"


def test_a_column_that_is_a_date_stops_nothing(tiny, tmp_path):
    """Parquet has such columns, and neither JSON nor a checkpoint does."""
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": f"{k} {say(k, 2)}?", "day": datetime.date(2024, 1, 1 + k)} for k in range(8)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    train = tmp_path / "rows.parquet"
    _, before = fit(tiny, tmp_path / "cut", online(train, rounds=1), stop=1)
    assert rounds(tmp_path / "cut")[0][0]["day"].startswith("2024-01-0")
    _, after = fit(
        tiny,
        tmp_path / "rest",
        online(train, rounds=1),
        checkpoint=tmp_path / "cut/checkpoints/last.ckpt",
    )
    assert len(before) == len(after) == 1


def test_prompts_are_enough_for_kto_and_rounds_of_one_prompt_or_none(tiny, prompts, tmp_path):
    """Its baseline is of responses to other prompts, of which a round of one prompt has none; it goes on."""
    settings = {"round_size": 4, "rounds": 4, "shuffle": False}
    feedback = Some(
        frozenset({0, 1, 2, 3, 4, *range(12, 16)})
    )  # of the second round one, of the third none
    _, seen = fit(tiny, tmp_path, online(prompts, feedback, **settings), KTO())
    labelled = [sum("set_aside" not in row for row in records) for records in rounds(tmp_path)]
    assert labelled[1:3] == [1, 0]
    assert len(seen) == 3
    assert all(torch.tensor(one).isfinite().all() for one in seen)


def test_a_recorded_answer_that_is_too_long_does_not_lose_its_prompt(tiny, tmp_path):
    rows = [{"prompt": f"{k} {say(k, 2)}?", "completion": say(k, 200)} for k in range(8)]
    fit(tiny, tmp_path, online(write(tmp_path / "rows.jsonl", rows), rounds=1))
    assert len(rounds(tmp_path)[0]) == 8


def fit_self_play(tiny, folder, rows):
    """One round of self-play against the answers in ``rows``."""
    data = online(
        write(folder / "rows.jsonl", rows),
        SelfPlay(),
        rounds=1,
        num_generations=1,
        include_reference_answer=True,
    )
    fit(tiny, folder, data)


def test_a_row_without_an_answer_to_hold_up_is_set_aside(tiny, tmp_path):
    rows = [
        {"prompt": f"{k} {say(k, 2)}?", "completion": "one", "label": k % 2 == 0} for k in range(8)
    ]
    fit_self_play(tiny, tmp_path, rows)
    whys = [row.get("set_aside") for row in rounds(tmp_path)[0]]
    assert whys.count("no reference answer") == 4


def test_the_target_of_a_row_is_the_answer_that_is_held_up(tiny, tmp_path):
    rows = [
        {"prompt": f"{k} {say(k, 2)}?", "responses": ["one", "two"], "target": 1} for k in range(8)
    ]
    fit_self_play(tiny, tmp_path, rows)
    assert [row["responses"][0] for row in rounds(tmp_path)[0]] == ["two"] * 8


def test_what_was_sampled_is_no_longer_than_max_length(tiny, prompts, tmp_path):
    """With overlong: truncate the ids lose their end as the text does."""
    data = online(prompts, rounds=1, max_length=20, overlong="truncate")
    made = []
    make_trees = data._make_trees
    data._make_trees = lambda records: made.extend(make_trees(records)) or made
    fit(tiny, tmp_path, data)
    assert {len(tree.prompt) + max(map(len, tree.responses)) for tree in made} <= set(range(21))
    assert any(len(tree.prompt) + max(map(len, tree.responses)) == 20 for tree in made)


def test_the_same_words_may_have_been_sampled_as_other_tokens():
    said = ["one", "two", "one"]
    assert match_ids(said, [[1], [2], [3, 4]], ["one", "one"]) == [[1], [3, 4]]
    assert match_ids(said, [None, [2], [3, 4]], ["two", "one", "new"]) == [[2], None, None]


def test_a_date_is_a_seed():
    assert not torch.equal(
        _draw_uniforms(20251121 * 1_000_003 + 1, 0, 1, 4),
        _draw_uniforms(20251121 * 1_000_003 + 2, 0, 1, 4),
    )


def test_a_reward_model_learns_from_marks_but_says_nothing(tiny, pairs, tmp_path):
    usual = {
        "base": Base(str(tiny), "none", "float32"),
        "lora": Lora(r=4),
        "gradient_checkpointing": False,
    }
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }

    def learn(**settings):
        trainer = Trainer(default_root_dir=tmp_path, enable_checkpointing=False, **quiet)
        trainer.fit(
            RewardModel(Regression({"score": 1.0}), **usual), online(pairs, rounds=1, **settings)
        )
        return trainer.global_step

    assert learn(responses="dataset") == 2
    assert rounds(tmp_path)[0][0]["ratings"][0].keys() == {"score"}
    with pytest.raises(
        ConfigError,
        match="RewardModel trains no policy to sample from; set responses to dataset",
    ):
        learn()


@pytest.mark.parametrize("limit", [1, 0.5])
def test_part_of_a_round_is_not_a_round(limit, tiny, pairs, tmp_path):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    trainer = Trainer(default_root_dir=tmp_path, limit_train_batches=limit, **quiet)
    module = Preference(
        DPO(0.1), base=Base(str(tiny), "none", "float32"), lora=Lora(r=4), max_new_tokens=8
    )
    with pytest.raises(
        ConfigError,
        match=f"trainer.limit_train_batches is {limit}, and a round would continue in the",
    ):
        trainer.fit(module, online(pairs))
    quick = Trainer(default_root_dir=tmp_path, fast_dev_run=True, **quiet)
    quick.fit(module, online(pairs, rounds=1))
    assert quick.global_step == 1


# ---------------------------------------------------------------------- taken up again


@pytest.fixture(scope="module")
def rewarding(tiny, pairs, tmp_path_factory):
    """The adapter of a reward model after two steps."""
    at = tmp_path_factory.mktemp("reward")
    main([
        *("fit", f"--run={at}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        *("--model=RewardModel", "--model.objective=BradleyTerry", f"--model.base.path={tiny}", "--model.lora.r=4"),
        *("--model.base.quantization=none", "--model.base.dtype=float32", "--data=Comparisons"),
        *(f"--data.train={pairs}", "--trainer.max_steps=2", "--data.max_length=256"),
    ])  # fmt: skip
    return folder_of(at) / "adapter"


@pytest.fixture(scope="module")
def tuned(tiny, pairs, tmp_path_factory):
    """The adapter of a policy after two steps."""
    at = tmp_path_factory.mktemp("sft")
    main([*arguments(tiny, pairs, at, "--trainer.max_steps=2")])
    return str(folder_of(at) / "adapter")


MODES = {
    "dataset": {
        "responses": "dataset",
        "relabel": True,
        "fresh_fraction": 0.5,
        "reference_update": "round",
    },
    "recorded": {"responses": "dataset", "relabel": False, "fresh_fraction": 0.25},
    "replay": {"responses": "replay", "fresh_fraction": 0.5, "reference_update": "average"},
    "spin": {
        "feedback": SelfPlay(),
        "include_reference_answer": True,
        "num_generations": 1,
        "reference_update": "round",
    },
    "gaps": {
        "feedback": Some(frozenset({*range(8), *range(16, 22)})),
        "shuffle": False,
        "reference_update": "round",
    },
}


def again(tiny, data, tmp_path, stop, objective=None, **settings):
    """Steps of a whole run, and of one that stopped and went on; the modules at their ends."""
    objective = objective or DPO(0.1)
    whole, seen = fit(tiny, tmp_path / "whole", data(), objective, **settings)
    _, before = fit(tiny, tmp_path / "cut", data(), objective, stop=stop, **settings)
    last = tmp_path / "cut/checkpoints/last.ckpt"
    module, after = fit(tiny, tmp_path / "rest", data(), objective, checkpoint=last, **settings)
    for role in ("policy", "reference"):
        assert all(
            torch.equal(w, module.adapters.copy_weights(role)[name])
            for name, w in whole.adapters.copy_weights(role).items()
        )
    return seen, before, after


@pytest.mark.parametrize("stop", [2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_goes_on_bit_for_bit(mode, stop, tiny, tmp_path, pairs):
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    plain = [{name: text[0]["content"] for name, text in row.items()} for row in rows]
    train = write(tmp_path / "rows.jsonl", plain)
    settings = {"feedback": FromReward(Letters()), **MODES[mode]}
    seen, before, after = again(tiny, lambda: online(train, **settings), tmp_path, stop)
    assert before + after == seen
    assert len(before) == stop < len(seen)


def test_a_discriminator_goes_on_bit_for_bit_from_an_adapter(
    tiny, pairs, rewarding, tuned, tmp_path
):
    """What it learned, beside a reference that begins as the adapter and moves."""

    def data():
        gold = Discriminator(
            RewardModelScore(str(rewarding)), FromReward(Letters()), label_budget=4, lr=0.01
        )
        return online(pairs, gold, reference_update="average")

    seen, before, after = again(tiny, data, tmp_path, 3, init_adapter=tuned)
    assert before + after == seen


def test_a_run_loads_and_its_reference_is_where_it_began(tiny, pairs, tmp_path):
    """The moved reference is training's own; who answers as the reference of a loaded run is the base."""
    module, _ = fit(tiny, tmp_path, online(pairs, rounds=2, reference_update="round"))
    loaded = lit_align.load(tmp_path)
    assert loaded.adapters.copy_weights("reference") == {}
    assert all(
        torch.equal(w, loaded.adapters.copy_weights("policy")[name])
        for name, w in module.adapters.copy_weights("policy").items()
    )
