"""Every old name of a setting, class or module is refused by its new name, from a flag and from a YAML; no other is."""

import inspect
from importlib import import_module

import pytest
import torch
import yaml

import lit_align
from lit_align.__main__ import main
from lit_align.cli import judge, reward_bench, win_rate
from lit_align.errors import ModelError
from lit_align.plugins import load_plugins
from lit_align.renamed_settings import (
    CLASSES,
    MODULES,
    SETTINGS,
    TEXT_DATA,
    TEXT_STAGES,
    VALUES,
    WHITENING,
    RenamedSettings,
)
from lit_align.stages.checkpoints import SafeIO

# class -> where its settings are: dotted path, and the classes on the way there
REWARD = ["model=RL", "model.reward={}"]
FEEDBACK = ["data=Online", "data.feedback={}"]
OBJECTIVE = ["model=RewardModel", "model.objective={}"]
PLACES = {
    **{name: ["model={}"] for name in TEXT_STAGES},
    **{name: ["data={}"] for name in TEXT_DATA},
    **{name: ["model=RL", "model.advantage={}"] for name in WHITENING},
    **dict.fromkeys(["Length", "RewardModelScore", "JudgeScore", "Abstention"], REWARD),
    **dict.fromkeys(["Judge", "CritiqueRevise", "Human", "Discriminator"], FEEDBACK),
    **dict.fromkeys(["Regression", "SLiC"], OBJECTIVE),
    "Critic": ["model=RL", "model.critic="],
    "CrossModal": ["model={}"],
    "Patches": ["model=CrossModal", "model.embedder={}"],
    "Tables": ["data=CrossModalData", "data.modality={}"],
    "Report": ["trainer.callbacks={}"],
    "lit-align judge": ["="],
    "lit-align evaluate reward-bench": ["="],
    "lit-align evaluate win-rate": ["="],
}
CASES = [
    (cls, old, new)
    for classes, keys in SETTINGS.items()
    for cls in classes
    for old, new in keys.items()
]


def place(cls: str) -> tuple[list[str], str, list[tuple[str, str]]]:
    """Command, dotted path of the settings of a class, and the class at each path on the way."""
    command = cls.split()[1:] if cls.startswith("lit-align ") else ["fit"]
    steps = [tuple(step.format(cls).split("=")) for step in PLACES[cls]]
    return command, steps[-1][0], steps


def nested(steps: list[tuple[str, str]], key: str) -> dict:
    """The settings of a YAML: each class with its ``init_args``, and the key in the last one."""
    settings: dict = {}
    block = settings
    position = ""
    for path, name in steps:
        for part in path.removeprefix(position).strip(".").split(".") if path else ():
            block = block.setdefault(part, {})
        if name:
            block["class_path"] = name
            block = block.setdefault("init_args", {})
        position = path
    block[key] = 1
    return settings


def refused(capsys, arguments: list[str]) -> str:
    """The sentence on stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    sentences = [line for line in lines if " available: " not in line]  # Lightning's
    assert stopped.value.code == 2, sentences
    assert len(sentences) == 1, sentences
    return sentences[0].removeprefix("lit-align: ")


def expected(cls: str, path: str, old: str, new: str) -> str:
    values = VALUES.get((cls, old))
    hint = f", and {values}" if values else ""
    return f"{path}.{old}".lstrip(".") + f" is now called {new}{hint}; rename it"


@pytest.mark.parametrize("style", ["equals", "apart", "init_args"])
@pytest.mark.parametrize(("cls", "old", "new"), CASES)
def test_a_flag_is_refused(cls, old, new, style, capsys):
    command, path, steps = place(cls)
    classes = [f"--{path}={name}" for path, name in steps if name]
    option = "--" + f"{path}.{old}".lstrip(".")
    if style == "init_args":
        option = "--" + f"{path}.init_args.{old}".lstrip(".") if path else option
    value = [f"{option}=1"] if style == "equals" else [option, "1"]
    assert refused(capsys, [*command, *classes, *value]) == expected(cls, path, old, new)


@pytest.mark.parametrize("flow", [False, True], ids=["block", "flow"])
@pytest.mark.parametrize(("cls", "old", "new"), CASES)
def test_a_key_of_a_yaml_is_refused(cls, old, new, flow, capsys, tmp_path):
    command, path, steps = place(cls)
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(nested(steps, old), default_flow_style=flow))
    option = ["-c", str(file)] if flow else [f"--config={file}"]
    assert refused(capsys, [*command, *option]) == expected(cls, path, old, new)


@pytest.mark.parametrize(("cls", "old", "new"), CASES)
def test_an_overlay_without_the_class_is_refused(cls, old, new, capsys, tmp_path):
    """The class is in the YAML underneath."""
    command, path, steps = place(cls)
    base, overlay = tmp_path / "base.yaml", tmp_path / "overlay.yaml"
    base.write_text(yaml.safe_dump(nested(steps, "x")))
    overlay.write_text(yaml.safe_dump(nested([(path, "") for path, _ in steps], old)))
    arguments = [*command, "-c", str(base), "-c", str(overlay)]
    assert refused(capsys, arguments) == expected(cls, path, old, new)


def parameters() -> dict[str, set[str]]:
    """Settings of every class and command by name."""
    from lit_align.rl.critic import Critic

    classes = [*load_plugins().load_stages(), Critic]
    for registry in load_plugins().registries.values():
        classes += registry.classes()
    names = {}
    for cls in classes:
        names[cls.__name__] = {
            name
            for parent in cls.__mro__[:-1]
            for name in inspect.signature(parent.__init__).parameters
        }
    names["lit-align judge"] = set(judge.SETTINGS)
    names["lit-align evaluate reward-bench"] = set(reward_bench.SETTINGS)
    names["lit-align evaluate win-rate"] = set(win_rate.SETTINGS)
    return names


@pytest.fixture(scope="module")
def settings() -> dict[str, set[str]]:
    return parameters()


@pytest.mark.parametrize(("cls", "old", "new"), CASES)
def test_the_new_key_is_a_setting_and_the_old_one_is_not(cls, old, new, settings):
    assert new in settings[cls]
    assert old not in settings[cls]


@pytest.mark.parametrize("style", ["short", "class_path", "full path"])
@pytest.mark.parametrize(("old", "new"), CLASSES.items())
def test_a_class_is_refused_by_its_new_name(old, new, style, capsys, tmp_path):
    sentence = f"the class {old} is now called {new}; rename it"
    if style == "short":
        assert refused(capsys, ["fit", f"--model={old}"]) == sentence
        assert refused(capsys, ["fit", "--data", old]) == sentence
        assert refused(capsys, ["judge", f"--feedback={old}"]) == sentence
        assert refused(capsys, ["fit", "--trainer.callbacks+=" + old]) == sentence
        return
    path = old if style == "class_path" else f"lit_align.anywhere.{old}"
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": {"x": [{"class_path": path}]}}}))
    assert refused(capsys, ["fit", "-c", str(file)]) == sentence
    inline = f"--model.reward={{class_path: {path}}}"
    assert refused(capsys, ["fit", inline]) == sentence


@pytest.mark.parametrize(("old", "new"), MODULES.items())
def test_an_old_module_is_refused_by_the_new_one(old, new, capsys):
    import_module(new)
    assert refused(capsys, ["fit", f"--model={old}.RL"]) == (
        f"{old}.RL is now called {new}.RL; rename it"
    )


def test_a_module_of_a_package_that_moved_is_refused(capsys):
    assert refused(capsys, ["fit", "--data.modality=lit_align.data.modalities.images.Images"]) == (
        "lit_align.data.modalities.images.Images is now called lit_align.orca.modalities.images.Images; rename it"
    )


@pytest.mark.parametrize(
    "name", ["other_package.Exact", "other_package.rewards.Trained", "lit_align_zoo.Local"]
)
def test_a_class_of_another_package_may_have_an_old_name(name):
    renamed = RenamedSettings()
    renamed.add({"model": {"class_path": name, "init_args": {"samples": 1, "folder": "x"}}})
    assert not renamed.sentences


@pytest.mark.parametrize(
    "settings",
    [
        {"model": {"class_path": "RL", "init_args": {"ptx": {"weight": 1.0}}}},
        {"model": {"class_path": "RL", "init_args": {"best_of": {"n": 2}, "kl": {"start": 1}}}},
        {"model": {"class_path": "RL", "init_args": {"reward": {"class_path": "Implicit",
                                                                "init_args": {"reference": True}}}}},
        {"model": {"class_path": "SFT", "init_args": {"samples": 2, "epochs": 1, "overlong": "x"}}},
        {"data": {"class_path": "Comparisons", "init_args": {"overlong": "drop", "labels": "x"}}},
        {"data": {"class_path": "Online", "init_args": {"overlong": "drop", "feedback": {
            "class_path": "Discriminator", "init_args": {"epochs": 2}}}}},
        {"data": {"class_path": "Online", "init_args": {"feedback": {"class_path": "Judge", "init_args": {
            "model": {"class_path": "OpenAIServer", "init_args": {"model": "Local"}}}}}}},
        {"run": "Local", "answers": "Ranked"},
    ],
    ids=str,
)  # fmt: skip
def test_a_key_is_not_refused_where_it_is_valid(settings):
    renamed = RenamedSettings()
    renamed.add(settings)
    assert not renamed.sentences


def test_several_old_names_are_named_at_once(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model=RL", "--model.samples=2", "--model.reward=Trained", "--data=Thumbs"])
    assert capsys.readouterr().err.splitlines()[-3:] == [
        "lit-align: model.samples is now called num_generations; rename it",
        "the class Trained is now called RewardModelScore; rename it",
        "the class Thumbs is now called BinaryLabels; rename it",
    ]


@pytest.mark.parametrize(
    ("hparams", "sentence"),
    [
        ({"_class_path": "lit_align.stages.rl.RL"}, "is now called lit_align.rl.stage.RL"),
        (
            {"_class_path": "lit_align.stages.sft.SFT", "sft": "x"},
            "model.sft is now called init_adapter",
        ),
        (
            {
                "_class_path": "lit_align.rl.stage.RL",
                "reward": {"class_path": "lit_align.rewards.exact.Exact", "init_args": {}},
            },
            "the class Exact is now called LastNumber",
        ),
        (
            {
                "_class_path": "lit_align.rl.stage.RL",
                "reward": {
                    "class_path": "lit_align.rewards.length.Length",
                    "init_args": {"most": 3},
                },
            },
            "model.reward.most is now called max_words",
        ),
    ],
)
def test_a_checkpoint_with_old_names_is_refused(hparams, sentence, tmp_path):
    file = tmp_path / "last.ckpt"
    torch.save({"hyper_parameters": hparams, "state_dict": {}}, file)
    with pytest.raises(ModelError, match=sentence):
        lit_align.load(file)
    with pytest.raises(ModelError, match=sentence):
        SafeIO().load_checkpoint(file, weights_only=True)  # as Lightning does to resume
