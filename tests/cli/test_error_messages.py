"""What is said of a class or a value that does not fit where it stands; the parser itself makes each mistake."""

import re
from pathlib import Path

import pytest

from lit_align.cli.main import main
from lit_align.coming_from_trl import table, translation

FIT = [
    "fit",
    "--model=Preference",
    "--model.objective=DPO",
    "--data=Comparisons",
    "--data.train=none.jsonl",
]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        # short names: the suggestion is of the kind that fits there, not of any kind
        ("--model.optimizer=adamw", "nothing is called 'adamw'; did you mean AdamW?"),
        ("--model.lr_scheduler=CosineAnealingLR", "nothing is called 'CosineAnealingLR'; did you mean CosineAnnealing"),
        ("--trainer.callbacks+=EarlyStoping", "nothing is called 'EarlyStoping'; did you mean EarlyStopping?"),
        ("--data.format=alpaca", "nothing is called 'alpaca'; did you mean Alpaca?"),
        ("--data.format=DPO", "DPO is of another kind than what is needed here; "),
        ("--model.objective=CrossEntropy", "CrossEntropy learns from demonstrations; use the stage SFT"),
        # losses by their names in TRL, and names of another kind
        ("--model.objective=sigmoid", "nothing is called 'sigmoid'; TRL's sigmoid is DPO"),
        ("--model.objective=hinge", "nothing is called 'hinge'; TRL's hinge is SLiC with relative: true and weight: 0"),
        ("--model.objective=simpo", "nothing is called 'simpo'; did you mean SimPO?"),
        ("--model.objective=dapo", "nothing is called 'dapo'; TRL's dapo is model.loss_aggregation: token"),
        ("--model.objective=GRPO", "GRPO is of another kind than what is needed here; it is an advantage: write mode"),
        ("--model.objective=RLOO", "RLOO is of another kind than what is needed here; it is an advantage: write mode"),
        ("--model.objective=grpo", "nothing is called 'grpo'; GRPO is an advantage: write model.advantage: GRPO in th"),
        ("--model.objective=Length", "Length is of another kind than what is needed here; it is a reward, which model"),
        ("--model.objective=PDO", "nothing is called 'PDO'; did you mean DPO?"),
        # their settings
        ("--model.optimizer={class_path: torch.optim.AdamW, init_args: {lrr: 1}}", "AdamW takes no 'lrr'; did you"),
        ("--model.optimizer={class_path: torch.optim.AdamW, init_args: {lr: fast}}", "model.optimizer.lr is 'fast', w"),
        ("--trainer.callbacks+={class_path: EarlyStopping, init_args: {monitr: x}}", "EarlyStopping takes no 'monitr'"),
        # full paths
        ("--model.objective=my_loss.Hinge", "my_loss.Hinge cannot be imported: there is no module 'my_loss'; "),
        ("--model.objective=lit_align.objectives.dpo.DPA", "lit_align.objectives.dpo has no 'DPA'; did you mean DPO?"),
        ("--model.objective=torch.nn.Linear", "torch.nn.Linear is no Objective; name a class that"),
        # names of another library
        ("--learning_rate=1e-5", "unknown key 'learning_rate'; TRL's learning_rate is model.optimizer.lr here"),
        ("--model.per_device_train_batch_size=4", "Preference takes no 'per_device_train_batch_size'; TRL's per_dev"),
        ("--model.lora_alpha=4", "Preference takes no 'lora_alpha'; TRL's lora_alpha is model.lora.alpha here"),
        # abbreviations, which argparse would take
        ("--save_ev=3", "unknown key 'save_ev'; did you mean save_every?"),
        ("--model.lora.alph=3", "unknown key 'model.lora.alph'; did you mean alpha?"),
        ("--trainer.max_ep=3", "unknown key 'trainer.max_ep'; did you mean max_epochs?"),
        # a group
        ("--model.lora={rank: 8}", "lora takes no 'rank'; write model.lora.r instead"),
        # values of several types
        ("--data.train={a: 1}", "data.train is {'a': 1}, which is none of str, list[str]; write a text or a list of t"),
        ("--trainer.deterministic=often", "trainer.deterministic is often, which is none of bool, "),
        ("--trainer.precision=17", "trainer.precision is 17, which is none of 64, 32, 16, "),
        # what the trainer itself refuses
        ("--trainer.max_epochs=-7", "trainer.max_epochs is -7: `max_epochs` must be a non-negative integer or -1. You"),
        ("--trainer.devices=some", "trainer.devices is some: `devices` selected with `CPUAccelerator` should be an in"),
        # strategies that give each process a share of the weights
        ("--trainer.strategy=fsdp", "trainer.strategy is fsdp; leave it out for one GPU, or set ddp: a step's grad"),
        ("--trainer.strategy=deepspeed_stage_2", "trainer.strategy is deepspeed_stage_2; leave it out for one GPU, o"),
        ("--trainer.strategy=lightning.pytorch.strategies.ModelParallelStrategy", "trainer.strategy is lightning"),
        # what no setting may name, whoever wrote it
        ("--model.objective=os.system", "os.system may not be named in settings, since it can run anything"),
        ("--model.optimizer=subprocess.run", "subprocess.run may not be named in settings, since it can run anything"),
        ("--trainer.logger=os.system", "os.system may not be named in settings, since it can run anything"),
    ],
)  # fmt: skip
def test_what_does_not_fit(capsys, more, sentence):
    with pytest.raises(SystemExit) as stopped:
        main([*FIT, "--model.base.path=none", "--trainer.accelerator=cpu", more])
    answer = [
        line for line in capsys.readouterr().err.splitlines() if " available: " not in line
    ]  # Lightning's
    assert answer[0].startswith(f"lit-align: {sentence}")
    assert len(answer) == 1
    assert stopped.value.code == 2


def test_no_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["-c", "configs/tiny/dpo.yaml"])
    assert capsys.readouterr().err.startswith(
        "lit-align: the command is missing; start with one of init, fit, validate, "
    )


def test_a_yaml_that_is_none(capsys, tmp_path):
    (tmp_path / "open.yaml").write_text("data: {class_path: [\n")
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "-c", str(tmp_path / "open.yaml")])
    (answer,) = capsys.readouterr().err.splitlines()
    assert answer.endswith(
        "open.yaml, line 2: a bracket that opens in line 2 is not closed before this; close it, or separate with commas"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "model: {class_path: Preference, objective: DPO}\n",
            "the settings of model, such as objective, stand beside its class_path; indent them under model.init_args",
        ),
        (
            "data: {class_path: Comparisons, train: a.jsonl}\nmodel: {class_path: SFT}\n",
            "the settings of data, such as train, stand beside its class_path; indent them under data.init_args",
        ),
        (
            "model:\n\tclass_path: SFT\n",
            "run.yaml, line 2: a tab is no indentation in YAML; use spaces",
        ),
    ],
)
def test_mistakes_of_indentation(text, sentence, capsys, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "-c", str(tmp_path / "run.yaml")])
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        ("DPO", "DPO learns from pairs; use the stage Preference"),
        ("Mix", "Mix learns from pairs; use the stage Preference"),
        ("BradleyTerry", "BradleyTerry learns from pairs; use the stage RewardModel"),
        ("PPO", "PPO learns from prompts; use the stage RL"),
    ],
)
def test_an_objective_of_another_stage_names_that_stage(objective, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(
            [
                "fit",
                "--model=SFT",
                f"--model.objective={objective}",
                *FIT[3:],
                "--model.base.path=none",
            ]
        )
    assert capsys.readouterr().err == f"lit-align: {sentence}\n"


PAGE = Path(__file__).parents[2] / "lit_align/docs/pages/coming_from.md"
NAMES_OF_TRL = [
    pytest.param(name, row, id=f"{name}-{row[1]}")
    for row in re.findall(r"^\| (`.+?`)(?: \((\w+)\))? \| (.+?) \| .*\|$", table(), re.MULTILINE)
    for name in re.findall(r"`(\w+)`", row[0])
]
"""Each name of the table on the page, and its row: names, kind of run, settings here."""


def test_the_table_is_that_of_the_page():
    assert len(NAMES_OF_TRL) > 50
    assert table() in PAGE.read_text()


@pytest.mark.parametrize(("name", "row"), NAMES_OF_TRL)
def test_the_hint_for_a_name_of_trl_is_the_target_in_its_row(name, row):
    names, kind, targets = row
    names = re.findall(r"`(\w+)`", names)
    targets = [target.partition(": ")[0] for target in re.findall(r"`(.+?)`", targets)]
    hint = translation(name, kind)
    assert set(hint.split(" and ")) <= set(targets)
    if len(names) == len(targets) and "gradient_accumulation_steps" not in names:
        assert hint == targets[names.index(name)]  # the columns say it by their order
    assert hint in translation(name)  # of a run whose stage is not known


@pytest.mark.parametrize(
    ("config", "more", "sentence"),
    [
        ("dpo", "--loss_type=sigmoid", "TRL's loss_type sigmoid is model.objective: DPO here"),
        ("dpo", "--loss_type=ipo", "TRL's loss_type ipo is model.objective: IPO with length_average: true here"),
        ("dpo", "--model.loss_type=hinge", "TRL's loss_type hinge is model.objective: SLiC with relative: true and w"),
        ("dpo", "--loss_type=[sigmoid, sft]", "TRL's loss_type [sigmoid, sft] is model.objective: Mix of DPO and Cros"),
        ("dpo", "--loss_type=logistic", "unknown key 'loss_type'; TRL's loss_type is model.objective here"),
        ("dpo", "--beta=0.2", "unknown key 'beta'; TRL's beta is model.objective.beta here"),
        ("sft", "--loss_type=dft", "TRL's loss_type dft is model.objective: DFT here"),
        ("grpo", "--loss_type=dr_grpo", "TRL's loss_type dr_grpo is model.loss_aggregation: constant here"),
        ("grpo", "--loss_type=new", "unknown key 'loss_type'; TRL's loss_type is model.loss_aggregation here"),
        ("grpo", "--model.beta=0.2", "unknown key 'beta'; TRL's beta is model.kl.coefficient here"),
    ],
)  # fmt: skip
def test_a_setting_of_trl_has_its_place_by_stage_and_value(
    capsys, tmp_path, config, more, sentence
):
    """On the command line, and the same in a YAML."""
    key, _, value = more.removeprefix("--").partition("=")
    indented = key.replace("model.", "model:\n  init_args:\n    ")
    (tmp_path / "mine.yaml").write_text(f"{indented}: {value}\n")
    for arguments in ([more], ["-c", str(tmp_path / "mine.yaml")]):
        with pytest.raises(SystemExit, match="2"):
            main(["fit", "-c", f"configs/{config}.yaml", *arguments])
        assert capsys.readouterr().err.startswith(f"lit-align: {sentence}")


def test_a_setting_is_not_taken_by_its_beginning(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "-c", "configs/grpo.yaml", "--model.kl.coeff=0.1"])
    answer = capsys.readouterr().err
    assert answer == "lit-align: unknown key 'model.kl.coeff'; did you mean coefficient?\n"
