"""Several answers to each prompt, of which the best is kept, and a run of them that is killed and taken up again."""

import itertools
import json
import math
import signal
import time
from functools import partial

import pytest
import torch

from lit_align.cli.main import main
from lit_align.errors import ModelError
from lit_align.models.load import Base, load_model, load_tokenizer
from lit_align.rewards.base import Reward, response_text
from lit_align.rewards.length import Length
from lit_align.rewards.weighted import Weighted
from lit_align.stages.best_of import Answer, BestOf, best_of_curve
from lit_align.types import Group, Scores
from tests.forked import start_command, wait_for
from tests.processes import run_processes
from tests.stages.runs import ROOT, arguments, folder_of, write_pairs

N = 6
BEST = (
    f"--model.best_of.n={N}",
    "--model.best_of.reward=Length",
    "--model.best_of.reward.max_words=4",
    "--model.best_of.reward.min_words=4",
)


def predict(tiny, data, run, *more):
    """Command line of a predict that samples; the responses of the tiny model are noise of many lengths."""
    usual = arguments(tiny, data, run, f"--data.validation={data}", "--model.max_new_tokens=12")[1:]
    return ["predict", *usual, "--model.temperature=1.0", "--model.seed=3", *more]


class Lost(Reward):
    """Loses count."""

    def __call__(self, groups):
        return Scores(torch.tensor([0.0, math.nan]))


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """Data, and the folder of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    data = write_pairs(folder / "pairs.jsonl")
    main(predict(tiny, data, folder / "run", *BEST, "--model.best_of.keep_all=true"))
    return data, folder / "run" / "0"


def rows(folder):
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_the_expected_best_is_the_mean_over_all_subsets():
    scores = torch.randn(
        3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).tolist()
    curve = best_of_curve(scores)
    assert [point.n for point in curve] == [1, 2, 4, 7]
    for n, reward, kl in curve:
        every = [
            max(some) for row in scores for some in itertools.combinations(row, n)
        ]  # as many of each prompt
        assert reward == pytest.approx(sum(every) / len(every))
        assert kl == pytest.approx(math.log(n) - 1 + 1 / n)


def test_the_bound_is_the_divergence_where_answers_are_many():
    """Of m equally likely answers in an order, the k-th is the best of n with chance ((k/m)^n - ((k-1)/m)^n)."""
    m = 4000
    for n, _, bound in best_of_curve([[0.0] * 8]):
        chances = [(k / m) ** n - ((k - 1) / m) ** n for k in range(1, m + 1)]
        exact = sum(p * math.log(p * m) for p in chances if p)
        assert exact == pytest.approx(bound, abs=0.01)
        assert exact <= bound + 1e-9


def test_a_score_that_is_no_number_is_no_best():
    with pytest.raises(
        ModelError, match=r"gave nan to 'b', a response to rows:1; scores are finite numbers"
    ):
        BestOf(2, Lost()).choose(
            [Group("?", [], source="rows:1")], [[Answer("a", True), Answer("b", True)]]
        )


class Unsure(Reward):
    """Scores what has an e, by its tokens."""

    def __call__(self, groups):
        texts = [response_text(response) for group in groups for response in group.responses]
        sizes = [float(len(ids)) for group in groups for ids in group.response_ids]
        return Scores(torch.tensor(sizes), scored=torch.tensor(["e" in text for text in texts]))


def test_what_is_not_scored_is_not_chosen(tmp_path, capsys):
    answers = [
        [Answer("owl", True, [1, 2, 3]), Answer("bee", True, [4, 2]), Answer("eagle", True, [2])],
        [Answer("owl", True, [1, 2]), Answer("bat", True, [5, 2]), Answer("cat", False, [6])],
    ]
    best_of = BestOf(3, Unsure())
    records = best_of.choose([Group("A bird?", []), Group("Another?", [])], answers)
    assert [(row["answer"], row["score"]) for row in records] == [("bee", 2.0), (None, None)]
    assert [row["scores"] for row in records] == [[None, 2.0, 1.0], [None] * 3]
    best_of.report(tmp_path, records)
    assert (
        "4 of 6 answers were not scored and not chosen; 1 prompts have no"
        in capsys.readouterr().out
    )
    told = json.loads((tmp_path / "best_of.json").read_text())
    assert told["unscored"] == 4
    assert [(point["n"], point["reward"]) for point in told["curve"]] == [(1, 1.5), (2, 2.0)]
    best_of.report(tmp_path, records[1:])
    assert json.loads((tmp_path / "best_of.json").read_text())["curve"] == []


def test_gold_that_abstains_chooses_as_without_it():
    answers = [[Answer("owl", True, [1]), Answer("bee bee", True, [2])]]
    both = Weighted([Length(max_words=1), Unsure()], [1.0, 0.0])
    [record] = BestOf(2, both).choose([Group("A bird?", [])], answers)
    assert (record["answer"], record["rewards"]["Unsure"]) == ("owl", [None, 1.0])


def test_the_best_of_each_prompt_is_kept(whole):
    _, folder = whole
    reward = Length(max_words=4, min_words=4)
    for row in rows(folder):
        assert len(row["answers"]) == len(row["scores"]) == N
        responses = [[{"role": "assistant", "content": answer}] for answer in row["answers"]]
        assert row["scores"] == reward([Group(row["prompt"], responses)]).total.tolist()
        first = row["scores"].index(max(row["scores"]))
        assert (row["answer"], row["score"]) == (row["answers"][first], row["scores"][first])
    assert len({answer for row in rows(folder) for answer in row["answers"]}) > 22 * N * 0.9
    told = json.loads((folder / "best_of.json").read_text())
    ended = [one for row in rows(folder) for one in row["ended"]]
    assert (
        (told["answers"], told["cut_off"])
        == (len(ended), ended.count(False))
        == (22 * N, ended.count(False))
    )
    assert 0 < told["cut_off"] < 22 * N
    assert [point["n"] for point in told["curve"]] == [1, 2, 4, 6]
    assert told["curve"][-1]["reward"] == pytest.approx(
        sum(row["score"] for row in rows(folder)) / 22
    )
    assert told["curve"][0]["reward"] == pytest.approx(
        sum(sum(row["scores"]) / N for row in rows(folder)) / 22
    )
    values = [point["reward"] for point in told["curve"]]
    assert values == sorted(set(values))
    assert (folder / "best_of.png").read_bytes().startswith(b"\x89PNG")


def test_answers_are_samples_of_the_model_at_that_temperature(whole, tiny):
    """Each sampled alone, from the prompt as the chat template renders it, with the luck of its place."""
    from lit_align.models.generate import sample

    base = Base(str(tiny), "none", "float32")
    model, tokenizer = load_model(base), load_tokenizer(base)
    for place, row in [*enumerate(rows(whole[1]))][::7]:
        ids = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        options = {
            "max_new_tokens": 12,
            "temperature": 1.0,
            "num_generations": N,
            "seed": 3,
            "prompt_indices": [place],
        }
        (found,) = sample(model, tokenizer, [ids], **options)
        assert row["answers"] == [
            tokenizer.decode(one.ids, skip_special_tokens=True).strip() for one in found
        ]
        assert row["ended"] == [one.ended for one in found]


class Calls(Reward):
    """Length in characters, and a record of what it was asked."""

    def __init__(self) -> None:
        self.attached, self.groups = [], []

    def attach(self, adapters, tokenizer) -> None:
        self.attached.append((adapters, tokenizer))

    def __call__(self, groups):
        self.groups += groups
        return Scores(
            torch.tensor(
                [float(len(response_text(one))) for group in groups for one in group.responses]
            )
        )


def test_a_reward_is_attached_once_and_sees_whole_groups(tiny, tmp_path):
    from lightning.pytorch import Trainer

    from lit_align.data.datamodules import Comparisons
    from lit_align.models.adapter_set import Lora
    from lit_align.objectives.dpo import DPO
    from lit_align.stages.preference import Preference

    reward = Calls()
    base = Base(str(tiny), "none", "float32")
    sampling = {"best_of": BestOf(3, reward), "temperature": 1.0, "max_new_tokens": 4}
    module = Preference(DPO(), base=base, lora=Lora(r=2), **sampling)
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    data = write_pairs(tmp_path / "pairs.jsonl", rows=13)
    lists = Trainer(default_root_dir=tmp_path, **quiet).predict(
        module, Comparisons(str(data), str(data), batch_size=4, token_budget=256, max_length=256)
    )
    assert [len(one) for one in lists] == [10, 3]  # 32 answers are written together
    assert reward.attached == [(module.adapters, module.tokenizer)]
    assert [len(group.responses) for group in reward.groups] == [3] * 13
    assert [group.source for group in reward.groups] == [f"{data}:{k + 1}" for k in range(13)]
    assert all("answers" not in row and len(row["scores"]) == 3 for one in lists for row in one)


def test_of_equal_ones_the_first():
    groups = [Group([{"role": "user", "content": "a?"}], []), Group("b?", [])]
    said = [["x y z", "x", "y"], ["x", "y", "x y z"]]
    found = BestOf(3, Length(max_words=1), keep_all=True).choose(
        groups, [[Answer(text, True) for text in row] for row in said]
    )
    assert [one["answer"] for one in found] == ["x", "x"]
    assert [one["answers"] for one in found] == said


@pytest.mark.parametrize("kept", ["whole batches", "half a line", "everything", "nothing"])
def test_what_is_on_disk_is_not_sampled_again(kept, whole, tiny, tmp_path):
    data, folder = whole
    lines = (folder / "answers.jsonl").read_bytes().splitlines(keepends=True)
    together = 32 // N
    left = {
        "whole batches": 2 * together,
        "half a line": together + 2,
        "everything": 22,
        "nothing": 0,
    }[kept]
    spoiled = [
        json.dumps({**json.loads(line), "answer": "mine"}).encode() + b"\n" for line in lines[:left]
    ]
    stopped = tmp_path / "run" / "0"
    stopped.mkdir(parents=True)
    half = b"".join(spoiled) + (lines[left][:40] if kept == "half a line" else b"")
    (stopped / "answers.jsonl").write_bytes(half)
    main(
        predict(
            tiny,
            data,
            tmp_path / "run",
            *BEST,
            "--model.best_of.keep_all=true",
            f"--answers={stopped}",
        )
    )
    taken = {"half a line": together}.get(kept, left)
    made = (tmp_path / "run" / "1" / "answers.jsonl").read_bytes().splitlines(keepends=True)
    assert made == spoiled[:taken] + lines[taken:]
    assert (stopped / "answers.jsonl").read_bytes() == half
    reports = [
        json.loads((one / "best_of.json").read_text()) for one in (folder, tmp_path / "run" / "1")
    ]
    assert reports[0] == reports[1]


def test_a_killed_run_goes_on_bit_for_bit(whole, tiny, tmp_path):
    data, folder = whole
    slow = ("--trainer.callbacks+=tests.stages.callbacks.Slow", "--trainer.callbacks.seconds=0.5")
    settings = predict(tiny, data, tmp_path / "run", *BEST, "--model.best_of.keep_all=true")
    process = start_command([*settings, *slow], ROOT)
    answers = tmp_path / "run" / "0" / "answers.jsonl"
    wait_for(lambda: answers.exists() and answers.stat().st_size, process)
    time.sleep((time.time_ns() % 1500) / 1000)  # anywhere in the batches that follow
    process.kill()
    output = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGKILL, output
    assert 5 <= len(answers.read_bytes().splitlines()) < 22
    main(
        [
            "predict",
            f"-c={answers.parent / 'config.yaml'}",
            "--trainer.callbacks=null",
            f"--answers={answers.parent}",
        ]
    )
    assert folder_of(tmp_path / "run").name == "1"
    for name in ("answers.jsonl", "best_of.json"):
        assert (tmp_path / "run" / "1" / name).read_bytes() == (folder / name).read_bytes()


def test_two_processes_answer_as_one(whole, tiny, tmp_path):
    data, folder = whole
    two = ("--model.best_of.keep_all=true", "--trainer.devices=2", "--trainer.strategy=ddp")
    output = tmp_path / "output.txt"
    work = partial(main, predict(tiny, data, tmp_path / "run", *BEST, *two))
    assert run_processes(2, work, output) == [0, 0], output.read_text()
    shares = [
        (tmp_path / "run" / "0" / name).read_text().splitlines()
        for name in ("answers.jsonl", "answers.1.jsonl")
    ]
    whole = (folder / "answers.jsonl").read_text().splitlines()
    assert [len(share) for share in shares] == [11, 11]
    assert [line for pair in zip(*shares, strict=True) for line in pair] == whole
    reports = [
        json.loads((one / "best_of.json").read_text()) for one in (folder, tmp_path / "run" / "0")
    ]
    for one, other in zip(*(report["curve"] for report in reports), strict=True):
        assert one == pytest.approx(other)  # the prompts are added up in another order


def said(capsys, args):
    with pytest.raises(SystemExit) as stopped:
        main(args)
    return stopped.value.code, capsys.readouterr().err.splitlines()[-1].removeprefix("lit-align: ")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--model.temperature=0"],
            f"best_of.n is {N} and temperature 0, so all answers would be equal; set temperature",
        ),
        (["--model.best_of.n=0"], "best_of.n is 0; it is a number of answers, at least 1"),
        (["--model.best_of.reward=Lenght"], "nothing is called 'Lenght'; did you mean Length?"),
        (
            ["--answers=nowhere"],
            "there are no answers in 'nowhere'; give the numbered folder of a predict",
        ),
    ],
)
def test_what_cannot_be_meant(more, sentence, tiny, tmp_path, capsys):
    data = write_pairs(tmp_path / "pairs.jsonl", rows=8)
    code, answer = said(capsys, predict(tiny, data, tmp_path / "run", *BEST, *more))
    assert (code, answer.split("; there are")[0]) == (2, sentence)


def test_answers_of_another_run_are_refused(whole, tiny, tmp_path, capsys):
    data, folder = whole
    usual = predict(tiny, data, tmp_path / "run", *BEST, f"--answers={folder}")
    code, answer = said(capsys, usual)  # without keep_all
    assert (code, answer) == (
        2,
        f"{folder} has other settings of model; resume with -c {folder}/config.yaml",
    )
    other = write_pairs(tmp_path / "other.jsonl")
    code, answer = said(
        capsys, predict(tiny, other, tmp_path / "run", *BEST, f"--answers={folder}")
    )
    assert code == 2
    asked = "belongs to other prompts than data.validation; use that run's data and devices"
    assert answer == f"{folder}/answers.jsonl {asked}"
    code, answer = said(capsys, ["fit", *usual[1:]])
    assert (code, answer) == (2, f"answers is '{folder}', and only predict uses it; leave it out")
