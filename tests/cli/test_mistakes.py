"""Mistakes in a YAML and on the command line: each ends with one sentence, before anything of the kind is loaded.

Each row is a change of a right YAML, or another text in its place, and words of the sentence.
"""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.cli.main import main
from lit_align.cli.yaml_files import refuse_broken_files
from lit_align.errors import ConfigError
from tests.stages.runs import write_pairs

OPTIMIZER, LOGGERS = "model/init_args/optimizer/init_args/", "lightning.pytorch.loggers."
MODEL, DATA, CALLBACKS = "model/init_args/", "data/init_args/", "trainer/callbacks"
SCHEDULERS = "torch.optim.lr_scheduler."

YAML = """
run: runs
trainer: {accelerator: cpu, max_steps: 1, logger: csv, enable_progress_bar: false}
model:
  class_path: Preference
  init_args:
    objective: {class_path: DPO, init_args: {beta: 0.1}}
    base: {path: BASE, quantization: none, dtype: float32}
    lora: {r: 4}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.001}}
data:
  class_path: Comparisons
  init_args: {train: pairs.jsonl, validation: pairs.jsonl, batch_size: 4, token_budget: 256, max_length: 256}
"""


def callback(name: str, **settings):
    return {CALLBACKS: [{"class_path": name, "init_args": settings}]}


def scheduler(name: str, **settings):
    return {MODEL + "lr_scheduler": {"class_path": name, "init_args": settings}}


BY_PARSER = [
    # names of settings
    ({"trainner": {"max_steps": 1}}, "unknown key 'trainner'; did you mean trainer?"),
    ({"trainer/max_step": 1}, "unknown key 'trainer.max_step'; did you mean max_steps?"),
    ({MODEL + "lora/rank": 8}, "lora takes no 'rank'; write model.lora.r instead"),
    ({MODEL + "lora/alfa": 8}, "lora takes no 'alfa'; did you mean alpha?"),
    ({MODEL + "base/pth": "x"}, "base takes no 'pth'; did you mean path?"),
    ({MODEL + "objective/init_args/betta": 1}, "DPO takes no 'betta'; did you mean beta?"),
    ({MODEL + "objective/init_args/gamma": 1}, "DPO takes no 'gamma'; it is a setting of SimPO"),
    ({MODEL + "schedule": {"shape": "cosine", "warmupp": 1}}, "Schedule takes no 'warmupp'; did you mean warmup?"),
    ({DATA + "batchsize": 1}, "Comparisons takes no 'batchsize'; did you mean batch_size?"),
    (callback("EarlyStopping", monitorr="x"), "EarlyStopping takes no 'monitorr'; did you mean monitor?"),
    ({"seed": 1}, "unknown key 'seed'; set model.seed"),
    # at the wrong level
    ({"batch_size": 4}, "unknown key 'batch_size'; write data.batch_size instead"),
    ({"lora": {"r": 8}}, "unknown key 'lora'; write model.lora instead"),
    ({"objective": "DPO"}, "unknown key 'objective'; write model.objective instead"),
    ({"trainer/save_every": 5}, "unknown key 'trainer.save_every'; write save_every instead"),
    ({MODEL + "batch_size": 4}, "Preference takes no 'batch_size'; write data.batch_size instead"),
    ({MODEL + "r": 4}, "Preference takes no 'r'; write model.lora.r instead"),
    ({MODEL + "num_generations": 4}, "Preference takes no 'num_generations'; it is a setting of RL"),
    # of other libraries
    ({"model_name_or_path": "x"}, "TRL's model_name_or_path is model.base.path here"),
    ({MODEL + "per_device_train_batch_size": 2}, "per_device_train_batch_size is data.batch_size and data.token_budge"),
    ({MODEL + "learning_rate": 2}, "Preference takes no 'learning_rate'; TRL's learning_rate is model.optimizer.lr he"),
    ({"trainer/gradient_accumulation_steps": 2}, "gradient_accumulation_steps is data.batch_size and data.token_budge"),
    ({"cutoff_len": 8}, "unknown key 'cutoff_len'; write data.max_length instead"),
    ({"base_model": "x"}, "unknown key 'base_model'; write model.base.path instead"),
    ({"lora_target": "all"}, "unknown key 'lora_target'; write model.lora.targets instead"),
    ({"sample_packing": True}, "unknown key 'sample_packing'; leave it out: rows are always packed"),
    ({MODEL + "warmup_ratio": 0.1}, "model has no warmup_ratio; set schedule.warmup"),
    ({MODEL + "sft": "x"}, "model.sft is now called init_adapter; rename it"),
    # values
    ({OPTIMIZER + "lr": "fast"}, "model.optimizer.lr is 'fast', which is no float; write a number"),
    ({OPTIMIZER + "lr": [1]}, "model.optimizer.lr is [1], which is none of float, Tensor; write a number"),
    ({OPTIMIZER + "lr": None}, "model.optimizer.lr is null, which it may not be; write a number, or leave it out for"),
    ({OPTIMIZER + "betas": 0.9}, "model.optimizer.betas is '0.9', which is no tuple; write a list, as in [a, b]"),
    ({MODEL + "lora/r": "eight"}, "model.lora.r is 'eight', which is no int; write a whole number"),
    ({MODEL + "lora": 8}, "model.lora is 8, and is a group of settings; write some by name (r, alpha, "),
    ({MODEL + "lora": None}, "model.lora is null, and is a group of settings; write some by name (r, alpha, "),
    ({MODEL + "base": "tiny"}, "model.base is 'tiny', and is a group of settings (attention, dtype, path, quantizatio"),
    ({MODEL + "objective/init_args/beta": None}, "model.objective.beta is null, which it may not be; write a number"),
    ({MODEL + "gradient_checkpointing": "maybe"}, "gradient_checkpointing is 'maybe', which is no bool; write true or"),
    ({MODEL + "base/quantization": "8bit"}, "model.base.quantization is '8bit'; choose from 'nf4', 'none'"),
    ({MODEL + "base/dtype": "fp16"}, "model.base.dtype is 'fp16'; choose from 'auto', 'bfloat16', 'float32'"),
    ({MODEL + "schedule": 3}, "model.schedule is 3, which is none of Schedule; write its settings by name: decay, flo"),
    ({DATA + "batch_size": None}, "data.batch_size is null, which it may not be; write a whole number, or leave it ou"),
    ({DATA + "train": [{"path": "x"}]}, "data.train is [{'path': 'x'}], which is none of str, list[str]; write a text"),
    ({DATA + "train": None}, "Comparisons needs train; set it in the YAML or on the command line"),
    ({"trainer/max_steps": [1]}, "trainer.max_steps is '[1]', which is no int; write a whole number"),
    ({"trainer/max_steps": None}, "trainer.max_steps is null, which it may not be; write a whole number"),
    ({"trainer": None}, "trainer is null, and is a group of settings; leave it out"),
    ({"trainer": "gpu"}, "trainer is 'gpu', and is a group of settings; write trainer: {accelerator: gpu}"),
    ({"save_every": None}, "save_every is null, which it may not be"),
    ({"data": "pairs.jsonl"}, "pairs.jsonl is a file, and a class is needed here; write data: {class_path"),
    # classes
    ({MODEL + "objective": "dpo"}, "nothing is called 'dpo'; did you mean DPO?"),
    ({MODEL + "objective": {"beta": 1}}, "model.objective has settings and no class; name one"),
    ({MODEL + "objective": {"class_path": "DPO", "beta": 1}}, "such as beta, stand beside its class_path; indent them"),
    ({MODEL + "optimizer": {"class_path": "AdamW", "lr": 1}}, "indent them under model.optimizer.init_args"),
    ({"model": {"class_path": "SFT", "base": {"path": "x"}}}, "indent them under model.init_args"),
    ({"model": {"class_path": "SFT", "init_arg": {}}}, "model has 'init_arg' beside class_path; did you mean init_arg"),
    ({"model": {"classpath": "SFT", "init_args": {}}}, "model has 'classpath', which is no key of a class; write clas"),
    ({"model/init_args": None}, "model.init_args is null, and holds settings by name; indent lines"),
    ({MODEL + "optimizer": 3}, "model.optimizer is 3, and names a class"),
    # loggers
    ({"trainer/logger": {"class_path": LOGGERS + "WandbLogger"}}, "the package wandb is not installed; run `pip insta"),
    ({"trainer/logger": {"class_path": LOGGERS + "MLFlowLogger"}}, "the package mlflow is not installed; run `pip ins"),
    ({"trainer/logger": "wandb"}, "trainer.logger is wandb, and the package wandb is not installed"),
    ({"trainer/logger": 3}, "trainer.logger is 3, which is none of bool, 'csv', "),
    # schedulers
    ({MODEL + "lr_scheduler": "cosine"}, "model.lr_scheduler is 'cosine', and takes a class of torch; write schedule:"),
    ({MODEL + "lr_scheduler": "transformers.get_cosine_schedule_with_warmup"}, "write schedule: {shape: cosine, warmu"),
    (scheduler(SCHEDULERS + "SequentialLR", schedulers=[], milestones=[]), "SequentialLR, which is made of other sche"),
    (scheduler("CosineAnnealingLR", T_max="x"), "model.lr_scheduler.T_max is 'x', which is no int; write a whole numb"),
    (scheduler("MultiStepLR", milestones=3), "model.lr_scheduler.milestones is '3', which is no Iterable; write a lis"),
    # what Lightning refuses, or would do twice
    ({"trainer/accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches is 2; leave it out"),
    ({"trainer/precision": "16-mixed"}, "trainer.precision is 16-mixed; leave it out: model.base.dtype is"),
    ({"trainer/val_check_interval": 0}, "trainer.val_check_interval is 0; give a number of steps"),
]  # fmt: skip
"""Known once the settings are parsed."""

BY_CLASSES = [
    ({MODEL + "objective": "KTO"}, "the data module Comparisons has pairs; set data.class_path to BinaryLabels, or ch"),
    ({"data/class_path": "BinaryLabels"}, "DPO learns from pairs, and the data module BinaryLabels has desirable; set"),
    ({"data/class_path": "Demonstrations"}, "set data.class_path to Comparisons, or choose an objective over demonstr"),
    ({MODEL + "objective": "CrossEntropy"}, "CrossEntropy learns from demonstrations; use the stage SFT"),
    ({MODEL + "lora/r": 0}, "lora.r must be positive, got 0"),
    ({OPTIMIZER + "lr": -1.0}, "model.optimizer AdamW(lr=-1.0) cannot be made: Invalid learning rate: -1.0; correct i"),
    (scheduler("OneCycleLR", max_lr=0.1, total_steps=10, pct_start=0.1), "OneCycleLR(max_lr=0.1, total_steps=10, pct_"),
    ({MODEL + "lora/targets": ["q_project"]}, "lora.targets names 'q_project', which this model does not have; did yo"),
    ({MODEL + "lora/targets": "q_pro["}, "lora.targets is 'q_pro[', which is no pattern"),
    ({MODEL + "lora/targets": "all_linear"}, "did you mean all-linear?"),
    ({MODEL + "init_adapter": "runs/nothing/0/adapter"}, "no adapter at 'runs/nothing/0/adapter'; give a folder with"),
    ({MODEL + "base/path": "./models/nothing"}, "no model at './models/nothing'; give a hub id, a folder or a GGUF fi"),
    ({"trainer/accelerator": "gpu"}, "trainer.accelerator is gpu: No supported gpu backend found; correct it"),
    (callback("EarlyStopping", monitor="val_loss"), "EarlyStopping monitors 'val_loss', which this run does not measu"),
    (callback("ModelCheckpoint", monitor="val_loss"), "did you mean eval_loss? There are eval_entropy, "),
    (callback("ModelCheckpoint", monitor="eval_loss", mode="most"), "ModelCheckpoint: `mode` can be min, max but got"),
    ({DATA + "validation": None, **callback("EarlyStopping", monitor="eval_loss")}, "the run has no validation; name"),
]  # fmt: skip
"""Known once the classes are instantiated, and before the data are read: there are none."""

BY_DATA = [
    ({DATA + "train": "pears.csv"}, "there is no file pears.csv (looked in "),
    (
        {DATA + "token_budget": 40},
        "over the token_budget of 40; raise token_budget or lower max_length",
    ),
    ({DATA + "max_length": 5}, "raise max_length"),
]
"""Known from the data."""

TEXTS = [
    ("", "c.yaml has no settings in it; write model:, data: and trainer:"),
    ("# nothing\n", "c.yaml has no settings in it"),
    ("- model: 1\n", "c.yaml is a list, and settings have names; begin with model:"),
    ("hello\n", "c.yaml is a single text, and settings have names"),
    ("a: 1\nb:\n\tc: 2\n", "c.yaml, line 3: a tab is no indentation in YAML; use spaces"),
    (
        "a: 1\na: 2\n",
        "c.yaml, line 2: a is set in line 1 already, and only the last would hold; remove one",
    ),
    ("m: {x: 1, x: 2}\n", "c.yaml, line 1: x is set in line 1 already"),
    (
        "m:\n  a:1\n  b: 2\n",
        "c.yaml, line 3: the line before, 'a:1', has no blank after its colon; write one",
    ),
    (
        "m:\n  a: 1\n   b: 2\n",
        "c.yaml, line 3: 'b: 2' is indented more than 'a: 1' before it, which has a value",
    ),
    (
        "m:\n   a: 1\n  b: 2\n",
        "c.yaml, line 3: 'b: 2' is indented by 2, and the block that began in line 1 by 0",
    ),
    ("m: a: b\n", "c.yaml, line 1: 'm: a: b' has two colons; put the value in quotes"),
    ("m: 'a\n", "the quotes that open in line 1 do not end; close them after the value"),
    ("m: {a: 1\nb: 2\n", "a bracket that opens in line 1 is not closed before this; close it"),
    ("m: @a\n", "c.yaml, line 1: a value that begins with @ needs quotes; write '@a'"),
    ("m: *a\n", "c.yaml, line 1: a value that begins with * needs quotes; write '*a'"),
    (
        "m: !!python/object:os.system x\n",
        "c.yaml, line 1: a value that begins with ! or is = needs quotes",
    ),
    ("m: 1\n---\nm: 2\n", "c.yaml, line 2: a second document begins with ---; remove that line"),
    ("trainer\nm: 1\n", "'trainer' in line 1 has no colon; write a colon after the name"),
    (
        "model: &block {lora: *block}\n",
        "c.yaml, line 1: the block that begins here contains itself",
    ),
    ("m: caf\xe9\n", "c.yaml, line 1: byte 0xe9 is not UTF-8; save the file as UTF-8"),
]

ARGUMENTS = [
    ("-c c.yaml --model.lora.rank 8", "unknown key 'model.lora.rank'; write model.lora.r instead"),
    ("-c c.yaml --trainer.maxsteps 3", "unknown key 'trainer.maxsteps'; did you mean max_steps?"),
    ("-c c.yaml --trainer.max-steps=3", "unknown key 'trainer.max_steps'; write trainer.max_steps"),
    ("-c c.yaml --modle=Preference", "unknown key 'modle'; did you mean model?"),
    ("-c c.yaml --trainer.max_steps", "--trainer.max_steps has no value after it; write --trainer.max_steps=VALUE"),
    ("-c c.yaml trainer.max_steps=3", "trainer.max_steps=3 is no option; write --trainer.max_steps=3"),
    ("-c c.yaml -trainer.max_steps=3", "-trainer.max_steps=3 is no option; write --trainer.max_steps=3"),
    ("-c c.yaml --data.train a.csv b.csv", "b.csv follows no option; write several values as a list"),
    ("-c c.yaml --lr=3", "unknown key 'lr'; write model.optimizer.lr instead"),
    ("-c c.yaml --model.base=tiny", "model.base is 'tiny', and is a group of settings"),
    ("c.yaml", "c.yaml follows no option; write -c c.yaml"),
    ("-f c.yaml", "c.yaml follows no option; write -c c.yaml"),
    ("--cfg c.yaml", "unknown key 'cfg'; write -c FILE instead"),
    ("-c", "-c/--config has no value after it; write --config FILE"),
]  # fmt: skip


@pytest.fixture
def sentence(tiny, tmp_path, capsys, monkeypatch):
    """The one line with which a command ends, in a folder with ``c.yaml``, and with ``pairs.jsonl`` if asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lit_align.stages.language_model_stage.load_model", None)

    def run(change: dict, *arguments: str) -> str:
        config = yaml.safe_load(YAML.replace("BASE", str(tiny)))
        Path("c.yaml").write_text(yaml.safe_dump(changed(config, change)))
        return refusal(capsys, "fit", *(arguments or ("-c", "c.yaml")))

    return run


def changed(config: dict, change: dict) -> dict:
    config = copy.deepcopy(config)
    for path, value in change.items():
        block = config
        *keys, last = path.split("/")
        for key in keys:
            block = block.setdefault(key, {})
        block[last] = value
    return config


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    assert stopped.value.code in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("lit-align: ")]
    assert not [other for other in lines if "Traceback" in other]
    return line


@pytest.mark.parametrize(("change", "words"), [*BY_PARSER, *BY_CLASSES])
def test_a_mistake_that_is_known_before_the_data(change, words, sentence):
    assert words in sentence(change)


@pytest.mark.parametrize(("change", "words"), BY_DATA)
def test_a_mistake_that_the_data_show(change, words, sentence):
    write_pairs(Path("pairs.jsonl"), 12)
    assert words in sentence(change)


@pytest.mark.parametrize(("arguments", "words"), ARGUMENTS)
def test_a_mistake_on_the_command_line(arguments, words, sentence):
    assert words in sentence({}, *arguments.split())


@pytest.mark.parametrize(("text", "words"), TEXTS)
def test_a_file_that_cannot_be_read(text, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_bytes(text.encode("latin-1"))
    assert words in refusal(capsys, "fit", "-c", "c.yaml")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", "there is no command 'train'; write lit-align fit"),
        ("dpo", "there is no command 'dpo'; write lit-align fit --task dpo --base MODEL --data FILE"),
        ("fitt", "there is no command 'fitt'; did you mean fit?"),
    ],
)  # fmt: skip
def test_a_command_that_there_is_not(command, words, capsys):
    assert words in refusal(capsys, command)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([*"ab:-{}[]'\"@*&!|>%#\t\n \\,", ": ", "\n  ", "---\n", "é"]), max_size=12)
)  # fmt: skip
def test_any_text_is_read_or_refused_in_one_sentence(tmp_path_factory, parts):
    """PyYAML decides what is a mapping; what it takes is refused only where a key comes twice."""
    text = "".join(parts)
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, "utf-8")
    sentence = refusal_of(path)
    if sentence is None:
        assert isinstance(yaml.safe_load(text), dict)
    else:
        assert "\n" not in sentence
        assert sentence.startswith(str(path))


def refusal_of(path: Path) -> str | None:
    try:
        refuse_broken_files(["fit", "-c", str(path)])
    except ConfigError as error:
        return str(error)
    return None
