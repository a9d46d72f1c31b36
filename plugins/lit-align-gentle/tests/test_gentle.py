"""A curriculum in order of margins, and an adapter that returns to its start; both by their short names."""

import csv
import json
import sys

import pytest
import torch
from lit_align_gentle.anchored_sft import AnchoredSFT
from lit_align_gentle.curriculum import Curriculum
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_align.cli.main import main
from lit_align.data.datamodules import Demonstrations
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.plugins import load_plugins
from lit_align.stages.preference import Preference
from lit_align.testing import check_datamodule, check_stage

ENTRY = "[lit_align]\ngentle = lit_align_gentle\n"
METADATA = "Metadata-Version: 2.1\nName: lit-align-gentle\nVersion: 0.1.0\n"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as pip installs it."""
    folder = tmp_path / "lit_align_gentle-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(METADATA)
    (folder / "entry_points.txt").write_text(ENTRY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LIT_ALIGN_PLUGINS", "lit-align-gentle")
    load_plugins.cache_clear()
    yield load_plugins()
    load_plugins.cache_clear()


@pytest.fixture
def base(tmp_path):
    """A model of one layer and eight words."""
    words = {word: i for i, word in enumerate("a b c d e f g <end>".split())}  # noqa: SIM905
    tokenizer = Tokenizer(models.WordLevel(words, "a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=7, bos_token_id=None, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def fit(folder, base, stage, data, *settings):
    """Train for two steps; the adapter's weights, and a row of metrics for each step."""
    model = [f"--model.base.path={base}", "--model.base.quantization=none"]
    common = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--data.batch_size=2"]
    run = folder / str(len(list(folder.iterdir())))
    classes = [
        f"--model={stage}",
        f"--data={data}",
        f"--run={run}",
        "--trainer.log_every_n_steps=1",
    ]
    main(["fit", *classes, *model, "--model.base.dtype=float32", *common, *settings])
    with (run / "0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return load_file(run / "0/adapter/adapter_model.safetensors"), rows


def test_the_hooks_import_no_lightning():
    """The classes do, so they are imported when settings are parsed."""
    import subprocess

    code = "import sys, lit_align_gentle; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_adapter_that_is_drawn_all_the_way_back_has_not_moved(installed, base, tmp_path):
    assert {AnchoredSFT, Curriculum} <= set(installed.load_stages())
    rows = [{"prompt": "a b", "completion": " c d"}, {"prompt": "c", "completion": " e f g"}] * 2
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = (f"--data.train={data}", "--model.objective=CrossEntropy", "--model.optimizer.lr=0.01")
    runs = tmp_path / "runs"
    runs.mkdir()
    settings = {"free": 0.0, "held": 1.0, "half": 0.5}
    fitted = {
        name: fit(runs, base, "AnchoredSFT", "Demonstrations", *common, f"--model.anchor={anchor}")
        for name, anchor in settings.items()
    }
    plain, _ = fit(runs, base, "SFT", "Demonstrations", *common)
    assert all(torch.equal(fitted["free"][0][name], plain[name]) for name in plain)
    assert all(
        not fitted["held"][0][name].any() for name in plain if "lora_B" in name
    )  # as they start
    distances = {name: float(rows[-1]["anchor/distance"]) for name, (_, rows) in fitted.items()}
    assert distances["held"] == 0 < distances["half"] < distances["free"]


def test_the_stage_keeps_what_every_stage_promises():
    rows = [{"prompt": "Name a bird.", "completion": bird} for bird in ("An owl.", "A wren.")]

    def stage(base, anchor=0.5):
        return AnchoredSFT(CrossEntropy(), anchor, base=base, lora=Lora(r=2))

    def data(file):
        return Demonstrations(file, batch_size=1, prepared_cache=None)

    check_stage(stage, data, rows, refused=[lambda base: stage(base, 1.5)])


def test_the_curriculum_keeps_what_every_data_module_promises():
    rows = [
        {"prompt": f"{margin}?", "chosen": "An owl.", "rejected": "No.", "margin": margin}
        for margin in (1.0, 3.0, 2.0)
    ]

    def data(file, **settings):
        return Curriculum(file, batch_size=1, prepared_cache=None, **settings)

    def stage(base):
        return Preference(DPO(), base=base, lora=Lora(r=2))

    check_datamodule(data, stage, rows, refused=[lambda file: data(file, shuffle=True)])


def test_the_clearest_comparisons_come_first(installed, base, tmp_path):
    margins = [1.0, 3.0, 2.0, 0.0]
    data = tmp_path / "pairs.jsonl"
    with data.open("w") as file:
        for k, margin in enumerate(margins):
            row = {"prompt": "abcd"[k], "responses": [" e", " f"], "pairs": [[0, 1, 1.0, margin]]}
            file.write(json.dumps(row) + "\n")
    module = Curriculum(str(data), prepared_cache=None)
    model = Preference(DPO(), base=Base(str(base)), lora=Lora())
    trees = module.read_trees("train", module.label_kind, model, lambda ledger: None)
    assert [max(pair.margin for pair in tree.group.pairs) for tree in trees] == [3.0, 2.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="order of its own"):
        Curriculum(str(data), shuffle=True)
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                "--model=Preference",
                "--data=Curriculum",
                f"--data.train={data}",
                "--print_config",
            ]
        )
