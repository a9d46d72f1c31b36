"""What is exported says what was trained, in the hands of others' code."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import lit_align
from lit_align.__main__ import main as command
from lit_align.cli.main import main
from lit_align.models.export import TEXTS
from tests.stages.runs import arguments, folder_of, write_pairs


@pytest.fixture(scope="module", params=["nf4-float32", "nf4-bfloat16", "none-float32"])
def run(request, tiny, tmp_path_factory):
    at = tmp_path_factory.mktemp("export")
    quantization, dtype = request.param.split("-")
    more = [
        f"--model.base.quantization={quantization}",
        f"--model.base.dtype={dtype}",
        "--model.optimizer.lr=0.05",
    ]
    main([*arguments(tiny, write_pairs(at / "pairs.jsonl"), at / "run"), *more])
    return folder_of(at / "run")


@torch.no_grad()
def said(model, tokenizer) -> list[torch.Tensor]:
    return [
        model(input_ids=torch.tensor([tokenizer(text).input_ids])).logits[0].float()
        for text in TEXTS
    ]


def test_the_adapter_is_one_for_peft(run, tiny, tmp_path, capsys):
    command(["export", str(run), str(tmp_path / "out")])
    assert "holds an adapter on" in capsys.readouterr().out
    stage = lit_align.load(run)
    if stage.base.quantization == "none":
        model = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny), str(tmp_path / "out")
        ).eval()
        for theirs, ours in zip(
            said(model, stage.tokenizer), said(stage.adapters.model, stage.tokenizer), strict=True
        ):
            torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-4)


def test_the_merged_model_says_what_was_trained_and_how_nearly(run, tmp_path, capsys):
    out = tmp_path / "out"
    command(["export", str(run), str(out), "--merge", "--bound", "0.5"])
    assert "convert_hf_to_gguf.py" in capsys.readouterr().out
    stage = lit_align.load(run)
    trained = said(stage.adapters.model, stage.tokenizer)
    model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    merged = said(model, AutoTokenizer.from_pretrained(out))
    assert model.dtype == stage.adapters.model.dtype
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings["eos_token_id"] == AutoTokenizer.from_pretrained(out).eos_token_id
    cost = json.loads((out / "merge.json").read_text())
    off = torch.cat(trained) - torch.cat(merged)
    assert cost["largest"] == pytest.approx(off.abs().max().item(), rel=1e-3, abs=1e-6)
    assert cost["largest"] < (0.5 if model.dtype == torch.bfloat16 else 1e-4)
    with torch.no_grad(), stage.adapters.activate("reference", training=False) as base:
        untrained = said(base, stage.tokenizer)
    assert (
        torch.cat(untrained) - torch.cat(merged)
    ).abs().max() > 0.5  # the adapter does something


def test_past_the_bound_nothing_is_written(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(["export", str(run), str(tmp_path / "out"), "--merge", "--bound", "1e-9"])
    assert "over --bound 1e-09; export the adapter alone" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(run, tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(SystemExit):
        command(["export", str(run), str(tmp_path)])
    assert "is not an empty folder, and nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_role_that_is_not_there_is_named(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(["export", str(run), str(tmp_path / "out"), "--role", "critic"])
    assert "no role is called 'critic'; there are policy and reference" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(["export", str(run), str(tmp_path / "out"), "--dtype", "float32"])
    assert "add --merge" in capsys.readouterr().err
