"""Each promise of a data module that check_datamodule looks for is missed where one lacks only that one."""

import random
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_align.data.datamodules import Comparisons, Demonstrations, Prompts
from lit_align.data.loader import StepLoader
from lit_align.errors import DataError, PluginError
from lit_align.models.lora import Lora
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.stages.preference import Preference
from lit_align.stages.sft import SFT
from lit_align.testing import check_datamodule
from lit_align.testing.short_runs import fingerprint

BIRDS = ("An owl.", "A wren, or a crow.", "A kite!")
CHATS = [{"prompt": "Name a bird.", "completion": bird} for bird in BIRDS]


def sft(base):
    return SFT(CrossEntropy(), base=base, lora=Lora(r=2))


def check(data, rows=CHATS, stage=sft, refused=(), **settings):
    def make(file):
        return data(file, batch_size=1, prepared_cache=None, **settings)

    check_datamodule(make, stage, rows, refused)


@dataclass(slots=True)
class Slotted:
    ids: list
    note: str = ""


class Private:
    __slots__ = ("__ids",)

    def __init__(self, ids):
        self.__ids = ids


class Kind(Enum):
    BIRD = 1
    BAT = 2


def counted(*changed):
    """Numbers of which only the first and the last few are printed, with another one in the middle."""
    numbers = np.arange(5000)
    numbers[list(changed)] = -1
    return numbers


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (counted, counted(2500)),
        (lambda: counted().astype("int32"), counted()),
        (lambda: counted().reshape(50, 100), counted()),
        (lambda: np.float32(0.1), np.float32(0.2)),
        (lambda: np.array([[1], "a"], dtype=object), np.array([[2], "a"], dtype=object)),
        (lambda: Slotted([torch.ones(2)]), Slotted([torch.zeros(2)])),
        (lambda: Slotted([1], "a"), Slotted([1], "b")),
        (lambda: Private([1]), Private([2])),
        (lambda: {"owl", "wren", "crow"}, {"owl", "wren"}),
        (lambda: Kind.BIRD, Kind.BAT),
        (lambda: (None, 1.5, Path("a"), torch.int8), (None, 1.5, Path("a"), torch.int16)),
    ],
)
def test_batches_are_compared_by_value(make, other):
    assert fingerprint(make()) == fingerprint(make())
    assert fingerprint(make()) != fingerprint(other)


def test_a_batch_that_cannot_be_compared_is_refused():
    with pytest.raises(PluginError, match="a batch has a list_iterator, whose content cannot be"):
        fingerprint({"ids": iter([1])})


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_built_in_data_module_passes(shuffle):
    check(Demonstrations, shuffle=shuffle)


class Drawing(Demonstrations):
    """An order from the generator that everything draws from."""

    def read_trees(self, *arguments):
        trees = list(super().read_trees(*arguments))
        random.shuffle(trees)
        return trees


class CountingLoader(StepLoader):
    """An order by what this process has read so far, which a run that goes on does not know."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()

    def _epoch_order(self, epoch):
        return super()._epoch_order(self.passes)


class Counting(Demonstrations):
    def step_loader(self, split, *, shuffle, resumes=True):
        return CountingLoader(self.trees[split], resumes=resumes, **self.packing_settings())


class Forgiving(Demonstrations):
    """Trains on something else where there is nothing."""

    def read_trees(self, split, *arguments):
        if "empty" in self.paths[split][0]:
            self.paths[split] = [self.paths[split][0].replace("empty", "rows")]
        return super().read_trees(split, *arguments)


class Careless(Demonstrations):
    def read_trees(self, split, *arguments):
        return {"rows.jsonl": super().read_trees}[self.paths[split][0].rpartition("/")[2]](
            split, *arguments
        )


class Vague(Demonstrations):
    def read_trees(self, split, *arguments):
        if "missing" in self.paths[split][0]:
            raise DataError("there is no such file; name another one")
        return super().read_trees(split, *arguments)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (Drawing, "Drawing gives other steps in a second run than in the first run; let their"),
        (Counting, "Counting gives other steps to a run that goes on in mid-epoch than"),
        (Forgiving, "Forgiving accepts a file that is empty; refuse it"),
        (Careless, r"Careless fails at a file that is empty, at .*test_datamodules.py:\d+: KeyErr"),
        (Vague, r"Vague refuses a file that is missing with .* which does not name missing.jsonl"),
    ],
)
def test_a_wrong_data_module_is_caught(data, fault):
    with pytest.raises(AssertionError, match=fault):
        check(data)


def test_settings_that_are_not_refused_are_caught():
    with pytest.raises(AssertionError, match=r"Demonstrations accepts the settings refused\[0\]"):
        check(Demonstrations, refused=[Demonstrations])


def test_what_is_no_data_module_is_caught():
    with pytest.raises(AssertionError, match="list is no LightningDataModule; derive it from one"):
        check_datamodule(lambda file: [file], sft, CHATS)


def test_a_stage_and_data_that_do_not_go_together_are_refused_by_them():
    """An error of ours is not of the check."""

    def stage(base):
        return Preference(DPO(), base=base, lora=Lora(r=2))

    with pytest.raises(ValueError, match="DPO learns from pairs"):
        check(Prompts, stage=stage)
    with pytest.raises(AssertionError, match="gave 1 steps in an epoch; give check_datamodule"):
        check(Comparisons, [{"prompt": "?", "chosen": "a", "rejected": "b"}], stage)
