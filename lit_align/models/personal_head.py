"""A score head for each annotator: the mean head, and how far each annotator's own is from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_align.annotators import is_clear, salt_check
from lit_align.errors import ModelError
from lit_align.models.heads import ScoreHead

ANNOTATORS_FILE = "annotator_heads.safetensors"
NOBODY = -1
"""The index of whoever has no head: the mean head scores for them."""


class Annotators(NamedTuple):
    """Those who have a head.

    Args:
        keys: salted hashes of their names, sorted.
        votes: how many rows of each the head was trained on.
        salt_check: of the salt under which names were hashed, see `annotators.salt_check`; empty if it does not matter,
            since the rows had hashes, or is not known.
    """

    keys: tuple[str, ...] = ()
    votes: tuple[int, ...] = ()
    salt_check: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Annotators:
        """Those that ``_asdict`` described, also before salts were checked."""
        return cls(tuple(values["keys"]), tuple(values["votes"]), values.get("salt_check", ""))

    def differs_in_salt(self, names: Iterable[str]) -> bool:
        """Whether names that are no hashes would be other people, or nobody, under the salt of this machine."""
        return (
            bool(self.salt_check) and any(map(is_clear, names)) and self.salt_check != salt_check()
        )

    def without(self, key: str) -> Annotators:
        """All but one."""
        is_other = [name != key for name in self.keys]
        keys, votes = compress(self.keys, is_other), compress(self.votes, is_other)
        return self._replace(keys=tuple(keys), votes=tuple(votes))


class PersonalHead(ScoreHead):
    r"""Scores by a head of each annotator's own, in float32.

    .. math:: r_p = \frac{c^\top \big((W + \Delta_p)\,\tilde h\big) - \mu}{\sigma}, \qquad \tilde h = (h, 1)

    :math:`W` is the mean head, its bias included, and the head of everyone who has no :math:`\Delta_p`. What others
    read of a saved head is that one.

    Args:
        head: the mean head.
        annotators: those who get a head of their own, which begins as the mean head.

    Attributes:
        shift: Δ, ``[annotators, outputs, width + 1]``, the bias last.
    """

    def __init__(self, head: ScoreHead, annotators: Annotators) -> None:
        outputs, width = head.weight.shape
        with torch.random.fork_rng([]):  # the mean head is drawn already
            super().__init__(width, outputs)
        self.load_state_dict(head.saved_weights())
        self.annotators = annotators
        shape = (len(annotators.keys), outputs, width + 1)
        self.shift = nn.Parameter(torch.zeros(shape, device=head.weight.device))
        self.to(head.weight.device)

    def forward(self, hidden: Tensor, people: Tensor | None = None) -> Tensor:
        """Raw scores, ``[n, outputs]``.

        Args:
            hidden: hidden states, ``[n, width]``.
            people: index of the annotator whose head scores, or `NOBODY`, ``[n]``; None takes the mean head.
        """
        scores = super().forward(hidden)
        if people is None or not len(self.shift):
            return scores
        with torch.autocast(hidden.device.type, enabled=False):
            shift = self.shift[people.clamp(min=0)]
            own = (shift[..., :-1] @ hidden.float()[..., None])[..., 0] + shift[..., -1]
            return torch.where((people >= 0)[:, None], scores + own, scores)

    def index(self, key: str) -> int:
        """The index of an annotator; `NOBODY` for one without a head."""
        return self.annotators.keys.index(key) if key in self.annotators.keys else NOBODY

    def save(self, folder: Path) -> None:
        """Write the mean head as any head is, and the others beside it."""
        super().save(folder)
        save_shifts(folder, self.shift.detach(), self.annotators)

    def saved_weights(self) -> dict[str, Tensor]:
        """Those of the mean head."""
        return {name: value for name, value in self.state_dict().items() if name != "shift"}

    @classmethod
    def load(cls, folder: str | Path) -> PersonalHead:
        """Read the heads from an adapter's folder, frozen.

        Raises:
            ModelError: if it has no heads of annotators.
        """
        head = ScoreHead.load(folder)
        shifts, annotators = load_shifts(folder)
        personal = cls(head, annotators)
        personal.shift.data.copy_(shifts)
        return personal.requires_grad_(False)


def save_shifts(folder: Path, shifts: Tensor, annotators: Annotators) -> None:
    """Write what each annotator's head adds to the mean head, ``[annotators, outputs, width + 1]``."""
    from safetensors.torch import save_file

    metadata = {name: json.dumps(values) for name, values in annotators._asdict().items()}
    save_file({"shift": shifts.contiguous().cpu()}, folder / ANNOTATORS_FILE, metadata)


def load_shifts(folder: str | Path) -> tuple[Tensor, Annotators]:
    """What `save_shifts` wrote.

    Raises:
        ModelError: if the folder has no heads of annotators.
    """
    from safetensors import safe_open

    file = Path(folder).expanduser() / ANNOTATORS_FILE
    if not file.is_file():
        raise ModelError(
            f"{str(folder)!r} has no {ANNOTATORS_FILE}, so its reward model has one head for everyone; give the "
            "adapter/ folder of a PersonalRewardModel run, or leave the annotator out"
        )
    with safe_open(file, "pt") as content:
        metadata = content.metadata()
        values = {
            name: json.loads(metadata[name]) for name in Annotators._fields if name in metadata
        }
        annotators = Annotators.from_dict(values)
        return content.get_tensor("shift"), annotators
