"""The models that a suite evaluates: the policies of runs, or the base under them; loaded when they are asked."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lit_align.chat.plain_text import is_plain_text_adapter
from lit_align.checkpoint_files import adapter_folder, find_checkpoint
from lit_align.data.scoring import score_trees
from lit_align.errors import ConfigError, ModelError
from lit_align.functional.logps import sum_by_response
from lit_align.loading import load
from lit_align.models.adapters import read_provenance
from lit_align.models.base_content import base_content
from lit_align.models.samplers import Sampler, default_sampler
from lit_align.types import Batch, Group, Text, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase

BASE = "base"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
OF_BASE = ("loads", "base_content", "template", "template_kwargs", "tokenizer")
"""What provenance says of the base and of how text is made into tokens."""


@dataclass
class EvaluatedModel:
    """The policy of a run, or the base under it without any adapter.

    Args:
        name: column of the table.
        run: folder of the run, or a checkpoint.
        is_base: whether it is the base under the run.
        sampler: what samples its answers; None is InProcess.
        token_budget: tokens in one forward pass, where log-probabilities are computed.
    """

    name: str
    run: str
    is_base: bool = False
    sampler: Sampler | None = None
    token_budget: int = 4096

    @cached_property
    def folder(self) -> Path:
        """Of the adapter.

        Raises:
            ModelError: if there is no such run.
        """
        return adapter_folder(find_checkpoint(self.run))

    @property
    def provenance(self) -> dict[str, Any]:
        """What the run wrote about its adapter."""
        return read_provenance(self.folder)

    @property
    def starts_from_base(self) -> bool:
        """Whether the run trained a new adapter: its reference is the base itself."""
        return self.provenance.get("settings", {}).get("init_adapter") is None

    def check(self) -> None:
        """Refuse a run without a policy, before its weights are loaded.

        Raises:
            ModelError: naming it.
        """
        if self.provenance.get("role", "policy") != "policy":
            raise ModelError(
                f"{self.run} trained a {self.provenance['role']} and has no policy that could answer; name a run of "
                "SFT, Preference or RL"
            )

    def fingerprint(self) -> str:
        """A hash of the base, the adapter and the chat template, from their files alone."""
        known = {name: self.provenance.get(name) for name in OF_BASE}
        loads = known["loads"] or {}
        known["base_content"] = base_content(loads.get("path", ""), loads.get("revision"))
        known["plain_text"] = is_plain_text_adapter(self.folder)
        known["device"] = "cuda" if torch.cuda.is_available() else "cpu"
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
        if not self.is_base:
            for name in ADAPTER_FILES:
                digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()

    @cached_property
    def stage(self) -> Any:
        """The stage of the run in memory."""
        return load(self.run)

    def release(self) -> None:
        """Forget the weights."""
        self.__dict__.pop("stage", None)
        gc.collect()  # a stage refers to itself

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of its base."""
        tokenizer: PreTrainedTokenizerBase = self.stage.tokenizer
        return tokenizer

    @property
    def role(self) -> str:
        """The adapter that answers."""
        return "reference" if self.is_base else "policy"

    @contextmanager
    def active(self) -> Iterator[PreTrainedModel]:
        """A context in which the model in memory computes with the adapter; it yields the model."""
        activated = self.stage.adapters.activate(self.role, training=False)
        with activated as model, torch.no_grad():
            yield model

    def answer(
        self,
        prompts: Sequence[Text],
        places: Sequence[int],
        *,
        as_chat: bool = True,
        **overrides: Any,
    ) -> list[list[str]]:
        """Sampled answers, ``[prompt][sample]``; see `AskedModel`."""
        responder = replace(self.stage.responder, sampler=self.sampler or default_sampler())
        is_plain = is_plain_text_adapter(self.folder)
        groups = [Group(prompt, [], source=self.name) for prompt in prompts]
        settings = {"temperature": 0.0, "seed": 0, "prompt_indices": places, **overrides}
        answers: list[list[str]] = responder.answer_groups(
            groups, self.role, as_chat=as_chat and not is_plain, **settings
        )
        return answers

    def continuation_logps(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """The log-probability of each text after its prompt, in nats, summed over its tokens.

        Raises:
            ModelError: if a token spans the end of a prompt.
        """
        trees = []
        for prompt, texts in zip(prompts, continuations, strict=True):
            trees.append(self._tree(prompt, texts))
        with self.active():
            logps = score_trees(trees, self._response_logps, self.token_budget, dense=True)
        counts = [len(tree.responses) for tree in trees]
        return [part.tolist() for part in torch.split(logps.double(), counts)]

    def _tree(self, prompt: str, continuations: Sequence[str]) -> Tree:
        """The prompt with each continuation, tokenised as one text."""
        tokenizer = self.tokenizer
        start = list(tokenizer(prompt).input_ids)
        responses = []
        for text in continuations:
            ids = list(tokenizer(prompt + text).input_ids)
            if ids[: len(start)] != start:
                raise ModelError(
                    f"the tokenizer joins the end of {prompt[-20:]!r} with {text[:20]!r} into one token, so the text "
                    "has no log-probability of its own; end the prompt before a blank and begin the text with it"
                )
            responses.append(ids[len(start) :])
        scored = [[True] * len(ids) for ids in responses]
        return Tree(start, responses, scored, Group(prompt, list(continuations)))

    def _response_logps(self, batch: Batch) -> torch.Tensor:
        """Log-probability of each response, ``[responses]``."""
        trees = batch.trees.to(self.stage.adapters.model.device)
        logps = self.stage.tree_forward(trees).logps.float()
        return sum_by_response(logps, trees.owner, trees.responses).cpu()


def _name_and_run(text: str) -> tuple[str, str]:
    """The two sides of ``NAME=RUN``; no name if the text is a path, in which ``=`` may stand too.

    Example:
        >>> _name_and_run("sft=runs/lr=0.1/0"), _name_and_run("runs/lr=0.1/0")
        (('sft', 'runs/lr=0.1/0'), ('', 'runs/lr=0.1/0'))
    """
    name, is_named, run = text.partition("=")
    if not is_named or "/" in name or Path(text).exists():
        return "", text
    return name, run


def evaluated_models(runs: Sequence[str], sampler: Sampler | None = None) -> list[EvaluatedModel]:
    """The models of a suite: ``NAME=RUN``, ``RUN``, or ``base`` for the base under the first run that starts from it.

    Raises:
        ConfigError: if two have one name, or if no run tells what the base is.
        ModelError: if there is no such run.
    """
    models: list[EvaluatedModel] = []
    for text in runs:
        name, run = _name_and_run(text)
        models.append(EvaluatedModel(name or run, run, run == BASE, sampler))
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two runs are called {name!r}; name them, as in --runs NAME=RUN")
    trained = [model for model in models if not model.is_base]
    for model in trained:
        model.check()
    under = [model for model in trained if model.starts_from_base]
    for model in models:
        if model.is_base:
            if not under:
                raise ConfigError(
                    "runs has base, and no run that starts from the base itself: each has an init_adapter; name the "
                    "SFT run that they start from too"
                )
            model.run = under[0].run
    return models
