"""``lit-align evaluate win-rate``: how often one model's answers beat another's, or those in the data."""

from __future__ import annotations

import gc
import json
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lit_align.chat.plain_text import is_plain_text_adapter
from lit_align.checkpoint_files import find_checkpoint
from lit_align.cli.command import (
    DATA_SETTINGS,
    Settings,
    load_judged_groups,
    print_judging,
    run_setting,
)
from lit_align.cli.duels import judge_duels
from lit_align.data.formats.groups import as_row
from lit_align.data.label_conversion import reference_answer, without_labels
from lit_align.data.readers import read_rows
from lit_align.errors import ConfigError, DataError, SetAside
from lit_align.evaluation.win_rate import win_rate
from lit_align.feedback import Feedback
from lit_align.feedback.agreement import summarize_results
from lit_align.feedback.checked_results import check_suitable
from lit_align.jsonl import write_json, write_jsonl
from lit_align.loading import load
from lit_align.models.samplers import Sampler, default_sampler
from lit_align.progress import show_answers
from lit_align.rewards.base import as_response, response_text
from lit_align.types import Group, LabelKind, Text

MODELS = "the folder of a run, base for the model under the other one's run, or a file that predict wrote"

SETTINGS: Settings = {
    "a": {
        "type": str | None,
        "default": None,
        "help": f"The model whose win rate is measured: {MODELS}; null: the first of two responses.",
    },
    "b": {
        "type": str | None,
        "default": None,
        "help": f"Its opponent: {MODELS}; null: the data's best response.",
    },
    "feedback": {
        "type": Feedback,
        "required": True,
        "help": "The judge, such as Judge, FromReward or Recorded.",
    },
    **DATA_SETTINGS,
    "max_new_tokens": {"type": int, "default": 256, "help": "Longest answer of a run."},
    "temperature": {
        "type": float,
        "default": 0.0,
        "help": "Sampling temperature of a run; 0 is greedy.",
    },
    "sampler": {
        "type": Sampler | None,
        "default": None,
        "help": "What samples the answers of a run, by its name; null is InProcess, whatever sampled in training.",
    },
    **run_setting("runs/evaluate"),
}


def refuse(settings: Any) -> None:
    """Require two opponents, and a judge of given answers.

    Raises:
        ConfigError: if it is not clear whose answers to compare, or if the feedback does not compare them.
    """
    check_suitable(settings.feedback, LabelKind.PAIRS, verdicts=True)
    models = {settings.a, settings.b}
    if "base" in models and not models - {"base", None}:
        raise ConfigError(
            f"a is {settings.a} and b is {settings.b}; base is the model under the other one's run, so name a run"
        )
    if settings.a is None and settings.b is not None:
        raise ConfigError(
            f"b is {settings.b!r} and a is not set; set a to the model whose win rate is measured"
        )


def run(settings: Any, folder: Path) -> dict[str, Any]:
    """Let both models answer, judge the answers, and print and write the metrics; returns them.

    Raises:
        DataError: if an answer is missing.
    """
    from rich.console import Console

    console = Console()
    groups = load_judged_groups(settings, LabelKind.RESPONSES, console, folder)
    duels = _make_duels(settings, groups)
    is_different = [_is_different(duel) for duel in duels]
    results, a_wins = judge_duels(settings.feedback, duels, is_different, settings.batch_size)
    metrics = {
        "a": settings.a,
        "b": settings.b,
        "feedback": repr(settings.feedback),
        "data": settings.data,
        "length": "words",
        "asked": summarize_results(results),
        "same_answer": is_different.count(False),
        "unread": a_wins.count(None),
        **_measure(duels, a_wins),
    }
    write_json(folder / "win_rate.json", metrics)
    rows = [
        {**as_row(duel), "a_wins": probability}
        for duel, probability in zip(duels, a_wins, strict=True)
    ]
    write_jsonl(folder / "duels.jsonl", rows)
    print_judging(console, metrics["asked"])
    _print_metrics(metrics)
    print(f"The run is in {folder}: win_rate.json, duels.jsonl, ledger.json.")
    return metrics


def _is_different(duel: Group) -> bool:
    first, second = duel.responses
    return response_text(first) != response_text(second)


def _measure(duels: Sequence[Group], a_wins: Sequence[float | None]) -> dict[str, Any]:
    """Win rates over the duels that were judged."""
    probabilities, length_differences, prompts = [], [], []
    for duel, probability in zip(duels, a_wins, strict=True):
        if probability is None:
            continue
        first, second = (len(response_text(response).split()) for response in duel.responses)
        probabilities.append(probability)
        length_differences.append(float(first - second))
        prompts.append(json.dumps(duel.prompt))
    if not probabilities:
        raise DataError(
            "no answer was judged, so there is no win rate; see the reasons under set aside"
        )
    prompt_numbers = np.unique(prompts, return_inverse=True)[1]
    return win_rate(np.array(probabilities), np.array(length_differences), prompt_numbers)


def _print_metrics(metrics: dict[str, Any]) -> None:
    for label, name in (("win rate", "win_rate"), ("at equal length", "length_controlled")):
        interval = "interval" if name == "win_rate" else f"{name}_interval"
        low, high = metrics[interval]
        print(
            f"{label:<16}{100 * metrics[name]:5.1f} %   95 %: {100 * low:.1f} to {100 * high:.1f}"
        )
    print(
        f"{metrics['wins']} wins, {metrics['ties']} ties ({metrics['same_answer']} the same answer), "
        f"{metrics['losses']} losses; {metrics['unread']} not judged; a is longer in {100 * metrics['longer']:.1f} %"
    )


def _make_duels(settings: Any, groups: Sequence[Group]) -> list[Group]:
    """Each prompt with two answers; with the row's labels where both answers are the row's."""
    if settings.a is None:
        for group in groups:
            if len(group.responses) != 2:
                raise DataError(
                    f"{group.source} has {len(group.responses)} responses, not two; name the models in a and b"
                )
        return list(groups)
    first = _answers(settings.a, settings.b, settings, groups)
    if settings.b is None:
        second = [_best_response(group) for group in groups]
    else:
        second = _answers(settings.b, settings.a, settings, groups)
    return [
        without_labels(group)._replace(responses=[answer_a, answer_b])
        for group, answer_a, answer_b in zip(groups, first, second, strict=True)
    ]


def _best_response(group: Group) -> Text:
    try:
        return reference_answer(group)
    except SetAside:
        raise DataError(
            f"{group.source} has no response to compare with; name a model in b"
        ) from None


def _answers(model: str, opponent: str, settings: Any, groups: Sequence[Group]) -> list[Text]:
    """The answers of a run, a base model or a file to each prompt."""
    if Path(model).is_file() and not model.endswith(".ckpt"):
        return _read_answers(model, groups)
    is_base = model == "base"
    responder = replace(
        load(opponent if is_base else model).responder,
        sampler=settings.sampler or default_sampler(),
    )
    checkpoint = find_checkpoint(opponent if is_base else model)
    is_plain = is_plain_text_adapter(checkpoint.with_suffix(".adapter"))
    if is_plain and not all(isinstance(group.prompt, str) for group in groups):
        warnings.warn(
            f"{model} was trained on plain text, and its prompts here are turns of a chat",
            stacklevel=2,
        )
    with show_answers(f"answers of {model}", len(groups)):
        texts = responder.answer_groups(
            groups,
            "reference" if is_base else "policy",
            as_chat=not is_plain,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        )
    del responder
    gc.collect()  # it refers to itself, and the judge needs the memory
    return [as_response(group, text.strip()) for group, (text,) in zip(groups, texts, strict=True)]


def _read_answers(file: str, groups: Sequence[Group]) -> list[Text]:
    """Answers of a file by their prompts; of several answers to one prompt each is used once."""
    answers: dict[str, list[str]] = defaultdict(list)
    for _, row in read_rows(file):
        if isinstance(row, dict) and "prompt" in row and isinstance(row.get("answer"), str):
            answers[json.dumps(row["prompt"])].append(row["answer"])
    responses = []
    for group in groups:
        unused = answers[json.dumps(group.prompt)]
        if not unused:
            raise DataError(f"{file} has no answer to {group.source}; run predict on these data")
        responses.append(as_response(group, unused.pop(0)))
    return responses
