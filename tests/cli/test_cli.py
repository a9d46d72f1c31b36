"""What the command answers: at once where nothing is asked for, in one sentence where something is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_align.__main__ import ALLOCATOR, main
from tests.stages.runs import arguments

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def usual(tiny, tmp_path_factory) -> list[str]:
    """Arguments that would train, were they not spoiled."""
    folder = tmp_path_factory.mktemp("cli")
    return arguments(tiny, folder / "pairs.jsonl", folder / "runs")


def run_refused(capsys, args) -> tuple[int, str]:
    """Exit code, and the sentence on stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(args)
    lines = [
        line for line in capsys.readouterr().err.splitlines() if " available: " not in line
    ]  # Lightning's
    assert lines[0].startswith("lit-align: "), lines
    return stopped.value.code, "\n".join(lines).removeprefix("lit-align: ")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("--model.objective=dpo", "nothing is called 'dpo'; did you mean DPO?"),
        (
            "--model.objective=CrossEntropy",
            "CrossEntropy learns from demonstrations; use the stage SFT",
        ),
        ("--model=Preferense", "nothing is called 'Preferense'; did you mean Preference?"),
        ("--data=Comparision", "nothing is called 'Comparision'; did you mean Comparisons?"),
        ("--model.objective.bta=0.2", "DPO takes no 'bta'; did you mean beta?"),
        (
            "--model.max_grad_nrm=1",
            "Preference takes no 'max_grad_nrm'; did you mean max_grad_norm?",
        ),
        ("--data.batchsize=2", "Comparisons takes no 'batchsize'; did you mean batch_size?"),
        ("--trainer.max_stepz=2", "unknown key 'trainer.max_stepz'; did you mean max_steps?"),
        ("--model.lora.alfa=8", "unknown key 'model.lora.alfa'; did you mean alpha?"),
        ("--model.base.pth=x", "unknown key 'model.base.pth'; did you mean path?"),
        ("--runn=x", "unknown key 'runn'; did you mean run?"),
        (
            "--model.objective.beta=much",
            "model.objective.beta is 'much', which is no float; write a number",
        ),
        (
            "--model.max_bad_steps=x",
            "model.max_bad_steps is 'x', which is no int; write a whole number",
        ),
        ("--model.lora.r=x", "model.lora.r is 'x', which is no int; write a whole number"),
        ("--data.batch_size=x", "data.batch_size is 'x', which is no int; write a whole number"),
        (
            "--trainer.max_steps=x",
            "trainer.max_steps is 'x', which is no int; write a whole number",
        ),
        ("--model.base.quantization=nf3", "model.base.quantization is 'nf3'; choose from 'nf4'"),
        ("--model.objective.beta=-1", "beta must be positive, got -1.0; the paper uses 0.1 to 0.5"),
        (
            "--trainer.accumulate_grad_batches=2",
            "trainer.accumulate_grad_batches is 2; leave it out: data.batch_size",
        ),
        ("--save_every=0", "save_every is 0; it is a number of steps, at least 1"),
        (
            "--trainer.log_every_n_steps=0",
            "trainer.log_every_n_steps is 0; it is a number of steps, at least 1",
        ),
        (
            "--ckpt_path=nope.ckpt",
            "there is no checkpoint nope.ckpt; give the path of one after --ckpt_path",
        ),
        ("--seed_everything=7", "seed_everything is 7; leave it out and set model.seed"),
        (
            "--trainer.gradient_clip_val=0.5",
            "trainer.gradient_clip_val is 0.5; set max_grad_norm of the model instead",
        ),
        (
            "--trainer.precision=bf16-true",
            "trainer.precision is bf16-true; leave it out: model.base.dtype",
        ),
        ("--trainer.precision=16", "trainer.precision is 16; leave it out: model.base.dtype"),
        (
            "--trainer.precision=16-mixed",
            "trainer.precision is 16-mixed; leave it out: model.base.dtype",
        ),
    ],
)
def test_a_mistake_on_the_command_line(capsys, usual, more, sentence):
    key = more.partition("=")[0]
    spoiled = [more if one.partition("=")[0] == key else one for one in usual]
    code, answer = run_refused(capsys, spoiled if more in spoiled else [*spoiled, more])
    assert answer.startswith(sentence)
    assert "\n" not in answer
    assert code == 2


@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [
        (
            "--data",
            "there is no data; give a YAML that sets it with -c FILE",
        ),
        (
            "--model",
            "there is no model; give a YAML that sets it with -c FILE (lit-align init writes one)",
        ),
        (
            "--model.base.path",
            "Preference needs base.path; set it in the YAML or on the command line",
        ),
        ("--data.train", "Comparisons needs train; set it in the YAML or on the command line"),
    ],
)
def test_what_is_missing(capsys, usual, left_out, sentence):
    shorter = [one for one in usual if not one.startswith((f"{left_out}=", f"{left_out}."))]
    assert run_refused(capsys, shorter) == (2, sentence)


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("modle: {class_path: Preference}", "unknown key 'modle'; did you mean model?"),
        ("trainer: {max_step: 1}", "unknown key 'trainer.max_step'; did you mean max_steps?"),
        (
            "model: {class_path: Preference, init_args: {objective: {class_path: DPO, init_args: {label: 1}}}}",
            "DPO takes no 'label'; there are beta",
        ),
        (
            "model: {class_path: RL, init_args: {reward: {class_path: Pattern, init_args: {pattern: a}}}}",
            "Pattern takes no 'pattern'; there are regex",
        ),
        (
            "model: {class_path: Preference, init_args: {objective: simpo}}",
            "nothing is called 'simpo'",
        ),
    ],
)
def test_a_mistake_in_a_yaml(capsys, tmp_path, yaml, sentence):
    (tmp_path / "wrong.yaml").write_text(yaml)
    code, answer = run_refused(capsys, ["fit", "-c", str(tmp_path / "wrong.yaml")])
    assert answer.splitlines()[0].startswith(sentence)
    assert code == 2


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["fit", "--model.objective=DPO"],
            "model has no class yet; name it before its settings, as in --model=Preference --data=Comparisons",
        ),
        (["fti"], "there is no command 'fti'; did you mean fit?"),
        (
            ["plugins", "objective"],
            "no kind of plugin is called 'objective'; there are objectives, formats, rewards, advantages, feedback, "
            "samplers, judges, tasks, embedders, commands",
        ),
    ],
)
def test_a_mistake_in_a_command(capsys, args, sentence):
    assert run_refused(capsys, args) == (2, sentence)


def test_a_missing_yaml(capsys):
    code, answer = run_refused(capsys, ["fit", "-c", "nowhere.yaml"])
    assert code == 2
    assert answer.startswith("there is no file ")
    assert (
        "nor a packaged config of that name; check the path after -c\nPackaged configs: abstention, d2po, "
        in answer
    )


def test_missing_data_is_no_mistake_in_the_settings(capsys, usual):
    code, answer = run_refused(capsys, [*usual, "--trainer.logger=false"])
    assert code == 1
    assert answer.startswith("there is no file ")


def test_what_is_installed_as_json(capsys):
    main(["plugins", "objectives", "--json"])
    first = next(
        one for one in json.loads(capsys.readouterr().out) if one["name"] == "CrossEntropy"
    )
    assert first["from"] == "lit_align.objectives.cross_entropy"
    assert first["what"] == "Raise the log-probability of every token of the demonstrations."


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def test_help_and_version_import_nothing_heavy():
    out = python(
        "import sys; from lit_align.__main__ import main\n"
        "for sys.argv[1:] in (['--help'], [], ['--version']): main()\n"
        "import lit_align\n"
        "heavy = ('torch', 'lightning', 'jsonargparse', 'transformers', 'lit_align.plugins')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert "lit-align fit -c FILE" in out
    assert "lit-align 0.1.0" in out
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", [None, *ALLOCATOR])
def test_the_allocator_is_set_unless_the_user_has(name, monkeypatch, capsys):
    for variable in ALLOCATOR:
        monkeypatch.delenv(variable, raising=False)
    if name is not None:
        monkeypatch.setenv(name, "max_split_size_mb:64")
    main(["--version"])
    values = {os.environ[variable] for variable in ALLOCATOR if variable in os.environ}
    assert values == {"max_split_size_mb:64" if name else "expandable_segments:True"}


def test_the_parser_imports_no_more_than_lightning_does():
    """What a run needs is imported by the run; of these a bare LightningCLI may bring some itself."""
    out = python(
        "import sys\n"
        "heavy = ('transformers', 'peft', 'bitsandbytes', 'datasets', 'matplotlib', 'pandas', 'rich')\n"
        "from lightning.pytorch import cli, loggers, callbacks\n"
        "before = {name for name in heavy if name in sys.modules}\n"
        "from lit_align.cli.main import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "print('AND:', sorted({name for name in heavy if name in sys.modules} - before))"
    )
    assert "--model.help" in out
    assert out.splitlines()[-1] == "AND: []"


def test_what_is_installed_is_listed_without_lightning():
    out = python(
        "import sys; from lit_align.__main__ import main\n"
        "main(['plugins', 'objectives']); print('lightning' in sys.modules)"
    )
    assert "lit_align.objectives.cross_e" in out
    assert "…" not in out
    assert out.splitlines()[-1] == "False"


SIMPO = "model: {class_path: Preference, init_args: {objective: {class_path: SimPO, init_args: {gamma: 1.0}}}}"


@pytest.mark.parametrize(
    "more",
    [
        ["--model.objective=SimPO"],
        ["--model.objective", "lit_align.objectives.simpo.SimPO"],
        ["--model.objective=SimPO", "--model.objective.gamma=1.0"],
        ['--model.objective={"class_path": "SimPO", "init_args": {"gamma": 1.0}}'],
        ["-c", "FILE"],
        ["--config=FILE", "--model.max_grad_norm=2"],
    ],
    ids=" ".join,
)
def test_a_setting_of_the_objective_underneath_is_not_taken_over(
    more, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(ROOT)
    (tmp_path / "simpo.yaml").write_text(SIMPO)
    more = [word.replace("FILE", str(tmp_path / "simpo.yaml")) for word in more]
    code, sentence = run_refused(capsys, ["fit", "-c", "configs/tiny/dpo.yaml", *more])
    assert code == 2
    assert sentence == (
        "beta 0.1 was written for DPO in configs/tiny/dpo.yaml, and SimPO would take it over; state beta together with "
        "SimPO, as configs/objectives/SimPO.yaml does"
    )


@pytest.mark.parametrize(
    ("more", "beta"),
    [
        (["-c", "configs/objectives/SimPO.yaml"], 2.0),
        (["--model.objective=SimPO", "--model.objective.beta=3"], 3.0),
        (['--model.objective={"class_path": "SimPO", "init_args": {"beta": 4.0}}'], 4.0),
        (["--model.objective=DPO"], 0.1),
        (["--model.objective", "{class_path: DPO, init_args: {beta: 0.2}}"], 0.2),
        (["--model.objective.beta=0.5"], 0.5),
    ],
)
def test_a_restated_setting_passes(more, beta, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "-c", "configs/tiny/dpo.yaml", *more, "--print_config"])
    assert not stopped.value.code
    found = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["objective"]["init_args"]
    assert found["beta"] == beta
