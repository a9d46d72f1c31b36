"""The folder of an adapter works without this package, and a later stage is held to its base and template."""

import io
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import lit_align
from lit_align.__main__ import main as command
from lit_align.cli.main import main
from lit_align.data.scoring import tokenize_groups
from lit_align.models.base_content import base_content
from lit_align.models.gguf_file import write_gguf
from lit_align.types import Group
from tests import tiny as tiny_model
from tests.stages.runs import arguments, folder_of, without_report, write_chats, write_pairs

SHORT = "--trainer.max_steps=1"
REPORT = "--trainer.callbacks+=Report"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base whose template ends turns with an added token that is neither EOS nor special."""
    folder = tiny_model.save(tmp_path_factory.mktemp("base") / "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    for token in content["added_tokens"]:
        token["special"] = token["content"] != "<|im_end|>"
    file.write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.update(eos_token="<|im_start|>", pad_token="<|im_start|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert tokenizer.chat_template
    return folder


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    at = tmp_path_factory.mktemp("run")
    chats = write_chats(at / "chats.jsonl")
    main(without_report(arguments(base, chats, at / "run", SHORT, REPORT, stage="SFT")))
    return folder_of(at / "run")


def run_card(folder) -> str:
    """What the code in the card prints, in a process of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert "lit_align" not in code
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_template_and_ends_go_with_the_adapter(run, base):
    adapter = run / "adapter"
    theirs, ours = AutoTokenizer.from_pretrained(adapter), AutoTokenizer.from_pretrained(base)
    assert theirs.chat_template == ours.chat_template
    end, start = theirs.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])
    assert GenerationConfig.from_pretrained(adapter).eos_token_id == sorted([end, start])
    record = json.loads((adapter / "provenance.json").read_text())
    assert record["turn_ends"] == theirs.convert_ids_to_tokens(sorted([end, start]))
    assert record["base_content"] == base_content(str(base))


def test_the_card_says_what_was_trained_on_what(run, base):
    card = (run / "adapter" / "README.md").read_text()
    ledger = json.loads((run / "ledger.json").read_text())["train"]
    assert f"| train (chats.jsonl) | {ledger['rows']} | {ledger['fates']['kept']} |" in card
    assert str(base) in card
    assert "library_name: peft\nlicense: unknown" in card
    assert re.search(r"\* loss: [\d.]+", card)
    assert f"torch {torch.__version__}" in card


def our_answer(run) -> str:
    stage = lit_align.load(run)
    chat = [{"role": "user", "content": "Which planet is the largest?"}]
    prompt = stage.tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    (answer,) = stage.responder.answer([prompt], "policy", max_new_tokens=64)
    return answer.strip()


def without_end(printed: str) -> str:
    text = printed.removesuffix("\n")
    for token in ("<|im_end|>", "<|im_start|>"):
        text = text.removesuffix(token)
    return text.strip()


def test_the_code_in_the_card_answers_as_we_do(run):
    assert without_end(run_card(run / "adapter")) == our_answer(run)


def test_the_card_loads_a_base_that_is_in_a_package(tmp_path, monkeypatch, capsys):
    package = tmp_path / "lib" / "tiny_gguf"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    folder = tiny_model.save_with_merges(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write_gguf(AutoModelForCausalLM.from_pretrained(folder), tokenizer, package / "model.gguf")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path / "cache"))
    chats = write_chats(tmp_path / "chats.jsonl")
    path = "package:tiny_gguf/model.gguf"
    main(without_report(arguments(path, chats, tmp_path / "run", SHORT, REPORT, stage="SFT")))
    run = folder_of(tmp_path / "run")
    command(["export", str(run), str(tmp_path / "out")])
    assert "look a base up by its name, such as vLLM, do not know" in capsys.readouterr().out
    assert without_end(run_card(tmp_path / "out")) == our_answer(run)
    assert "pip install --no-deps tiny-gguf" in (tmp_path / "out" / "README.md").read_text()


def test_a_merged_model_stops_where_turns_end(run, tmp_path):
    out = tmp_path / "merged"
    command(["export", str(run), str(out), "--merge"])
    tokenizer = AutoTokenizer.from_pretrained(out)
    end, start = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])
    assert GenerationConfig.from_pretrained(out).eos_token_id == sorted([end, start])
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id == start
    assert "merged into the weights" in (out / "README.md").read_text()
    run_card(out)


def test_an_exported_adapter_knows_what_the_run_knew(run, tmp_path):
    command(["export", str(run), str(tmp_path / "out")])
    exported = json.loads((tmp_path / "out" / "provenance.json").read_text())
    trained = json.loads((run / "adapter" / "provenance.json").read_text())
    assert exported == trained
    card = (tmp_path / "out" / "README.md").read_text()
    assert card == (run / "adapter" / "README.md").read_text()


def test_a_chat_with_an_adapter_has_its_template(base, tmp_path, monkeypatch, capsys):
    bare = shutil.copytree(base, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    template = tmp_path / "own.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    )
    chats = write_chats(tmp_path / "chats.jsonl")
    more = (SHORT, REPORT, f"--model.chat_template={template}")
    main(without_report(arguments(bare, chats, tmp_path / "run", *more, stage="SFT")))
    template.unlink()
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    adapter = folder_of(tmp_path / "run") / "adapter"
    settings = ["--quantization=none", "--max_new_tokens=4"]
    command(["chat", f"--adapter={adapter}", *settings])
    assert "no chat template" not in capsys.readouterr().err


def next_stage(base, run, at, *more):
    pairs = write_pairs(at / "pairs.jsonl")
    start = f"--model.init_adapter={run / 'adapter'}"
    main(arguments(base, pairs, at / "run", SHORT, start, *more))


def test_a_copy_of_the_base_elsewhere_is_the_same_base(run, base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "under-another-name")
    next_stage(copy, run, tmp_path)


def test_another_template_is_refused_before_weights_are_read(run, base, tmp_path, capsys):
    empty = shutil.copytree(base, tmp_path / "llama")
    with pytest.raises(SystemExit):
        next_stage(empty, run, tmp_path, "--model.chat_template=chatml")
    error = capsys.readouterr().err
    assert "was trained under another chat template (the tokenizer's own" in error
    assert "set model.chat_template to null" in error


def test_a_base_of_the_same_name_with_other_weights_is_refused(run, base, tmp_path, capsys):
    other = shutil.copytree(base, tmp_path / "llama")
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name] = weights[name] * 1.001
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit):
        next_stage(other, run, tmp_path)
    assert f"not on {str(other)!r}, which has other weights" in capsys.readouterr().err


def test_content_is_of_weights_and_not_of_files(base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    model.float().save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    half = base_content(str(tmp_path / "half"))
    assert half == base_content(str(tmp_path / "shards"))
    assert half != base_content(str(base))
    assert base_content("nobody/has-this-model") is None


def test_the_card_of_a_reward_model_says_that_its_head_is_elsewhere(base, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    settings = without_report(arguments(base, pairs, tmp_path / "run", SHORT, REPORT))
    settings = [
        setting.replace("=Preference", "=RewardModel").replace("=DPO", "=BradleyTerry")
        for setting in settings
    ]
    main(settings)
    adapter = folder_of(tmp_path / "run") / "adapter"
    assert "with a *random* head" in (adapter / "README.md").read_text()
    assert not (adapter / "generation_config.json").exists()
    printed = float(run_card(adapter))
    stage = lit_align.load(folder_of(tmp_path / "run"))
    turns = [{"role": "user", "content": "2 + 2?"}], [{"role": "assistant", "content": "4."}]
    trees, _ = tokenize_groups([Group(turns[0], [turns[1]])], stage.tokenizer, 200)
    ids = torch.tensor([trees[0].prompt + trees[0].responses[0]])
    with torch.no_grad(), stage.adapters.activate("reward", training=False) as model:
        hidden = model.base_model(input_ids=ids).last_hidden_state[0, -1]
        head = stage.adapters.head("reward")
        expected = head.normalize(head(hidden[None])).item()
    assert printed == pytest.approx(expected, abs=1e-5)


def test_a_model_in_the_cache_of_the_hub_is_its_local_copy(base, tmp_path, monkeypatch):
    commit = "0123456789" * 4
    snapshot = tmp_path / "models--org--name" / "snapshots" / commit
    shutil.copytree(base, snapshot)
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert base_content("org/name") == base_content(str(base))
    assert base_content("org/name", revision="other") is None
