"""A reward model that somebody trained and published (Stiennon et al., 2020, https://arxiv.org/abs/2009.01325)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch

from lit_align import Register, hookimpl
from lit_align.data.scoring import limit_to_positions
from lit_align.errors import ModelError
from lit_align.rewards import Group, Reward, Scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Classifier(Reward):
    """What a sequence classifier says of the whole conversation, as its own chat template renders it.

    A prompt and a response that are text become a user's and an assistant's turn. The part ``tokens_cut`` counts what
    was too long: a conversation loses its beginning, never its end.

    Args:
        path: hub id or folder; weights are read from safetensors only, and no code that comes with a model is run.
        label: which of the model's outputs is the score; null if it has one.
        dtype: what is computed in; auto is bfloat16 on a GPU and float32 on a CPU.
        batch_size: responses that are read at once.
        max_length: tokens of a conversation that are read, if the model can read as many.

    Raises:
        ValueError: if batch_size or max_length is below 1.
        ModelError: at the first score, if there is no such model, or it is not a reward model as a whole.
    """

    path: str
    label: int | None = None
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    batch_size: int = 8
    max_length: int = 2048

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_length < 1:
            raise ValueError(
                f"batch_size and max_length must be at least 1, got {self.batch_size}, {self.max_length}"
            )

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> Scores:
        whole = [self._ids(group, response) for group in groups for response in group.responses]
        room = limit_to_positions(
            self._model, min(self.max_length, self._tokenizer.model_max_length)
        )
        rows = [ids[-room:] for ids in whole]
        total = torch.zeros(len(rows))
        order = sorted(
            range(len(rows)), key=lambda i: len(rows[i])
        )  # alike in length, so that little is padded
        for start in range(0, len(order), self.batch_size):
            at = order[start : start + self.batch_size]
            total[at] = self._read([rows[i] for i in at])
        cut = [float(len(ids) - len(row)) for ids, row in zip(whole, rows, strict=True)]
        return Scores(total, {"tokens_cut": torch.tensor(cut)})

    def _ids(self, group: Group, response: Any) -> list[int]:
        turns = _turns(group.prompt, "user") + _turns(response, "assistant")
        text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        return list(self._tokenizer(str(text), add_special_tokens=False).input_ids)

    def _read(self, rows: list[list[int]]) -> torch.Tensor:
        """The score of each row of ids, ``[rows]``."""
        model, config = self._model, self._model.config.get_text_config()
        longest, pad = max(map(len, rows)), config.pad_token_id
        if self._no_padding:
            # The score is read at the last token that is not padding: any id pads that no row ends with.
            pad = config.pad_token_id = next(
                i for i in range(len(rows) + 1) if i not in {row[-1] for row in rows}
            )
        ids = torch.tensor(
            [row + [pad] * (longest - len(row)) for row in rows], device=model.device
        )
        mask = torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device
        )
        logits = model(input_ids=ids, attention_mask=mask).logits
        scores: torch.Tensor = logits[:, self.label or 0].float().cpu()
        return scores

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
        options: dict[str, Any] = {
            "dtype": compute_dtype(Base(self.path, dtype=self.dtype), device),
            "use_safetensors": True,
            "trust_remote_code": False,
        }
        try:
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                self.path, output_loading_info=True, **options
            )
        except (OSError, ValueError) as error:
            raise _unusable(self.path, error) from error
        if loaded["missing_keys"]:  # they would be drawn at random, and so would the scores
            missing = ", ".join(sorted(loaded["missing_keys"]))
            raise ModelError(
                f"{self.path!r} is no reward model, it lacks {missing}; give one that was trained as such"
            )
        outputs = model.config.num_labels
        if not (0 <= self.label < outputs if self.label is not None else outputs == 1):
            raise ModelError(
                f"{self.path!r} has {outputs} outputs and label is {self.label}; set it from 0 to {outputs - 1}"
            )
        return model.to(device).eval()

    @cached_property
    def _no_padding(self) -> bool:
        """Whether the model knows no padding token; asked before one is set."""
        return self._model.config.get_text_config().pad_token_id is None


def _turns(said: str | list[dict[str, str]], role: str) -> list[dict[str, str]]:
    return [{"role": role, "content": said}] if isinstance(said, str) else said


def _unusable(path: str, error: Exception) -> ModelError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return ModelError(
        f"no reward model at {path!r} ({reason}); give a hub id or the folder of a sequence classifier"
    )


@hookimpl
def register_rewards(register: Register) -> None:
    register(Classifier)
