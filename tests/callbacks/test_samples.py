"""Samples while a model trains: true, and nothing that is learned depends on them."""

import io
import json

import pytest
import rich
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from lit_align.callbacks.samples import SampleLog, choose_prompts, print_samples
from lit_align.cli.main import main
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.run_report.page import render
from lit_align.run_report.record import read_run
from lit_align.run_report.sampled import first_and_last
from lit_align.types import Group, Tree
from tests.orca.test_stage import arguments as orca_arguments
from tests.rl.on_policy import rl_arguments
from tests.stages.runs import arguments, trace, write_chats, write_pairs

STEPS = "--trainer.max_steps=5"
SAMPLES = "--samples={every: 2, prompts: 3, max_new_tokens: 6, temperature: 1.0}"


def preference(tiny, folder, run, *more):
    return arguments(tiny, write_pairs(folder / "pairs.jsonl"), run, STEPS, *more)


def sft(tiny, folder, run, *more):
    rows = write_chats(folder / "chats.jsonl")
    return arguments(tiny, rows, run, STEPS, *more, stage="SFT")


def reward_model(tiny, folder, run, *more):
    usual = preference(tiny, folder, run, "--model.members=2", *more)
    swapped = {"--model=Preference": "--model=RewardModel"}
    swapped["--model.objective=DPO"] = "--model.objective=BradleyTerry"
    return [swapped.get(word, word) for word in usual]


def ppo(tiny, folder, run, *more):
    return rl_arguments(tiny, write_pairs(folder / "pairs.jsonl"), run, STEPS, *more)


def online(tiny, folder, run, *more):
    settings = (
        "--data.rounds=2",
        "--data.feedback=FromReward",
        "--data.feedback.reward=Pattern",
        "--data.feedback.reward.regex=a|e|i|o",
        "--data.round_size=8",
        "--data.num_generations=3",
        "--model.max_new_tokens=12",
    )
    usual = preference(tiny, folder, run, *settings, *more)
    return ["--data=Online" if word == "--data=Comparisons" else word for word in usual]


STAGES = [preference, sft, reward_model, ppo, online]


def sampled(folder):
    """The rows of the file that a run has written."""
    (file,) = folder.glob("sample_*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def same(state, other):
    """Whether two states are equal to the last bit."""
    if isinstance(state, torch.Tensor):
        return torch.equal(state, other)
    if isinstance(state, dict):
        return state.keys() == other.keys() and all(same(state[key], other[key]) for key in state)
    if isinstance(state, list | tuple):
        return len(state) == len(other) and all(map(same, state, other))
    return state == other


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_learns_the_same_with_samples(stage, tiny, tmp_path):
    """Samples draw random numbers, and dropout is on."""
    states = []
    for name, more in (("without", ()), ("with", (SAMPLES,))):
        main(stage(tiny, tmp_path, tmp_path / name, *more))
        checkpoint = tmp_path / name / "0" / "checkpoints" / "last.ckpt"
        states.append(torch.load(checkpoint, weights_only=True))
    assert trace(tmp_path / "with") == trace(tmp_path / "without")
    for part in ("state_dict", "optimizer_states", "loops", "global_step", "position"):
        assert same(states[0].get(part), states[1].get(part)), part
    rows = sampled(tmp_path / "with" / "0")
    last = states[0]["global_step"]
    steps = sorted({*range(0, last + 1, 2), last})
    assert [row["step"] for row in rows] == [step for step in steps for _ in range(3)]
    assert {row["split"] for row in rows} == {"train"}
    assert not [*(tmp_path / "without" / "0").glob("sample_*")]


def greedy(model, tokenizer, prompt):
    """What transformers answers."""
    ids = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    output = model.generate(**ids, max_new_tokens=6, do_sample=False)
    return tokenizer.decode(
        output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True
    ).strip()


def test_answers_are_those_of_transformers_and_on_the_page(tiny, tmp_path, capsys):
    from peft import PeftModel

    held = write_pairs(tmp_path / "held.jsonl", rows=30)
    more = (f"--data.validation={held}", "--samples.every=4", "--samples.max_new_tokens=6")
    main(preference(tiny, tmp_path, tmp_path / "run", *more, "--model.optimizer.lr=0.02"))
    run = tmp_path / "run" / "0"
    rows = sampled(run)
    assert [row["step"] for row in rows] == [step for step in (0, 4, 5) for _ in range(4)]
    assert {row["split"] for row in rows} == {"validation"}
    assert [row["source"] for row in rows[:4]] == [f"{held}:{k}" for k in (1, 8, 15, 22)]
    base = load_model(Base(str(tiny), "none", "float32"))
    tokenizer = load_tokenizer(Base(str(tiny)))
    for row in rows[:4]:
        assert row["response"] == greedy(base, tokenizer, row["prompt"])
    trained = PeftModel.from_pretrained(base, run / "adapter")
    for row in rows[8:]:
        assert row["response"] == greedy(trained, tokenizer, row["prompt"])
    assert rows[0]["response"] != rows[8]["response"]
    printed = capsys.readouterr().out
    for step in (0, 4, 5):
        assert f"samples of step {step}, validation prompts" in printed
    page = render(read_run(run))
    assert (run / "report.html").read_text() == page
    assert "<h2>Samples while it trained</h2>" in page
    assert '<th scope="col">step 0</th><th scope="col">step 5</th>' in page
    assert "sample_answers.jsonl" in page


def test_scores_are_those_of_predict(tiny, tmp_path):
    main(reward_model(tiny, tmp_path, tmp_path / "run", "--samples.every=2"))
    run = tmp_path / "run" / "0"
    rows = [row for row in sampled(run) if row["step"] == 5]
    assert [row["preferred"] for row in rows] == [[True, False]] * 4  # as the file has them
    main(
        [
            "predict",
            *reward_model(
                tiny, tmp_path, tmp_path / "run", f"--data.validation={tmp_path / 'pairs.jsonl'}"
            )[1:],
            f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}",
        ]
    )
    lines = (tmp_path / "run" / "1" / "scores.jsonl").read_text().splitlines()
    scores = {row["source"]: row["scores"] for row in map(json.loads, lines)}
    for row in rows:
        assert row["scores"] == pytest.approx(scores[row["source"]], abs=1e-5)
    page = render(read_run(run))
    assert page.count("(preferred)") == 4


@pytest.mark.parametrize("step", [2, 3])
def test_a_run_that_was_stopped_goes_on_with_its_samples(step, tiny, tmp_path, monkeypatch):
    """The signal comes while samples are taken, or between two samples."""
    more = ("--samples.every=2", "--samples.max_new_tokens=6")
    main(preference(tiny, tmp_path, tmp_path / "whole", *more))
    stop = (
        "--trainer.callbacks+=tests.stages.callbacks.Terminate",
        f"--trainer.callbacks.after={step + 1}",
    )
    with pytest.raises(SystemExit):
        main(preference(tiny, tmp_path, tmp_path / "run", *more, *stop))
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] < 5
    monkeypatch.chdir(last.parent)  # from where the name alone is enough
    main(preference(tiny, tmp_path, tmp_path / "run", *more, "--ckpt_path=last.ckpt"))
    assert sampled(tmp_path / "run" / "1") == sampled(tmp_path / "whole" / "0")
    assert trace(tmp_path / "run") == trace(tmp_path / "whole")


@pytest.mark.parametrize("step", [0, 2, 5])
def test_only_the_first_samples_may_end_a_run(step, tiny, tmp_path, capsys, monkeypatch):
    """Memory that is too small is seen before the first step; later a run is worth more than its samples."""
    rows = SampleLog._rows

    def run_out(self, stage):
        if stage.trainer.global_step == step:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows(self, stage)

    monkeypatch.setattr(SampleLog, "_rows", run_out)
    command = preference(tiny, tmp_path, tmp_path / "run", SAMPLES)
    run = tmp_path / "run" / "0"
    advice = "out of memory while samples were taken; lower samples.prompts or max_new_tokens"
    if step == 0:
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 1
        assert f"lit-align: {advice}\n" in capsys.readouterr().err
        return
    with pytest.warns(UserWarning, match=advice):
        main(command)
    assert {row["step"] for row in sampled(run)} == set(range(0, step, 2))
    assert read_run(run).summary["steps"] == 5
    assert (run / "adapter").is_dir()


def test_all_else_is_saved_before_the_last_samples(tiny, tmp_path, monkeypatch):
    """Whatever ends the process then; the page is written again when they are taken."""
    rows = SampleLog._rows

    def be_killed(self, stage):
        if stage.trainer.global_step == 5:
            raise SystemExit(9)
        return rows(self, stage)

    monkeypatch.setattr(SampleLog, "_rows", be_killed)
    with pytest.raises(SystemExit):
        main(preference(tiny, tmp_path, tmp_path / "run", SAMPLES))
    run = tmp_path / "run" / "0"
    assert read_run(run).summary["steps"] == 5
    assert (run / "adapter" / "adapter_config.json").is_file()
    assert '<th scope="col">step 4</th>' in (run / "report.html").read_text()


def test_what_cannot_be_sampled_is_refused(tiny, tmp_path, capsys):
    cases = [
        (
            preference(tiny, tmp_path, tmp_path / "run", "--samples.every=0"),
            "samples.every must be at least 1, got 0",
        ),
        (
            preference(tiny, tmp_path, tmp_path / "run", "--samples.evry=2"),
            "Samples takes no 'evry'; did you mean every?",
        ),
        (
            preference(tiny, tmp_path, tmp_path / "run", "--samples=50"),
            "samples is '50', and takes settings by name: every, prompts, max_new_tokens, temperature",
        ),
        (
            preference(tiny, tmp_path, tmp_path / "run", "--samples.max_new_tokens=600"),
            "samples.max_new_tokens is 600, and no prompt of data.train leaves so many positions of the model; lower "
            "it",
        ),
        (
            orca_arguments(tiny, tmp_path / "run", "--samples.every=2"),
            "samples is set, and CrossModal neither answers nor scores; remove it",
        ),
    ]
    for command, sentence in cases:
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2
        assert f"lit-align: {sentence}\n" in capsys.readouterr().err


def test_the_table_is_above_the_progress_bar():
    """The bar is drawn again below what is printed meanwhile."""
    screen = io.StringIO()
    rich.reconfigure(file=screen, force_terminal=True, width=80)
    try:
        with Progress(console=rich.get_console(), auto_refresh=False) as bar:
            bar.add_task("Epoch 1")
            row = {"prompt": "Who[bold]?", "response": "An owl.", "ended": True}
            print_samples([row], "samples of step 2")
            printed = screen.getvalue()
    finally:
        rich.reconfigure()
    assert "Who[bold]?" in printed
    assert printed.rindex("Epoch 1") > printed.index("An owl.")


PROMPTS = st.lists(st.integers(1, 5).map(lambda size: [size] * size), max_size=12)


@given(PROMPTS, st.integers(1, 5), st.integers(0, 5))
def test_chosen_prompts_differ_and_fit(prompts, count, room):
    trees = [Tree(prompt, [], [], Group("", [], ())) for prompt in prompts]
    chosen = [tuple(tree.prompt) for tree in choose_prompts(trees, count, room)]
    assert len(chosen) == len(set(chosen)) <= count
    fitting = {tuple(prompt) for prompt in prompts if len(prompt) <= room}
    assert set(chosen) <= fitting
    if len(prompts) <= count:
        assert set(chosen) == fitting
    assert choose_prompts(trees, count, room, needs_responses=True) == []


def test_the_page_compares_the_first_and_the_last_sample():
    rows = []
    for step, answers in ((0, "ab"), (2, "cd"), (4, "e")):
        for number, answer in enumerate(answers):
            row = {"step": step, "source": f"x:{number}", "prompt": "Who?", "ended": answer != "e"}
            rows.append({**row, "response": answer})
    result = first_and_last(rows)
    assert (result.first_step, result.last_step) == (0, 4)
    assert result.rows == [("Who?", "", False, "a", "e (cut off)")]
