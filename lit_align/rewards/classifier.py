"""A published reward model: a sequence classifier (Stiennon et al., 2020, https://arxiv.org/abs/2009.01325)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch

from lit_align import Register, hookimpl
from lit_align.chat.spelled_tokens import TurnTokenizer
from lit_align.checks import check_at_least
from lit_align.data.scoring import limit_to_positions
from lit_align.errors import ModelError
from lit_align.rewards import Group, Reward, Scores
from lit_align.types import Message, Text

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Classifier(Reward):
    """The output of a sequence classifier for the whole conversation, rendered with the classifier's chat template.

    A prompt and a response in plain text become a user and an assistant turn. The part ``tokens_cut`` counts the tokens
    that were too many: a conversation loses its beginning, never its end.

    Args:
        path: hub id or folder; weights are read from safetensors only, and no code that comes with a model is run.
        label: which of the model's outputs is the score; null if it has one.
        dtype: of the computation; auto is bfloat16 on a GPU and float32 on a CPU.
        batch_size: responses in one forward pass.
        max_length: tokens of a conversation that are read, if the model has as many positions.

    Raises:
        ValueError: if batch_size or max_length is below 1.
        ModelError: at the first score, if there is no such model, or it is not a complete reward model.
    """

    path: str
    label: int | None = None
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    batch_size: int = 8
    max_length: int = 2048

    def __post_init__(self) -> None:
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("max_length", self.max_length, 1)

    def can_split(self) -> bool:
        return True

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> Scores:
        conversations = []
        for group in groups:
            for response in group.responses:
                conversations.append(self._tokenize(group, response))
        max_length = min(self.max_length, self._tokenizer.model_max_length)
        limit = limit_to_positions(self._model, max_length)
        rows = [ids[-limit:] for ids in conversations]
        total = torch.zeros(len(rows))
        # batches of similar length need little padding
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), self.batch_size):
            indices = order[start : start + self.batch_size]
            total[indices] = self._score_rows([rows[i] for i in indices])
        tokens_cut = [
            float(len(ids) - len(row)) for ids, row in zip(conversations, rows, strict=True)
        ]
        return Scores(total, {"tokens_cut": torch.tensor(tokens_cut)})

    def _tokenize(self, group: Group, response: Text) -> list[int]:
        turns = _as_messages(group.prompt, "user") + _as_messages(response, "assistant")
        return self._turns.encode(turns, tools=group.tools, template_kwargs=group.template_kwargs)

    def _score_rows(self, rows: list[list[int]]) -> torch.Tensor:
        """The score of each row of ids, ``[rows]``."""
        config = self._model.config.get_text_config()
        pad = config.pad_token_id
        if self._has_no_padding:
            # The score is read at the last token that is not padding, so pad with an id that no row ends with.
            last_ids = {row[-1] for row in rows}
            pad = next(i for i in range(len(rows) + 1) if i not in last_ids)
            config.pad_token_id = pad
        width = max(map(len, rows))
        padded, mask = [], []
        for row in rows:
            num_padding = width - len(row)
            padded.append(row + [pad] * num_padding)
            mask.append([1] * len(row) + [0] * num_padding)
        device = self._model.device
        logits = self._model(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device),
        ).logits
        scores: torch.Tensor = logits[:, self.label or 0].float().cpu()
        return scores

    @cached_property
    def _turns(self) -> TurnTokenizer:
        return TurnTokenizer(self._tokenizer)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.path, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise _unusable(self.path, error) from error
        if not tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {self.path!r} has no chat template; add the one it was trained with"
            )
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForSequenceClassification

        from lit_align.models.load import Base, compute_dtype

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            model, loading_info = AutoModelForSequenceClassification.from_pretrained(
                self.path,
                output_loading_info=True,
                dtype=compute_dtype(Base(self.path, dtype=self.dtype), device),
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError) as error:
            raise _unusable(self.path, error) from error
        if loading_info["missing_keys"]:  # these weights would be random, and so would the scores
            missing = ", ".join(sorted(loading_info["missing_keys"]))
            raise ModelError(
                f"{self.path!r} is no reward model, it lacks {missing}; give one that was trained as such"
            )
        self._check_label(model.config.num_labels)
        return model.to(device).eval()

    def _check_label(self, num_labels: int) -> None:
        is_valid = num_labels == 1 if self.label is None else 0 <= self.label < num_labels
        if not is_valid:
            raise ModelError(
                f"{self.path!r} has {num_labels} outputs and label is {self.label}; set it from 0 to {num_labels - 1}"
            )

    @cached_property
    def _has_no_padding(self) -> bool:
        """Whether the model has no padding token; read before `_score_rows` sets one."""
        return self._model.config.get_text_config().pad_token_id is None


def _as_messages(text: Text, role: str) -> list[Message]:
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def _unusable(path: str, error: Exception) -> ModelError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return ModelError(
        f"no reward model at {path!r} ({reason}); give a hub id or the folder of a sequence classifier"
    )


@hookimpl
def register_rewards(register: Register) -> None:
    register(Classifier)
