"""Win rates: raw by hand, at equal length against another optimiser and a closed form, and the command on real runs."""

import json

import numpy as np
import pytest
import torch

import lit_align
from lit_align.__main__ import main
from lit_align.evaluation.win_rate import PRIOR, length_controlled, win_rate
from tests.evaluation.real import write
from tests.stages.runs import arguments, write_pairs

SHORTER = ("--feedback=FromReward", "--feedback.reward=Length", "--feedback.reward.max_words=1")


def drawn(n=400, theta=0.4, phi=1.5, seed=0):
    """Wins that follow the formula."""
    random = np.random.default_rng(seed)
    longer = random.normal(20, 60, n)
    p = 1 / (1 + np.exp(-(theta + phi * np.tanh(longer / longer.std()))))
    return (random.random(n) < p).astype(float), longer


def test_the_weights_are_those_of_another_optimiser():
    won, longer = drawn()
    features = torch.tensor(np.stack([np.ones(len(won)), np.tanh(longer / longer.std())], 1))
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def loss():
        optimiser.zero_grad()
        fit = torch.nn.functional.binary_cross_entropy_with_logits(
            features @ weights, torch.tensor(won), reduction="sum"
        )
        total = fit + (torch.tensor(PRIOR) * weights**2).sum() / 2
        total.backward()
        return total

    optimiser.step(loss)
    rate, slope = length_controlled(won, longer)
    assert rate == pytest.approx(weights[0].sigmoid().item(), abs=1e-6)
    assert slope == pytest.approx(weights[1].item(), abs=1e-5)


def test_the_weights_are_those_of_another_library_with_ties():
    """A tie is half a win and half a loss; the prior of θ is a penalty on a feature that is 1 / sqrt(its precision)."""
    from sklearn.linear_model import LogisticRegression

    won, longer = drawn(200)
    won[::7] = 0.5
    features = np.stack(
        [np.full(200, PRIOR[0] ** -0.5), np.tanh(longer / longer.std()) * PRIOR[1] ** -0.5], 1
    )
    fit = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-12, max_iter=10_000)
    fit.fit(
        np.concatenate([features] * 2),
        [1] * 200 + [0] * 200,
        sample_weight=np.concatenate([won, 1 - won]),
    )
    theta, phi = fit.coef_[0] * PRIOR**-0.5
    rate, slope = length_controlled(won, longer)
    assert (rate, slope) == (
        pytest.approx(1 / (1 + np.exp(-theta)), abs=1e-6),
        pytest.approx(phi, abs=1e-5),
    )


def test_ten_wins_of_ten_are_not_certainty():
    """All resamples agree, so the interval is Wilson's, as statsmodels has it."""
    from statsmodels.stats.proportion import proportion_confint

    found = win_rate(np.ones(10), np.zeros(10), np.arange(10))["interval"]
    assert found == pytest.approx(proportion_confint(10, 10, method="wilson"), abs=1e-4)


def test_what_made_the_wins_is_found_again():
    rates = [
        length_controlled(*drawn(20_000, theta, 1.5, seed))
        for seed, theta in enumerate((-1.0, 0.0, 0.7))
    ]
    for (rate, slope), theta in zip(rates, (-1.0, 0.0, 0.7), strict=True):
        assert rate == pytest.approx(1 / (1 + np.exp(-theta)), abs=0.02)
        assert slope == pytest.approx(1.5, abs=0.15)


def test_a_side_that_always_wins_has_a_finite_figure():
    rate, _ = length_controlled(np.ones(50), np.zeros(50))
    assert 0.97 < rate < 1.0


def test_an_interval_is_as_wide_as_prompts_are_few():
    """Of n prompts with p the bootstrap's deviation is sqrt(p (1 - p) / n); answers to one prompt are alike."""
    won = np.array([1.0] * 60 + [0.0] * 40)
    low, high = win_rate(won, np.zeros(100), np.arange(100))["interval"]
    assert (low, high) == (
        pytest.approx(0.6 - 1.96 * 0.049, abs=0.02),
        pytest.approx(0.6 + 1.96 * 0.049, abs=0.02),
    )
    low, high = win_rate(won, np.zeros(100), np.arange(100) // 10)["interval"]
    assert (low, high) == (
        pytest.approx(0.6 - 1.96 * 0.155, abs=0.06),
        pytest.approx(0.6 + 1.96 * 0.155, abs=0.06),
    )


@pytest.mark.parametrize(("win", "n"), [(0.5, 8), (1.0, 8), (1.0, 40), (0.0, 40)])
def test_answers_that_all_fare_alike_are_not_certainty_at_equal_length_either(win, n):
    """Of n that all win, Clopper and Pearson's lower bound is 0.025^(1/n); of n ties, half of that may be wins."""
    length = np.random.default_rng(0).normal(size=n)
    metrics = win_rate(np.full(n, win), length, np.arange(n))
    low, high = metrics["length_controlled_interval"]
    allowed = 1 - 0.025 ** (1 / n)
    assert high - low >= allowed
    assert low <= metrics["length_controlled"] <= high
    if win == 0.5:
        assert (low, high) == (
            pytest.approx(1 / (1 + np.exp(1.96 / (n / 4 + PRIOR[0]) ** 0.5)), abs=0.02),
            pytest.approx(1 / (1 + np.exp(-1.96 / (n / 4 + PRIOR[0]) ** 0.5)), abs=0.02),
        )


def test_alike_answers_to_one_prompt_count_once():
    length = np.random.default_rng(0).normal(size=40)
    few = win_rate(np.ones(40), length, np.arange(40) // 10)["length_controlled_interval"]
    many = win_rate(np.ones(40), length, np.arange(40))["length_controlled_interval"]
    assert few[0] < many[0]


@pytest.mark.parametrize(("theta", "phi"), [(0.0, 0.0), (0.8, 1.0), (1.6, 2.0)])
def test_the_interval_at_equal_length_covers_the_truth(theta, phi, monkeypatch):
    """95 % of intervals should; of 600 sets, with the resamples that make an interval wider left out, 94 % must."""
    monkeypatch.setattr("lit_align.evaluation.win_rate.RESAMPLES", 20)
    random = np.random.default_rng(1)
    covered = []
    for _ in range(600):
        length = random.normal(size=20)
        p = 1 / (1 + np.exp(-theta - phi * np.tanh(length)))
        won = (random.random(20) < p).astype(float)
        low, high = win_rate(won, length, np.arange(20))["length_controlled_interval"]
        covered.append(low <= 1 / (1 + np.exp(-theta)) <= high)
    assert np.mean(covered) >= 0.94


# ---------------------------------------------------------------------- the command


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def rate(folder, *more) -> dict:
    """Run the command; what it wrote."""
    main(["evaluate", "win-rate", f"--run={folder}", *more])
    return json.loads(
        (max(folder.iterdir(), key=lambda path: int(path.name)) / "win_rate.json").read_text()
    )


def test_people_say_which_of_two_answers_wins(tmp_path, capsys):
    rows = [
        {"prompt": "1?", "responses": ["a b", "c"], "pairs": [[0, 1]]},
        {"prompt": "2?", "responses": ["a", "c"], "pairs": [[1, 0, 0.25]]},
        {"prompt": "3?", "responses": ["a", "c"], "pairs": [[0, 1, 0.5]]},
        {"prompt": "4?", "responses": ["same", "same"]},
        {"prompt": "5?", "responses": ["a", "c"]},
    ]
    found = rate(
        tmp_path / "runs", "--feedback=Recorded", f"--data={write(tmp_path / 'rows.jsonl', rows)}"
    )
    assert (found["wins"], found["ties"], found["losses"], found["same_answer"]) == (2, 1, 0, 1)
    assert (found["win_rate"], found["unread"]) == (
        pytest.approx(2.5 / 3),
        2,
    )  # no label, and a coin toss
    assert "win rate         83.3 %" in capsys.readouterr().out
    duels = [
        json.loads(line) for line in (tmp_path / "runs/0/duels.jsonl").read_text().splitlines()
    ]
    assert [duel["a_wins"] for duel in duels] == [1.0, 0.75, None, 0.5, None]


def test_a_run_against_its_base_against_the_data_and_from_a_file(tiny, tmp_path, capsys):
    data = write_pairs(tmp_path / "pairs.jsonl", 6)
    main(
        [
            *arguments(
                tiny, data, tmp_path / "fit", "--trainer.max_steps=2", "--model.optimizer.lr=0.05"
            )
        ]
    )
    run = str(tmp_path / "fit" / "0")
    asked = [*SHORTER, f"--data={data}", "--max_new_tokens=6"]
    base = rate(tmp_path / "runs", f"--a={run}", "--b=base", *asked)
    duels = [
        json.loads(line) for line in (tmp_path / "runs/0/duels.jsonl").read_text().splitlines()
    ]
    stage = lit_align.load(run)
    prompt = stage.tokenizer.apply_chat_template(
        duels[0]["prompt"], add_generation_prompt=True, return_dict=False
    )
    for k, role in enumerate(("policy", "reference")):
        [said] = stage.responder.answer([prompt], role, max_new_tokens=6)
        assert duels[0]["responses"][k] == [{"role": "assistant", "content": said}]
    assert base["wins"] + base["ties"] + base["losses"] == base["comparisons"] == 6
    against = rate(tmp_path / "runs", f"--a={run}", *asked)
    duels = [
        json.loads(line) for line in (tmp_path / "runs/1/duels.jsonl").read_text().splitlines()
    ]
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    assert [duel["responses"][1] for duel in duels] == [row["chosen"] for row in rows]
    said = [
        {"prompt": duel["prompt"], "answer": duel["responses"][0][0]["content"]} for duel in duels
    ]
    written = rate(tmp_path / "runs", f"--a={write(tmp_path / 'answers.jsonl', said)}", *asked)
    assert {**written, "a": None} == {**against, "a": None} | {"asked": written["asked"]}
    with pytest.raises(SystemExit):
        rate(tmp_path / "runs", f"--a={write(tmp_path / 'few.jsonl', said[:2])}", *asked)
    assert "has no answer to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--b=here"], "b is 'here' and a is not set; set a to the model whose win rate is"),
        (
            ["--a=base"],
            "a is base and b is None; base is the model under the other one's run, so name a run",
        ),
        (
            ["--a=nowhere"],
            "there is no checkpoint nowhere; give a .ckpt file or the numbered folder of a run",
        ),
        ([], "rows.jsonl:1 has 1 responses, not two; name the models in a and b"),
    ],
)
def test_a_mistake_gets_one_sentence(more, sentence, tmp_path, capsys):
    data = write(tmp_path / "rows.jsonl", [{"prompt": "1?", "responses": ["a"]}])
    with pytest.raises(SystemExit):
        rate(tmp_path / "runs", *SHORTER, f"--data={data}", *more)
    assert sentence in capsys.readouterr().err
