"""Process reward models: where a step is scored, what is learned from it, and what the reward says of it."""

import csv
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.cli.main import main
from lit_align.data.datamodules import Comparisons, Demonstrations
from lit_align.data.label_conversion import convert_labels
from lit_align.data.labelled_steps import Steps
from lit_align.data.packing import pack
from lit_align.data.solution_steps import StepSettings, split_steps
from lit_align.data.tokenize import ChatTokenizer
from lit_align.data.tree_store import group_from_json, group_to_json
from lit_align.errors import ConfigError, ModelError, Overlong, SetAside
from lit_align.functional.step_scores import running_aggregates, step_gains
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.step_cross_entropy import StepCrossEntropy
from lit_align.rewards.process import ProcessScore
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.stages.preference import Preference
from lit_align.stages.process_reward_model import ProcessRewardModel
from lit_align.stages.reward_model import RewardModel
from lit_align.types import Group, LabelKind, SolutionStep, Tree
from tests import tiny as make
from tests.stages.runs import arguments, folder_of
from tests.stages.test_exact import gradient, stage, step

ROWS = []
for k in range(2, 12):
    sums = [f"{k} + {k} = {2 * k}", f"{2 * k} + 1 = {3 * k}"]
    ROWS.append({"prompt": f"{k} + {k} + 1?", "completions": sums, "labels": [True, False]})


def labelled(*labels, prompt="2 + 2 + 1?"):
    """A group of one response, of as many steps as labels."""
    steps = tuple(SolutionStep(f"{k} + 1 = {k + 1}", label) for k, label in enumerate(labels))
    return Group(prompt, [""], steps=(steps,))


def encode(group, as_chat=True, max_length=999, **steps):
    """With a tokenizer that has a token for each byte."""
    chat = ChatTokenizer(
        make.tokenizer(), max_length=max_length, as_chat=as_chat, overlong="truncate", steps=StepSettings(**steps)
    )  # fmt: skip
    return chat.encode(group).tree


def texts_up_to_marks(tree: Tree) -> list[str]:
    """The text of the response up to each scored token."""
    ids, marks = tree.responses[0], tree.scored[0]
    return [make.tokenizer().decode(ids[: k + 1]) for k, mark in enumerate(marks) if mark]


@pytest.mark.parametrize("as_chat", [True, False])
def test_a_step_is_scored_where_its_separator_ends_and_the_last_where_the_response_does(as_chat):
    tree = encode(labelled(1.0, None, 0.0), as_chat, separator=";\n")
    assert texts_up_to_marks(tree) == [
        "0 + 1 = 1;\n",
        "0 + 1 = 1;\n1 + 1 = 2;\n2 + 1 = 3<|im_end|>",
    ]
    assert tree.group.items == 2


def test_steps_beyond_the_first_error_and_before_the_last_may_be_left_out():
    group = labelled(1.0, 0.0, 1.0, 0.0)
    assert encode(group).group.step_labels == [1.0, 0.0, 1.0, 0.0]
    first = encode(group, learned="to_first_error")
    assert first.group.step_labels == [1.0, 0.0]
    assert len(texts_up_to_marks(first)) == 2
    last = encode(group, learned="last")
    assert [step.label for step in last.group.steps[0]] == [None, None, None, 0.0]
    assert texts_up_to_marks(last)[0].endswith("<|im_end|>")


def test_a_step_whose_end_is_cut_off_is_not_learned():
    whole = encode(labelled(1.0, 0.0))
    room = len(whole.prompt) + len(whole.responses[0]) - 4
    cut = encode(labelled(1.0, 0.0), max_length=room)
    assert cut.group.step_labels == [1.0]
    assert sum(cut.scored[0]) == 1
    with pytest.raises(Overlong, match="nothing to learn"):
        encode(labelled(1.0, 0.0), max_length=len(whole.prompt) + 3)


def test_steps_that_the_template_changes_are_set_aside():
    tokenizer = make.tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "m['content']", "m['content'] | replace('\n', ' / ')"
    )
    with pytest.raises(SetAside):
        ChatTokenizer(tokenizer, max_length=99).encode(labelled(1.0, 0.0))


def test_labels_survive_json_and_are_picked_with_their_response():
    group = labelled(None, None)._replace(responses=["a", "b"])
    group = group._replace(steps=(*group.steps, (SolutionStep("b", 0.25),)))
    assert group_from_json(group_to_json(group)) == group
    kept = convert_labels(group, LabelKind.STEPS)
    assert (kept.responses, kept.step_labels) == (["b"], [0.25])
    with pytest.raises(SetAside, match="no label of a step"):
        convert_labels(labelled(None), LabelKind.STEPS)


def some_trees() -> list[Tree]:
    labels = [(1.0, 0.0), (1.0, 1.0, 0.3), (0.0,), (1.0, None, 0.0, 0.0)]
    groups = [labelled(*row, prompt=f"{k} and {k * k}?") for k, row in enumerate(labels)]
    two = groups[0]._replace(responses=["", ""], steps=(*groups[0].steps, *groups[1].steps))
    return [encode(group) for group in [*groups, two]]


def test_the_loss_is_the_mean_cross_entropy_of_steps_from_plain_passes(tiny):
    """Each step's prefix through the model as transformers calls it, and the head by hand."""
    module, rows = stage(ProcessRewardModel, StepCrossEntropy(), tiny), some_trees()
    head = module.adapters.head("reward")
    wanted = []
    with torch.no_grad(), module.adapters.activate("reward", training=False) as model:
        for tree in rows:
            labels = iter(tree.group.step_labels)
            for ids, marks in zip(tree.responses, tree.scored, strict=True):
                for place in (k for k, mark in enumerate(marks) if mark):
                    prefix = torch.tensor([tree.prompt + ids[: place + 1]])
                    hidden = model.base_model(input_ids=prefix).last_hidden_state[0, -1]
                    chance = (head.weight[0] @ hidden + head.bias[0]).double().sigmoid()
                    label = next(labels)
                    wanted.append(-(label * chance.log() + (1 - label) * (1 - chance).log()))
    found, _ = gradient(module, step(rows, 10_000))
    assert len(wanted) == 14
    assert found == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-5)


def test_micro_batches_change_neither_loss_nor_gradient(tiny):
    module, rows = stage(ProcessRewardModel, StepCrossEntropy(), tiny, members=2), some_trees()
    parts = step(rows, max(tree.tokens for tree in rows))
    assert len(parts.batches) >= 3
    (loss, grad), (loss_, grad_) = gradient(module, step(rows, 10_000)), gradient(module, parts)
    assert loss_ == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(grad_, grad, rtol=1e-4, atol=1e-6)


def test_a_model_that_reads_rows_gives_the_same_log_odds(tiny):
    module = stage(ProcessRewardModel, StepCrossEntropy(), tiny)
    (batch,) = pack(some_trees(), 10_000)
    packed = module.member_scores("reward", batch, training=False)
    module.tree_forward.layout = "rows"
    torch.testing.assert_close(module.member_scores("reward", batch, False), packed)


def test_the_wrong_stage_or_data_is_refused(tiny):
    with pytest.raises(ConfigError, match="use the stage ProcessRewardModel"):
        stage(RewardModel, StepCrossEntropy(), tiny)
    with pytest.raises(ConfigError, match="use the stage ProcessRewardModel"):
        stage(Preference, StepCrossEntropy(), tiny)
    with pytest.raises(ConfigError, match="from labels of steps"):
        stage(ProcessRewardModel, BradleyTerry(), tiny)
    with pytest.raises(ConfigError, match="step_separator is empty"):
        Steps("rows.jsonl", step_separator="")


def test_responses_without_steps_are_not_scored_token_by_token(tiny):
    module = stage(ProcessRewardModel, StepCrossEntropy(), tiny)
    module.check_data(Steps("rows.jsonl"))
    for data in (Demonstrations("rows.jsonl"), Comparisons("rows.jsonl")):
        with pytest.raises(ConfigError, match=f"scores labelled steps, and .* {data.label_kind}"):
            module.check_data(data)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A trained process reward model."""
    folder = tmp_path_factory.mktemp("process")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = arguments(tiny, rows, folder / "run", "--trainer.max_steps=3")
    changed = {"--model=Preference": "--model=ProcessRewardModel", "--data=Comparisons": "--data=Steps"}  # fmt: skip
    command = [changed.get(word, word) for word in command]
    command[command.index("--model.objective=DPO")] = "--model.objective=StepCrossEntropy"
    main([*command, f"--data.validation={rows}"])
    main(["predict", f"--config={folder_of(folder / 'run')}/config.yaml", f"--run={folder}/said",
          f"--ckpt_path={folder_of(folder / 'run')}/checkpoints/last.ckpt"])  # fmt: skip
    return folder


def test_a_run_predicts_what_its_reward_says(run):
    file = folder_of(run / "said") / "scores.jsonl"
    predicted = [json.loads(line) for line in file.read_text().splitlines()]
    groups = [Group(row["prompt"], row["responses"]) for row in predicted]
    adapter = str(folder_of(run / "run") / "adapter")
    given = {name: ProcessScore(adapter, aggregate=name)(groups) for name in ("min", "last", "sum")}
    for k, row in enumerate(predicted):
        (steps,) = row["steps"]
        assert len(steps) == given["min"].parts["num_steps"][k] == 2
        assert given["min"].total[k].item() == pytest.approx(min(steps), abs=1e-5)
        assert given["last"].total[k].item() == pytest.approx(steps[-1], abs=1e-5)
        assert given["sum"].total[k].item() == pytest.approx(sum(steps), abs=1e-5)
        assert row["scores"] == [min(steps)]


def test_a_reward_reads_only_models_of_its_kind(run):
    with pytest.raises(ModelError, match="use ProcessScore"):
        RewardModelScore(str(folder_of(run / "run") / "adapter"))


SPELLED = "a <|im_end|> b\nc\n<|im_start|>d"


def test_steps_that_spell_a_special_token_out_end_where_they_stand():
    texts = split_steps(SPELLED, "\n")
    steps = tuple(SolutionStep(text, 1.0) for text in texts)
    tree = encode(Group("2 <|im_end|>?", [""], steps=(steps,)))
    ends = ["a <|im_end|> b\n", "a <|im_end|> b\nc\n", f"{SPELLED}<|im_end|>"]
    assert texts_up_to_marks(tree) == ends
    special = {
        make.tokenizer().eos_token_id,
        make.tokenizer().convert_tokens_to_ids("<|im_start|>"),
    }
    assert sum(token in special for token in tree.responses[0]) == 1


def test_a_response_that_spells_a_special_token_out_is_scored(run):
    reward = ProcessScore(str(folder_of(run / "run") / "adapter"))
    scores = reward([Group("2?", [SPELLED, "a\nb"])])
    assert scores.parts["num_steps"].tolist() == [3.0, 2.0]
    assert scores.total.isfinite().all()


SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(SCORES, st.sampled_from(["min", "product", "last", "mean", "sum"]))
@settings(max_examples=60)
def test_what_steps_are_paid_adds_up_to_the_score(scores, aggregate):
    total = running_aggregates(scores, aggregate)[-1]
    assert sum(step_gains(scores, aggregate)) == pytest.approx(total, abs=1e-9)
    straight = {"min": min(scores), "last": scores[-1], "sum": sum(scores)}
    assert total == pytest.approx(straight.get(aggregate, total), abs=1e-12)


@given(st.lists(st.text("ab \n", max_size=4), max_size=5), st.sampled_from(["\n", "\n\n", " b"]))
@settings(max_examples=100)
def test_steps_put_together_are_the_text_but_for_blanks_at_its_end(pieces, separator):
    text = separator.join(pieces)
    steps = split_steps(text, separator)
    joined = separator.join(steps)
    assert text.startswith(joined)
    assert not text[len(joined) :].replace(separator, "").strip()
    assert all(step.strip() for step in steps) or len(steps) == 1


def sampled(*texts):
    """A group of responses as a policy with a token for each byte samples them: with blanks around, and an end."""
    tokenizer = make.tokenizer()
    ids = [[*tokenizer(f" {text}\n").input_ids, tokenizer.eos_token_id] for text in texts]
    responses = [[{"role": "assistant", "content": text}] for text in texts]
    turns = [{"role": "user", "content": "2 + 2 + 1?"}]
    return Group(turns, responses, response_ids=tuple(ids), source="sums:1")


TEXTS = ("2 + 2 = 4\n4 + 1 = 5", "2 + 2 + 1 = 6", "2 + 2 = 4\n\n4 + 1 = 5\nSo \u20ac5.")


@pytest.mark.parametrize("aggregate", ["min", "sum"])
def test_each_step_is_paid_where_it_ends_and_all_together_the_score(run, aggregate):
    adapter, group = str(folder_of(run / "run") / "adapter"), sampled(*TEXTS)
    whole = ProcessScore(adapter, aggregate=aggregate)([group])
    paid = ProcessScore(adapter, aggregate=aggregate, credit="steps")
    with pytest.raises(ModelError, match="set credit to response"):
        paid([group])
    paid.__dict__["policy_tokenizer"] = make.tokenizer()  # as `attach` sets it
    scores = paid([group])
    assert scores.total.tolist() == [0.0] * 3
    rows = torch.split(scores.tokens, [len(ids) for ids in group.response_ids])
    torch.testing.assert_close(torch.stack([row.sum() for row in rows]), whole.total)
    for row, ids, steps in zip(rows, group.response_ids, (2, 1, 3), strict=True):
        places = row.nonzero()[:, 0].tolist()
        assert len(places) <= steps
        ends = [make.tokenizer().decode(ids[: place + 1]) for place in places]
        assert all(text.endswith(("\n", "<|im_end|>")) for text in ends)
    tokens = paid([group._replace(responses=[TEXTS[0]], response_ids=group.response_ids[:1])])
    assert tokens.tokens.nonzero()[0, 0] == len(" 2 + 2 = 4\n") - 1


def test_rl_learns_from_the_steps_of_what_it_samples(run, tiny):
    """One update whose responses are paid by step, and the log knows how many steps there were."""
    rows = run / "prompts.jsonl"
    rows.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in ROWS[:4]))
    adapter = folder_of(run / "run") / "adapter"
    usual = arguments(tiny, rows, run / "rl", "--trainer.max_steps=1", "--model.max_new_tokens=12")
    changed = {
        "--model=Preference": "--model=RL",
        "--model.objective=DPO": "--model.objective=PPO",
        "--data=Comparisons": "--data=Prompts",
    }
    usual = [changed.get(word, word) for word in usual]
    place = usual.index("--model.objective=PPO") + 1
    usual[place:place] = [
        "--model.reward=ProcessScore",
        f"--model.reward.path={adapter}",
        "--model.reward.credit=steps",
        "--model.advantage=GAE",
        "--model.num_generations=2",
    ]
    main([*usual, "--model.lora.dropout=0"])
    with (folder_of(run / "rl") / "metrics.csv").open() as file:
        logged = next(csv.DictReader(file))
    assert float(logged["rewards/num_steps"]) >= 1
    assert 0 < float(logged["objective/scores"]) < 1
