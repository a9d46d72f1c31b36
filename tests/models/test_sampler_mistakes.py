"""Each mistake in what a sampler returns is a sentence with its remedy."""

import math
from typing import NamedTuple

import numpy
import pytest
import torch

from lit_align.plugin_contracts import CompletionLimits, completions_fault

LIMITS = CompletionLimits(1, 1, max_new_tokens=3, vocabulary=10, stop_tokens=[9])


class Drawn(NamedTuple):
    """A completion of any types."""

    ids: object = [1, 2, 3]
    logps: object = [-1.0, -2.0, -3.0]
    ended: object = False


def fault_of(completion):
    return completions_fault(print, [[completion]], LIMITS)


@pytest.mark.parametrize(
    "completion",
    [
        Drawn(),
        Drawn([1, 2, 9], ended=True),
        Drawn([9], [-0.5], True),
        Drawn((0, 9, 9), (-1, -1.0, 0.0)),
    ],
)
def test_what_keeps_the_promise_has_no_fault(completion):
    assert fault_of(completion) == ""


@pytest.mark.parametrize(
    ("completion", "sentence"),
    [
        (None, "that is None; return a Completion"),
        (Drawn(None), "whose ids are None; give a list"),
        (Drawn(torch.tensor([1, 2, 3])), "whose ids are a Tensor; give a list"),
        (Drawn(3), "whose ids are 3; give a list"),
        (Drawn([1, 2.0, 3]), "with 2.0 among its ids; give each as an int"),
        (Drawn([1, True, 3]), "with True among its ids"),
        (Drawn(list(numpy.array([1, 2, 3]))), "with an int64 among its ids"),
        (Drawn(logps=None), "whose logps are None; give a list"),
        (Drawn(logps=[-1.0, None, -1.0]), "with None among its log-probabilities; give each as a float"),
        (Drawn(logps=[-1.0, "-1", -1.0]), "with '-1' among its log-probabilities"),
        (Drawn(logps=[-1.0, -math.inf, -1.0]), "with a log-probability that is not finite"),
        (Drawn(logps=[-1.0]), "with 1 log-probabilities of 3 tokens"),
        (Drawn(ended=None), "whose ended is None; give True or False"),
        (Drawn([1, 10, 2]), "with the token 10; the model has tokens from 0 to 9"),
        (Drawn([1, -1, 2]), "with the token -1; the model has tokens from 0 to 9"),
        (Drawn([1, 2, 3], ended=True), "that ended with the token 3, which ends nothing here; keep the stop token"),
        (Drawn([], []), "of 0 tokens"),
        (Drawn([1], [-1.0]), "that is cut off after 1 of 3 tokens"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(completion, sentence):
    assert f"print returned a completion of prompt 0 {sentence}" in fault_of(completion)


@pytest.mark.parametrize(
    ("completions", "sentence"),
    [
        (None, "print returned None for 1 prompts"),
        ([None], "print returned None for prompt 0; return a list of its completions"),
        ([Drawn()], "print returned a Drawn for prompt 0; return a list of its completions"),
        ([[Drawn(), Drawn()]], "print returned 2 completions of prompt 0, not 1"),
    ],
)
def test_completions_of_another_shape_are_a_sentence(completions, sentence):
    assert sentence in completions_fault(print, completions, LIMITS)
