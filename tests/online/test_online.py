"""On-line rounds: they go on exactly, replay exactly, keep what was sampled, and train any objective."""

import json
import re
from collections import Counter
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer

from lit_align.callbacks.last_checkpoint import LastCheckpoint
from lit_align.cli.main import main
from lit_align.data.datamodules import Comparisons
from lit_align.errors import ConfigError, DataError
from lit_align.feedback.from_reward import FromReward
from lit_align.feedback.self_play import SelfPlay
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.objectives.ipo import IPO
from lit_align.objectives.kto import KTO
from lit_align.objectives.plackett_luce_dpo import PlackettLuceDPO
from lit_align.online.datamodule import Online
from lit_align.online.responses import replayed_groups
from lit_align.online.round_loader import RoundLoader
from lit_align.rewards.length import Length
from lit_align.stages.checkpoints import SafeIO
from lit_align.stages.preference import Preference
from lit_align.stages.sft import SFT
from lit_align.types import Group, Tree
from tests.forked import kill_once_there, start_command
from tests.stages.runs import ROOT, arguments, folder_of, trace, write_pairs

SHORT = FromReward(Length(max_words=1))


def fit(tiny, folder, data, objective=DPO(0.1), stop=-1, checkpoint=None, **settings):  # noqa: B008 - frozen
    """A run in Python; the module, and loss and gradient norm of each step."""
    stage = SFT if isinstance(objective, CrossEntropy) else Preference
    module = stage(
        objective, base=Base(str(tiny), "none", "float32"), lora=Lora(r=4), max_new_tokens=8,
        gradient_checkpointing=False,
        optimizer=partial(torch.optim.AdamW, lr=0.01), **settings,
    )  # fmt: skip
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    running = Trainer(
        max_steps=stop,
        default_root_dir=folder,
        plugins=[SafeIO()],
        callbacks=[LastCheckpoint(1)],
        **quiet,
    )
    seen, write = [], module.log_step

    def note(step, metrics, norm):
        seen.append((metrics["loss"], norm))
        write(step, metrics, norm)

    module.log_step = note
    running.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return module, seen


def online(train, feedback=SHORT, **settings):
    usual = {
        "rounds": 3,
        "round_size": 8,
        "num_generations": 3,
        "batch_size": 4,
        "token_budget": 256,
        "max_length": 256,
        "as_chat": False,
    }
    return Online(str(train), feedback, **{**usual, **settings})


def rounds(folder):
    """Records of each round."""
    files = sorted((folder / "rounds").glob("*.jsonl"), key=lambda file: int(file.stem))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


@pytest.fixture(scope="module")
def whole(tiny, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *fit(tiny, folder, online(pairs, reference_update="average"))


@pytest.mark.parametrize("stop", [1, 2, 3])  # inside the first round, at its end, inside the second
def test_a_run_that_was_stopped_goes_on_bit_for_bit(stop, whole, tiny, pairs, tmp_path):
    folder, _, seen = whole
    _, before = fit(tiny, tmp_path / "cut", online(pairs, reference_update="average"), stop=stop)
    last = tmp_path / "cut/checkpoints/last.ckpt"
    _, after = fit(
        tiny, tmp_path / "rest", online(pairs, reference_update="average"), checkpoint=last
    )
    assert before + after == seen
    for file in (tmp_path / "rest/rounds").glob("*.jsonl"):
        texts = [
            re.sub(r'"seconds": [^}]*', "", path.read_text())
            for path in (file, folder / "rounds" / file.name)
        ]
        assert texts[0] == texts[1]


def test_a_killed_command_goes_on_bit_for_bit(tiny, pairs, tmp_path):
    usual = [
        word
        for word in arguments(tiny, pairs, tmp_path)
        if not word.startswith(("--run", "--data"))
    ]
    data = [
        *(
            "--data=Online",
            f"--data.train={pairs}",
            "--data.feedback=FromReward",
            "--data.feedback.reward=Length",
        ),
        *(
            "--data.feedback.reward.max_words=1",
            "--data.rounds=3",
            "--data.round_size=8",
            "--data.batch_size=4",
        ),
        "--data.num_generations=3",
        *(
            "--data.token_budget=256",
            "--data.max_length=256",
            "--model.max_new_tokens=8",
            "--save_every=1",
        ),
    ]
    main([*usual, *data, f"--run={tmp_path}/whole"])
    process = start_command([*usual, *data, f"--run={tmp_path}/cut"], ROOT)
    checkpoint = tmp_path / "cut/0/checkpoints/last.ckpt"
    kill_once_there(process, checkpoint)
    main([*usual, *data, f"--run={tmp_path}/rest", f"--ckpt_path={checkpoint}"])
    rest = trace(tmp_path / "rest")
    assert len(trace(tmp_path / "whole")) == 6
    assert rest == trace(tmp_path / "whole")
    assert (folder_of(tmp_path / "rest") / "rounds" / "2.jsonl").exists()


def test_records_replay_to_the_same_gradients(whole, tiny, tmp_path):
    """Cut answers too, which their text alone would end."""
    folder, _, seen = whole
    records = str(folder / "rounds/0.jsonl")
    replayed = {
        "responses": "dataset",
        "relabel": False,
        "rounds": 1,
        "round_size": None,
        "shuffle": False,
    }
    module, again = fit(tiny, tmp_path, online(records, None, **replayed))
    assert again == seen[:2]
    assert module.adapters.copy_weights("reference") == {}


def test_records_say_all_that_happened(whole, pairs):
    folder, _, _ = whole
    found = rounds(folder)
    assert [len(records) for records in found] == [8, 8, 8]
    sources = Counter(row["source"] for records in found for row in records)
    assert set(sources.values()) == {1, 2}  # 24 of 22 prompts: a pass, and two of the next
    for number, records in enumerate(found):
        for row in records:
            assert (row["round"], row["step"]) == (number, 2 * number)
            assert len(row.get("samples", row["responses"])) == 3
            assert row["records"][0]["source"] == "Length(max_words=1, min_words=0)"
            assert row.get("set_aside") == ("a tie" if "pairs" not in row else None)
            for ids in filter(None, row["tokens"]):
                assert len(ids) == 8 or ids[-1] == 256  # cut at the limit, or ended by the model


@pytest.mark.parametrize(("reference_update", "fresh_fraction"), [("round", 1.0), ("average", 0.5)])
def test_the_reference_follows_the_policy_when_a_round_begins(
    reference_update, fresh_fraction, tiny, pairs, tmp_path
):
    """After one round it is the policy of that moment, or what lies between; B starts at zero, so does A with it."""
    policy, _ = fit(tiny, tmp_path / "one", online(pairs, rounds=1))
    later, _ = fit(
        tiny,
        tmp_path / "two",
        online(pairs, rounds=2, reference_update=reference_update, reference_ema=0.5),
    )
    then, now = policy.adapters.copy_weights("policy"), later.adapters.copy_weights("reference")
    assert any(weight.abs().max() > 0 for name, weight in now.items() if "lora_B" in name)
    for name, weight in now.items():
        torch.testing.assert_close(weight, then[name] * (fresh_fraction if "lora_B" in name else 1))


def test_some_prompts_may_keep_what_the_data_have(tiny, pairs, tmp_path):
    """Half of a round on policy; an answer of the data beside each sample where that is asked for."""
    fit(
        tiny,
        tmp_path,
        online(pairs, rounds=1, responses="dataset", fresh_fraction=0.5, num_generations=2),
    )
    (records,) = rounds(tmp_path)
    assert sum(any(row["tokens"]) or "samples" in row for row in records) == 4
    recorded = {json.loads(line)["chosen"][0]["content"] for line in pairs.read_text().splitlines()}
    fit(
        tiny,
        tmp_path / "self",
        online(pairs, SelfPlay(), rounds=1, num_generations=1, include_reference_answer=True),
    )
    (records,) = rounds(tmp_path / "self")
    assert len(records) == 8
    for row in records:
        (better, _, *_), (held, sampled) = row["pairs"][0], row["tokens"]
        assert (better, held, len(sampled) <= 8) == (0, None, True)
        assert row["responses"][0][0]["content"] in recorded


def test_earlier_rounds_may_be_replayed(tiny, pairs, tmp_path):
    """The first has nothing to replay; of the others half is, token by token and label by label, also after a stop."""
    settings = {"responses": "replay", "relabel": False, "fresh_fraction": 0.5}
    _, seen = fit(tiny, tmp_path / "whole", online(pairs, **settings))
    first, second, third = rounds(tmp_path / "whole")
    assert len(first) == len(second) == len(third) == 8
    labelled = [
        (row["source"], row["tokens"], row["pairs"]) for row in first + second if "pairs" in row
    ]
    assert all((row["source"], row["tokens"], row["pairs"]) in labelled for row in third[4:])
    _, before = fit(tiny, tmp_path / "cut", online(pairs, **settings), stop=3)
    _, after = fit(
        tiny,
        tmp_path / "rest",
        online(pairs, **settings),
        checkpoint=tmp_path / "cut/checkpoints/last.ckpt",
    )
    assert before + after == seen


def test_what_was_replayed_often_is_no_more_probable_to_be_replayed():
    row = {
        "prompt": "one",
        "responses": ["two", "three"],
        "pairs": [[0, 1]],
        "tokens": [[1], [2]],
        "source": "rows:1",
    }
    past = [{**row, "round": number} for number in range(99)] + [
        {**row, "round": 0, "tokens": [[3], [4]]}
    ]
    drawn = replayed_groups(past, 400, seed="0 1")
    assert (
        150 < sum(group.extra["tokens"] == [[3], [4]] for group in drawn) < 250
    )  # 200, and 10 is a deviation


@pytest.mark.parametrize("objective", [IPO(), KTO(), PlackettLuceDPO(), CrossEntropy()], ids=repr)
def test_any_objective_learns_from_rounds(objective, tiny, pairs, tmp_path):
    _, seen = fit(
        tiny, tmp_path, online(pairs, rounds=2, round_size=6, validation=str(pairs)), objective
    )
    labelled = [sum("set_aside" not in row for row in records) for records in rounds(tmp_path)]
    assert (
        len(seen) == sum(min(2, count) for count in labelled) >= 3
    )  # a step without a label is passed over
    assert all(norm > 0 for _, norm in seen)


def test_recorded_pairs_train_as_ever(tiny, pairs, tmp_path):
    """The data's responses with the data's labels are comparisons, step by step."""
    plain = Comparisons(str(pairs), batch_size=4, token_budget=256, max_length=256, shuffle=False)
    _, wanted = fit(tiny, tmp_path / "plain", plain, stop=2)
    same = {
        "responses": "dataset",
        "relabel": False,
        "shuffle": False,
        "rounds": 1,
        "round_size": 8,
    }
    _, seen = fit(tiny, tmp_path / "online", online(pairs, None, **same))
    assert seen == wanted


def test_a_first_round_without_labels_stops_the_run(tiny, pairs, tmp_path):
    from lit_align.rewards.pattern import Pattern

    with pytest.raises(DataError, match="none of the 8 prompts of the first round got a label"):
        fit(tiny, tmp_path, online(pairs, FromReward(Pattern("^$never"))))
    assert [row["set_aside"] for row in rounds(tmp_path)[0]] == ["a tie"] * 8


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"feedback": None},
            "feedback is null, responses is fresh and relabel true; set feedback to what labels",
        ),
        (
            {
                "feedback": None,
                "responses": "dataset",
                "fresh_fraction": 0.5,
                "relabel": False,
            },
            "feedback is null, responses is dataset and relabel false",
        ),
        ({"responses": "replay"}, "responses is replay and fresh_fraction 0"),
        ({"temperature": 0.0}, "temperature is 0.0, so all 3 samples would be the same"),
        ({"fresh_fraction": 1.5}, "fresh_fraction must be between 0 and 1, got 1.5"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
    ],
)
def test_rounds_that_would_be_empty_are_refused(settings, says, pairs):
    with pytest.raises(ConfigError, match=says):
        online(pairs, **settings)


def test_what_cannot_fit_is_refused_before_a_round(tiny, pairs, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"a prompt of \d+ tokens and 3 responses of up to 8 make \d+ tokens, over data.to",
    ):
        fit(tiny, tmp_path, online(pairs, token_budget=70))
    with pytest.raises(
        ConfigError, match="reference_update is round, and cache_reference needs a fixed reference"
    ):
        fit(tiny, tmp_path, online(pairs, reference_update="round"), cache_reference=str(tmp_path))


@given(count=st.integers(1, 12), size=st.integers(1, 15), seed=st.integers(0, 3))
def test_rounds_use_every_prompt_before_any_again(count, size, seed):
    trees = [Tree([k], [], [], Group("", [])) for k in range(count)]
    made = RoundLoader(
        trees, size, lambda *_: [], lambda rows: [], batch_size=1, token_budget=8, seed=seed
    )
    drawn = [tree.prompt[0] for number in range(6) for tree in made.prompts(number)]
    assert len(drawn) == 6 * min(size, count)
    for first in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[first : first + count]) == list(range(count))
