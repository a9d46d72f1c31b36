"""Learning-rate schedules at each step against those of transformers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
    get_wsd_schedule,
)

from lit_align.functional.lr_schedule import lr_multiplier

LR = 3e-4
RUNS = [(1, 0, 1), (7, 0, 3), (20, 1, 5), (20, 7, 4), (20, 20, 0), (100, 5, 95), (333, 17, 33)]


def peer_rates(make_schedule, num_steps):
    """Rates of the steps of a run."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    schedule = make_schedule(optimizer)
    rates = []
    for _ in range(num_steps - 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("num_steps", "num_warmup", "num_decay"), RUNS)
@pytest.mark.parametrize("shape", ["constant", "linear", "cosine", "wsd"])
def test_equals_the_schedules_of_transformers(shape, num_steps, num_warmup, num_decay, floor):
    def make_peer(optimizer):
        if shape == "constant":
            return get_constant_schedule_with_warmup(optimizer, num_warmup)
        if shape == "wsd":
            return get_wsd_schedule(
                optimizer,
                num_warmup,
                num_decay,
                num_training_steps=num_steps,
                min_lr_ratio=floor,
            )
        if shape == "linear" and floor in (0.0, 1.0):  # the polynomial one refuses an end at lr
            return get_linear_schedule_with_warmup(optimizer, num_warmup, num_steps)
        if shape == "linear":
            return get_polynomial_decay_schedule_with_warmup(
                optimizer, num_warmup, num_steps, lr_end=floor * LR, power=1.0
            )
        if floor:
            return get_cosine_with_min_lr_schedule_with_warmup(
                optimizer, num_warmup, num_steps, min_lr_rate=floor
            )
        return get_cosine_schedule_with_warmup(optimizer, num_warmup, num_steps)

    without_floor = shape == "linear" and floor == 1.0
    settings = (shape, num_steps, num_warmup, num_decay, 0.0 if without_floor else floor)
    multipliers = [lr_multiplier(step, *settings) for step in range(num_steps)]
    expected = [rate / LR for rate in peer_rates(make_peer, num_steps)]
    assert multipliers == pytest.approx(expected, rel=1e-12, abs=1e-12)


runs = st.integers(1, 400).flatmap(
    lambda steps: st.tuples(st.just(steps), st.integers(0, steps)).flatmap(
        lambda run: st.tuples(st.just(run[0]), st.just(run[1]), st.integers(0, run[0] - run[1]))
    )
)


@given(st.sampled_from(["constant", "linear", "cosine", "wsd"]), runs, st.floats(0, 1))
def test_rises_then_falls_to_the_floor(shape, run, floor):
    num_steps, num_warmup, num_decay = run
    multipliers = [
        lr_multiplier(step, shape, num_steps, num_warmup, num_decay, floor)
        for step in range(num_steps + 2)
    ]
    rise, fall = multipliers[: num_warmup + 1], multipliers[num_warmup:]
    assert rise == sorted(rise)
    assert fall == sorted(fall, reverse=True)
    assert all(-1e-15 <= multiplier <= 1.0 + 1e-15 for multiplier in multipliers)
    if shape != "constant" and num_warmup < num_steps and (shape != "wsd" or num_decay):
        assert math.isclose(multipliers[num_steps], floor, abs_tol=1e-12)
        assert math.isclose(multipliers[num_steps + 1], floor, abs_tol=1e-12)
