"""How far long work is: a bar on a terminal, a line now and then elsewhere."""

import io
import json
import re

import pytest
import rich

from lit_align import progress
from lit_align.cli.main import main
from lit_align.models.generate import sample
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.progress import CountedProgress, note_sampled, show_answers, track
from tests.stages.runs import arguments, write_pairs


@pytest.fixture
def always(monkeypatch):
    """Print a line for each step."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)


@pytest.fixture
def screen():
    """What is drawn on a terminal."""
    text = io.StringIO()
    rich.reconfigure(file=text, force_terminal=True, width=100)
    yield text
    rich.reconfigure()


def test_a_log_file_gets_a_line_now_and_then(capsys, monkeypatch):
    with show_answers("answers of a", 2):
        note_sampled(1, 10)
    assert capsys.readouterr().out == ""  # it took no time
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with show_answers("answers of a", 2):
        note_sampled(0, 1000)
        note_sampled(2, 500)
    note_sampled(1, 1)  # of nobody's
    assert capsys.readouterr().out.splitlines() == [
        "answers of a: 0 of 2, 1,000 tokens, 0 s",
        "answers of a: 2 of 2, 1,500 tokens, 0 s",
    ]


def test_a_terminal_gets_a_bar(screen, capsys):
    assert list(track("ab", "steps")) == ["a", "b"]
    with CountedProgress("judging", 3) as bar:
        bar.add(1, text="cost 0.5")
    drawn = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.getvalue())
    assert re.search(r"steps ━+ +2/2 ", drawn)
    assert re.search(r"judging .+ 1/3 cost 0\.5", drawn)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_says_how_far_it_is(temperature, tiny):
    """Each completion and each of its tokens is counted once, in batches too, whether it ends or is cut off."""
    model = load_model(Base(str(tiny), "none", "float32"))
    tokenizer = load_tokenizer(Base(str(tiny)))
    model.generation_config.eos_token_id = list(range(0, 260, 9))  # so that some end early
    with show_answers("answers", 10) as shown:
        rows = sample(
            model,
            tokenizer,
            [[5, 6, 7], [8], [9, 10], [11, 12], [13]],
            max_new_tokens=12,
            num_generations=2,
            temperature=temperature,
            batch_size=4,
        )
    completions = [completion for row in rows for completion in row]
    assert shown.done == len(completions) == 10
    assert shown.tokens == sum(len(completion.ids) for completion in completions)
    assert len({completion.ended for completion in completions}) == 2


def test_predict_and_win_rate_are_not_silent(tiny, tmp_path, capsys, always):
    pairs = write_pairs(tmp_path / "pairs.jsonl", rows=6)
    more = (f"--data.validation={pairs}", "--model.max_new_tokens=3", "--trainer.max_steps=1")
    usual = arguments(tiny, pairs, tmp_path / "run", *more)
    main(usual)
    run = tmp_path / "run" / "0"
    capsys.readouterr()
    usual = [word for word in usual if word != "--trainer.enable_progress_bar=false"]
    main(["predict", *usual[1:], f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"])
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith("answers: ")]
    assert shown[0].startswith("answers: 0 of 6, 6 tokens")
    assert shown[-1].startswith("answers: 6 of 6, ")
    answers = (tmp_path / "run" / "1" / "answers.jsonl").read_text().splitlines()
    assert len([json.loads(line)["answer"] for line in answers]) == 6
    judge = ("--feedback=FromReward", "--feedback.reward=Length", "--feedback.reward.max_words=2")
    settings = (f"--data={pairs}", "--max_new_tokens=2", f"--run={tmp_path / 'duels'}")
    main(["evaluate", "win-rate", f"--a={run}", "--b=base", *judge, *settings])
    out = capsys.readouterr().out
    assert f"answers of {run}: 6 of 6, " in out
    assert "answers of base: 6 of 6, " in out
