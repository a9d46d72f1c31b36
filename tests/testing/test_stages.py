"""Each promise of a stage that check_stage looks for is missed where a stage lacks only that one."""

import random
import sys

import pytest
import torch

from lit_align.data.datamodules import Comparisons, Demonstrations
from lit_align.models.lora import Lora
from lit_align.objectives.bradley_terry import BradleyTerry
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from lit_align.stages.sft import SFT
from lit_align.testing import check_stage
from lit_align.testing.light_imports import require_light_package

CHATS = [
    {"prompt": "Name a bird.", "completion": bird} for bird in ("An owl.", "A wren, or a crow.")
]
PAIRS = [
    {"prompt": "A bird?", "chosen": bird, "rejected": "No bird."} for bird in ("Owl.", "Wren!")
]


def demonstrations(file):
    return Demonstrations(file, batch_size=1, prepared_cache=None)


def comparisons(file):
    return Comparisons(file, batch_size=1, prepared_cache=None)


def check(stage, rows=CHATS, data=demonstrations, objective=None, refused=(), **settings):
    def make(base):
        return stage(objective or CrossEntropy(), base=base, lora=Lora(r=2), **settings)

    check_stage(make, data, rows, refused)


@pytest.mark.parametrize(
    ("stage", "objective"), [(Preference, DPO()), (RewardModel, BradleyTerry())]
)
def test_built_in_stages_pass(stage, objective):
    check(stage, PAIRS, comparisons, objective)


class Noting(SFT):
    """Notes where the adapter starts where a resumed run has its weights already, and goes back there."""

    def on_fit_start(self):
        super().on_fit_start()
        weights = self.trained_parameters()
        self._start = {name: weight.detach().clone() for name, weight in weights.items()}

    def after_step(self, metrics, sums):
        with torch.no_grad():
            for name, weight in self.trained_parameters().items():
                weight.lerp_(self._start[name], 0.5)


class TouchingTheBase(SFT):
    def after_step(self, metrics, sums):
        weight = self.adapters.model.get_input_embeddings().weight
        weight.data.add_(1e-3)


class Drawing(SFT):
    def after_step(self, metrics, sums):
        with torch.no_grad():
            for weight in self.trained_parameters().values():
                weight.add_(random.random())


class NotANumber(SFT):
    def after_step(self, metrics, sums):
        metrics["loss"] = float("nan")


class Popping(SFT):
    """A setting that no parser knows of."""

    def __init__(self, objective: CrossEntropy, **settings):
        strength = settings.pop("strength", 0.0)
        super().__init__(objective, **settings)
        self.strength = strength


class Adapting(SFT):
    """Keeps a number that a run changes, and restores it itself."""

    def __init__(self, objective: CrossEntropy, **settings):
        super().__init__(objective, **settings)
        self.scale = 1.0

    def after_step(self, metrics, sums):
        self.scale *= 0.5

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["scale"] = self.scale

    def on_load_checkpoint(self, checkpoint):
        super().on_load_checkpoint(checkpoint)
        self.scale = checkpoint["scale"]


def test_a_number_that_a_run_changes_is_no_setting():
    check(Adapting)


class Dropping(SFT):
    """Loses a setting as it is read from a checkpoint."""

    def on_load_checkpoint(self, checkpoint):
        super().on_load_checkpoint(checkpoint)
        self.hparams.pop("best_of")


class Plan:
    """A setting that no YAML can hold."""


class Planned(SFT):
    def __init__(self, objective: CrossEntropy, plan: Plan, **settings):
        super().__init__(objective, **settings)


def still(parameters):
    return torch.optim.SGD(parameters, lr=0.0)


@pytest.mark.parametrize(
    ("stage", "settings", "fault"),
    [
        (TouchingTheBase, {}, r"changes _adapters.*embed_tokens.*a base is frozen"),
        (SFT, {"optimizer": still}, "SFT changes no trained parameter in 4 steps"),
        (NotANumber, {}, r"logs losses that are not finite: \[nan"),
        (Drawing, {}, "other weights in a second run: _adapters.* differs by"),
        (
            Noting,
            {},
            "other weights when it goes on from a checkpoint; what it notes .* configure_m",
        ),
        (Popping, {"strength": 0.5}, "has strength 0.0 when it is made again .*and had 0.5"),
        (
            Dropping,
            {},
            "has the hyperparameters .* again .*; let __init__ name best_of, with a type",
        ),
        (Planned, {"plan": Plan()}, "Planned cannot be made again from its checkpoint: .*plan"),
    ],
)
def test_a_wrong_stage_is_caught(stage, settings, fault):
    with pytest.raises(AssertionError, match=fault):
        check(stage, **settings)


class Forgetful(Demonstrations):
    """Begins each run at the first step."""

    def step_loader(self, split, *, shuffle, resumes=True):
        loader = super().step_loader(split, shuffle=False, resumes=resumes)
        loader.start_at = lambda epoch, step=0: None
        return loader


def test_a_run_that_begins_again_is_caught():
    def data(file):
        return Forgetful(file, batch_size=1, prepared_cache=None)

    with pytest.raises(AssertionError, match=r"goes on .* with other batches than a run without"):
        check(SFT, data=data)


def test_rows_for_one_step_are_too_few():
    with pytest.raises(
        AssertionError, match="was given 1 steps in an epoch; give check_stage rows"
    ):
        check(SFT, CHATS[:1])


def raise_lines(base):
    raise ValueError("two\nlines of it")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (str, r"SFT accepts the settings refused\[0\]; refuse it with a ValueError"),
        (
            lambda base: {}["anchor"],
            r"SFT fails at the settings .*KeyError: 'anchor'; raise a ValueError",
        ),
        (raise_lines, "say in one sentence what is wrong and what to do"),
    ],
)
def test_settings_that_are_not_refused_in_a_sentence_are_caught(make, fault):
    with pytest.raises(AssertionError, match=fault):
        check(SFT, refused=[make])


def write_package(folder, name, files):
    """A package with one file for each module, and its entry point."""
    (folder / name).mkdir()
    for module, text in files.items():
        (folder / name / f"{module}.py").write_text(text)
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[lit_align]\npoint = {name}.plugin\n")


SLOW = "from lit_align.stages.sft import SFT\n"
MARK = "from lit_align import hookimpl\n"
HOOK = "@hookimpl\ndef register_stages(register):\n    register(None)\n"


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"__init__": SLOW + MARK + HOOK}, "lit_align_slow has hooks and imports lightning"),
        (
            {"__init__": "", "plugin": SLOW + MARK + HOOK},
            "lit_align_slow.plugin has hooks and imports lightning",
        ),
        (
            {"__init__": SLOW, "plugin": MARK + HOOK},
            "lit_align_slow.plugin has hooks and imports lightning",
        ),
        ({"__init__": "", "plugin": MARK + HOOK}, None),
        ({"__init__": f"{SLOW}from atexit import register as register_exit\n"}, None),
    ],
)
def test_hooks_that_import_lightning_are_caught(tmp_path, monkeypatch, files, fault):
    files = {"plugin": "", **files}
    write_package(tmp_path, "lit_align_slow", files)
    monkeypatch.syspath_prepend(tmp_path)
    if fault is None:
        require_light_package("lit_align_slow.stage")
    else:
        with pytest.raises(AssertionError, match=fault):
            require_light_package("lit_align_slow.stage")


def test_a_stage_whose_package_has_slow_hooks_is_caught(tmp_path, monkeypatch):
    text = f"{SLOW}{MARK}class Slow(SFT):\n    pass\n{HOOK}"
    write_package(tmp_path, "lit_align_slow", {"__init__": text, "plugin": ""})
    monkeypatch.syspath_prepend(tmp_path)
    import lit_align_slow

    with pytest.raises(AssertionError, match="lit_align_slow has hooks and imports lightning"):
        check(lit_align_slow.Slow)
    del sys.modules["lit_align_slow"]
