"""Checks of the settings of on-line training, against each other and against stage, trainer and model."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from lit_align.checks import check_at_least, check_fraction
from lit_align.errors import ConfigError
from lit_align.feedback.checked_results import check_suitable
from lit_align.models.generate import check_context_length
from lit_align.types import LabelKind

DEFAULT_MAX_EPOCHS = (-1, 1, 1000)
"""Values of trainer.max_epochs when it is not set."""


class OnlineSettings(Protocol):
    """The settings of `Online` that are checked here."""

    rounds: int
    round_size: int | None
    num_generations: int
    fresh_fraction: float
    reference_ema: float
    feedback: Any
    relabel: bool
    responses: Literal["fresh", "dataset", "replay"]
    temperature: float
    reference_update: Literal["fixed", "round", "average"]
    token_budget: int


def check_settings(data: OnlineSettings) -> None:
    """Refuse settings that are out of range or contradict each other.

    Raises:
        ConfigError: naming the settings.
    """
    check_at_least("rounds", data.rounds, 1)
    check_at_least("num_generations", data.num_generations, 1)
    if data.round_size is not None:
        check_at_least("round_size", data.round_size, 1)
    check_fraction("fresh_fraction", data.fresh_fraction)
    check_fraction("reference_ema", data.reference_ema)
    if data.feedback is None and (data.fresh_fraction or data.relabel):
        raise ConfigError(
            f"feedback is null, responses is {data.responses} and relabel {str(data.relabel).lower()}; set feedback to "
            "what labels the responses"
        )
    if data.responses == "replay" and not data.fresh_fraction:
        raise ConfigError(
            "responses is replay and fresh_fraction 0, so there would be nothing to replay; raise fresh_fraction"
        )
    if data.temperature <= 0 and data.num_generations > 1:
        raise ConfigError(
            f"temperature is {data.temperature}, so all {data.num_generations} samples would be the same; raise it"
        )


def check_stage(data: OnlineSettings, stage: Any) -> None:
    """Refuse a stage that samples by itself, has no policy to sample from, or needs labels that the feedback lacks.

    Raises:
        ConfigError: naming the stage or the feedback.
    """
    name = type(stage).__name__
    if stage.objective.label_kind == LabelKind.PROMPTS:
        raise ConfigError(f"{name} samples by itself; use the data module Prompts")
    if data.feedback is not None:
        check_suitable(data.feedback, stage.objective.label_kind)
    if data.fresh_fraction and "policy" not in stage.trained_roles:
        raise ConfigError(
            f"responses is {data.responses}, fresh_fraction {data.fresh_fraction} and {name} trains no policy to "
            "sample from; set responses to dataset and fresh_fraction to 0"
        )
    if data.reference_update != "fixed" and getattr(stage, "cache_reference", None) is not None:
        raise ConfigError(
            f"reference_update is {data.reference_update}, and cache_reference needs a fixed reference; leave one of "
            "them out"
        )


def check_trainer(data: OnlineSettings, trainer: Any, stage: str) -> None:
    """Refuse limits of a fit that do not fit to rounds.

    Raises:
        ConfigError: naming the setting of the trainer.
    """
    if stage != "fit":
        return
    limit = trainer.limit_train_batches
    if not trainer.fast_dev_run and (isinstance(limit, int) or limit < 1):
        raise ConfigError(
            f"trainer.limit_train_batches is {limit}, and a round would continue in the epoch of the next one; leave "
            "it out and lower data.round_size"
        )
    if trainer.max_epochs not in (*DEFAULT_MAX_EPOCHS, data.rounds):
        raise ConfigError(
            f"trainer.max_epochs is {trainer.max_epochs} and data.rounds {data.rounds}; leave max_epochs out"
        )


def check_lengths(data: OnlineSettings, stage: Any, longest_prompt: int) -> None:
    """Refuse prompts that leave no room for responses, in the model's context or in the token budget.

    Raises:
        ModelError: if prompt and response do not fit in the context.
        ConfigError: if a prompt with all its responses does not fit in the token budget.
    """
    check_context_length(stage.adapters.model.config, longest_prompt, stage.max_new_tokens)
    num_tokens = longest_prompt + data.num_generations * stage.max_new_tokens
    if data.fresh_fraction and num_tokens > data.token_budget:
        raise ConfigError(
            f"a prompt of {longest_prompt} tokens and {data.num_generations} responses of up to {stage.max_new_tokens} "
            f"make {num_tokens} tokens, over data.token_budget {data.token_budget}; raise it, or lower "
            "model.max_new_tokens"
        )
